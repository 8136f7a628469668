"""Has pgpool serve a set: publish, reload, prove; and puts the former one back when pgpool refuses it."""

from collections.abc import Callable
from contextlib import suppress

from entrypoint.model import CURRENT
from entrypoint.publish import BOOTED, VERIFIED, mark, marked, marked_at, publish
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.account import Account
from sidecar.generation import CONF, HBA, PASSWD, Generation, parameters, read_generation
from sidecar.heartbeat import ROLES, Heartbeat
from sidecar.login import Outcome
from sidecar.pcp import PcpError
from sidecar.plan import Plan
from sidecar.pool import hold_failover, release_failover
from sidecar.proof import NotYetError, Proof
from sidecar.restart import RELOADED_ALWAYS
from sidecar.scene import Scene
from sidecar.status import shown
from sidecar.surroundings import Surroundings
from sidecar.through_pgpool import LOCKED_OUT


class Serving:
    """Raises NotYetError, PcpError, and what publishing raises, while the outcome is not certain."""

    def __init__(
        self,
        around: Surroundings,
        proof: Proof,
        account: Account,
        heartbeat: Heartbeat,
        published: Callable[[str], None],
    ) -> None:
        """`published`: called with the digest of each generation that went live."""
        self._around = around
        self._proof = proof
        self._account = account
        self._heartbeat = heartbeat
        self._published = published
        self._renewed: tuple[int, str, Secret] | None = None
        """When the pgpool had booted whose health checks last began anew, and with which role and password they did."""

    def serve(self, scene: Scene, plan: Plan, tree: Tree) -> bool:
        """See to it that pgpool works with `tree`; false: it does not, and works with the former set again."""
        former = self._way_back(scene, tree)
        rejected = former is not None and self._account.is_rejected(tree.digest)
        if former is not None and rejected and self._former_passwords(scene, plan) is not Outcome.REJECTED:
            self._put_back(former, scene.live, scene)
            return False
        if scene.live.holds(tree) and self._is_proven(scene.live.digest):
            return True
        refusal = self._apply(scene, plan, tree)
        if refusal is None:
            return True
        role, reason = refusal
        why = f"pgpool refuses role {role!r}, which PostgreSQL accepts: {reason}"
        if reason == LOCKED_OUT and (former is None or former.tree.files.get(HBA) == tree.files[HBA]):
            remedy = "let it in over the socket: `local all all scram-sha-256`"
            raise NotYetError(f"role {role!r} cannot be proved through pgpool: {reason} → {remedy}", alarm=True)
        if former is None:
            raise NotYetError(f"{why}; there is no former set to put back", alarm=True)
        if self._former_passwords(scene, plan) is not Outcome.ACCEPTED:
            raise NotYetError(f"{why}; former passwords are no longer good, so nothing is put back", alarm=True)
        self._account.reject(tree.digest, former.digest, why)
        self._put_back(former, read_generation(self._around.run_dir, CURRENT) or scene.live, scene)
        return False

    def release(self, live: Generation) -> Generation:
        """End a hold of failover that somebody left who was killed meanwhile."""
        tree = release_failover(live.tree)
        self._publish(tree, live)
        self._proof.reload(tree, anew=True)
        return Generation(tree.digest, tree)

    def deliver(self, live: Generation) -> None:
        """Have pgpool take what is live, should the reload for it have been lost; for when there is no set to serve."""
        published = marked_at(self._around.run_dir, CURRENT) > marked_at(self._around.run_dir, BOOTED)
        if published and not self._is_proven(live.digest):
            with suppress(PcpError, NotYetError):  # the next step tries again
                self._proof.reload(live.tree)

    def _way_back(self, scene: Scene, tree: Tree) -> Generation | None:
        """The set to put back, should pgpool refuse `tree`: one that it worked with since it was started.

        One from before that may be encrypted with a key, or hold a PCP password, that are no longer known.
        """
        run_dir = self._around.run_dir
        since_boot = marked_at(run_dir, VERIFIED) >= marked_at(run_dir, BOOTED)
        return scene.verified if since_boot and scene.verified and scene.verified.digest != tree.digest else None

    def _is_proven(self, digest: str) -> bool:
        """Whether pgpool was seen to work with this live generation since it went live, and since it was started."""
        run_dir = self._around.run_dir
        since = max(marked_at(run_dir, CURRENT), marked_at(run_dir, BOOTED))
        return marked(run_dir, VERIFIED) == digest and marked_at(run_dir, VERIFIED) >= since

    def _apply(self, scene: Scene, plan: Plan, tree: Tree) -> tuple[str, str] | None:
        """Publish, reload, prove, retire and remember; else which role pgpool refuses, and why."""
        run_dir, live = self._around.run_dir, scene.live
        there = live.holds(tree)
        started_with_it = there and marked_at(run_dir, CURRENT) <= marked_at(run_dir, BOOTED)
        same_passwords = self._is_proven(live.digest) and live.tree.files.get(PASSWD) == tree.files[PASSWD]
        if _settings(tree) != _settings(live.tree):
            self._around.dry_run(tree.files[CONF])
        if not there:
            self._publish(tree, live)
        if not started_with_it:
            # With failover allowed, a reload may be the very thing that makes a stuck check detach its node.
            self._renew_checks(scene, plan, tree)
            self._proof.reload(tree)
        # The first of those that changed, for each takes a client slot; when nobody did, the check role.
        roles = plan.changed(scene.served)[:ROLES] or [plan.roles.check_user]
        refusal = self._proof.refusal(plan.roles, roles, tree, scene.database)
        if refusal is not None:
            return refusal
        self._account.logged_in()
        if started_with_it:
            self._proof.started_with_it()
        if not (started_with_it or same_passwords):
            self._proof.retire(plan.roles, roles, scene.database)
        mark(run_dir, VERIFIED, tree.digest)
        self._heartbeat.take(plan.unproven)
        self._account.verify(tree.digest)
        return None

    def _renew_checks(self, scene: Scene, plan: Plan, tree: Tree) -> None:
        """When the check role's password has changed: hold failover while pgpool's health checks begin anew.

        They go on with the former password, deaf to reloads, and would detach their node. Another role's password is
        fetched anew. No client is asked to prove anything meanwhile: a node that dies now waits until the hold ends.
        """
        check = plan.roles.check_user
        booted, password = marked_at(self._around.run_dir, BOOTED), plan.roles.passwords[check]
        # Not what was proved last: a set that came meanwhile, and was never proved, may have renewed them.
        former = scene.served.passwords.get(check)
        if self._renewed is not None and self._renewed[:2] == (booted, check):
            former = self._renewed[2]
        if scene.served.check_user != check or former == password:
            return
        nodes = len(scene.desired.resolved.settings.backends)
        held = hold_failover(tree, nodes)
        self._publish(held, Generation(tree.digest, tree))
        try:
            self._proof.reload(held, anew=True)
            self._proof.renew_checks(nodes)
            self._renewed = (booted, check, password)
        finally:
            self._publish(tree, Generation(held.digest, held))
            with suppress(PcpError, NotYetError):  # if it is lost, the next step sends it again
                self._proof.reload(tree)

    def _publish(self, tree: Tree, live: Generation) -> None:
        begin = self._around.clock()
        publish(tree, self._around.run_dir, replacing=live.digest)
        self._around.events.info("rotation.published", generation=shown(tree.digest), ms=self._around.ms_since(begin))
        self._published(tree.digest)

    def _former_passwords(self, scene: Scene, plan: Plan) -> Outcome:
        """What PostgreSQL says to those that would be put back: accepted, or its first other answer.

        It may have moved on, and pgpool not be to blame.
        """
        outcomes = (
            self._proof.ask(scene.database, role, scene.served.passwords[role]).outcome
            for role in plan.changed(scene.served)
            if role in scene.served.passwords
        )
        return next((each for each in outcomes if each is not Outcome.ACCEPTED), Outcome.ACCEPTED)

    def _put_back(self, former: Generation, live: Generation, scene: Scene) -> None:
        """Have pgpool serve a former set again; nothing when it does already."""
        if live.digest != former.digest:
            self._publish(former.tree, live)
        if not self._is_proven(former.digest):
            self._proof.reload(former.tree)
            self._proof.retire(scene.served, [scene.served.check_user], scene.database)
            mark(self._around.run_dir, VERIFIED, former.digest)


def _settings(tree: Tree) -> dict[str, str]:
    """What pgpool.conf says, besides what changes with every password."""
    return {name: value for name, value in parameters(tree).items() if name not in RELOADED_ALWAYS}
