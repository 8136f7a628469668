"""Keeps what pgpool serves equal to what the Secrets say: read, compare, try, publish, reload, prove, record.

Each step begins anew from what is on disk, so the newest content wins, and a sidecar that was killed anywhere goes on
where it was. Three symlinks are its memory: `current` is what pgpool was given last, `verified` what it was last seen
to work with, `booted` what it was started with.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from entrypoint.errors import ConfigurationError, EntrypointError
from entrypoint.model import CURRENT
from entrypoint.program import RejectedError
from entrypoint.publish import BOOTED, VERIFIED, SupersededError, mark, marked, marked_at, publish
from entrypoint.render import render
from entrypoint.secret import Secret
from entrypoint.tls import FILES
from entrypoint.tree import Tree
from sidecar.account import Account
from sidecar.desired import Desired, Roles, read_desired
from sidecar.generation import CONF, HBA, PASSWD, Generation, parameters, read_generation
from sidecar.heartbeat import HEARTBEAT_SECONDS, ROLES, SILENT, Heartbeat
from sidecar.login import LOCKED_OUT, Outcome
from sidecar.pcp import PcpError
from sidecar.plan import Held, Plan, Trial, decide, to_try
from sidecar.pool import hold_failover, holds_failover, release_failover
from sidecar.proof import NotYetError, Proof
from sidecar.restart import RELOADED_ALWAYS, restart_reasons
from sidecar.restarter import Restarter
from sidecar.retry import Backoff
from sidecar.status import State, Status, shown
from sidecar.surroundings import Database, Surroundings

_BOOT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What one step found."""

    desired: Desired
    live: Generation
    verified: Generation | None
    booted: Generation
    key: Secret | None
    """The running pgpool's: no other one may encrypt what is published."""
    served: Roles
    """What pgpool was last seen to work with."""


class Rotation:
    """The loop's body: `step` is called for every hint and timer, and is cheap when there is nothing to do."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._note = around.events
        self._proof = Proof(around)
        self._backoff = Backoff(around.draw)
        self._account = Account(around)
        self._heartbeat = Heartbeat(around, self._proof)
        self._restarter = Restarter(around, self._proof, self._account, self._backoff)
        self.places: frozenset[Path] = frozenset()
        """Every file and directory that the last good reading looked at."""
        self._seen: tuple[str, str, int] | None = None
        """What the last step began with: digests wanted and live, and the time of the boot."""
        self._changed_at: float | None = None
        """Since when a change waits for its proof."""
        self._due = 0.0
        self._keys: tuple[Secret | None, ...] = ()
        """The running pgpool's key of pool_passwd, once it is known."""
        self._gone_since: dict[str, float] = {}
        self._removals: list[float] = []
        """When a role is next to be removed."""
        self._renewed: str | None = None
        """The digest with which the health checks began anew."""

    @property
    def status(self) -> Status:
        """The account of the last step."""
        return self._account.status

    @property
    def key(self) -> Secret | None:
        """The running pgpool's key of pool_passwd; None, too, while it is not known."""
        return self._keys[0] if self._keys else None

    def due_seconds(self) -> float:
        """How long until `step` has something to do even when nothing changes."""
        return max(0.0, self._due - self._around.clock())

    def step(self) -> Status:
        """One pass. Raises nothing that time may cure."""
        again = self._around.clock() >= self._due
        self._around.metrics.scan_timestamp.set(self._around.now().timestamp())
        try:
            return self._step(again=again)
        except (ConfigurationError, RejectedError) as error:
            return self._invalid(error)
        except SupersededError:
            return self._failed("pgpool-entrypoint is just booting")
        except NotYetError as error:
            return self._failed(str(error), alarm=error.alarm)
        except PcpError as error:
            return self._failed(str(error))
        except (EntrypointError, OSError) as error:
            return self._failed(str(error), alarm=True)
        except BaseException:
            # Whatever it is, the next step is to do all of this again, in a while.
            self._seen = None
            self._due = self._around.clock() + self._backoff.next()
            raise

    def _step(self, *, again: bool) -> Status:
        try:
            live = read_generation(self._around.run_dir, CURRENT)
            if live is not None and holds_failover(live.tree):
                live = self._release(live)
            desired = None if live is None else self._read(live)
        except ConfigurationError:
            self._seen = None
            raise
        except (OSError, ValueError):
            live = desired = None
        if live is None or desired is None:
            self._seen = None
            return self._conclude(State.STARTING, "pgpool-entrypoint has not booted here", due=_BOOT_SECONDS)
        self.places = desired.resolved.places
        return self._reconcile(desired, live, again=again)

    def _read(self, live: Generation) -> Desired:
        """What the Secrets say now. A certificate that expired while pgpool serves it stops no rotation."""
        run_dir, env = self._around.run_dir, self._around.env
        try:
            return read_desired(run_dir, env, self._around.now())
        except ConfigurationError as error:
            try:
                then = read_desired(run_dir, env, datetime.fromtimestamp(marked_at(run_dir, BOOTED) / 1e9, UTC))
            except ConfigurationError:
                raise error from None
            if any(then.resolved.model.tls.get(name) != live.tree.files.get(name) for name in FILES):
                raise
            return then

    def _reconcile(self, desired: Desired, live: Generation, *, again: bool) -> Status:
        model = desired.resolved.model
        wanted = render(model)
        seen = (wanted.digest, live.digest, marked_at(self._around.run_dir, BOOTED))
        if seen == self._seen and not again:
            self._around.metrics.applies.labels("noop").inc()
            return self.status
        if seen != self._seen:
            self._backoff.reset()
            self._seen = seen
        if wanted.digest != self._account.wanted:
            self._account.wanted = wanted.digest
            self._tell_change(wanted, live)
            self._tell_expiry(model.tls)
        scene = self._look(desired, live)
        if scene is None:
            self._conclude(State.PENDING, "PGPOOLKEYFILE has changed: only a restart applies a new key")
            return self._restart(("PGPOOLKEYFILE",), desired, fit=True)
        trials = self._try(scene)
        plan = decide(scene.served, desired.roles, trials, self._leaving(scene))
        as_wanted = plan.roles == desired.roles and scene.key == model.key
        tree = wanted if as_wanted else desired.tree(plan.roles, scene.key)
        served = self._serve(scene, plan, tree)
        if served:
            self._settle(desired, plan)
        else:
            self._conclude(State.DEGRADED, "logins through pgpool failed with this set; it was put back")
        reasons = restart_reasons(scene.booted.tree, tree, desired.catalogue)
        if scene.key != model.key:
            reasons = ("PGPOOLKEYFILE", *reasons)
        return self._restart(reasons, desired, fit=served and not plan.held)

    # --- what the Secrets say, and what PostgreSQL says to that ------------------------------------------------------

    def _tell_change(self, wanted: Tree, live: Generation) -> None:
        if wanted.digest == live.digest:
            return
        self._changed_at = self._around.clock()
        self._around.metrics.secret_last_change_timestamp.set(self._around.now().timestamp())
        names = sorted({*wanted.files, *live.tree.files})
        files = [name for name in names if wanted.files.get(name) != live.tree.files.get(name)]
        self._note.info("rotation.detected", generation=shown(wanted.digest), files=",".join(files))

    def _tell_expiry(self, tls: Mapping[str, bytes]) -> None:
        certificate = tls.get("tls.crt")
        if certificate is not None:
            expires = x509.load_pem_x509_certificates(certificate)[0].not_valid_after_utc
            self._around.metrics.tls_cert_not_after_timestamp.set(expires.timestamp())

    def _look(self, desired: Desired, live: Generation) -> _Scene | None:
        """The scene; None when the running pgpool's key is not known. Raises SupersededError in the midst of a boot."""
        run_dir = self._around.run_dir
        verified, booted = read_generation(run_dir, VERIFIED), read_generation(run_dir, BOOTED) or live
        known = [key for key in (desired.resolved.model.key, *self._keys) if booted.roles(key) is not None]
        if not known:
            return None
        key = known[0]
        self._keys = (key,)
        served = live.roles(key)
        if served is None:  # a boot has published with another key, and has not said so yet
            raise SupersededError
        served = (verified and verified.roles(key)) or served
        # A role that PostgreSQL has never let in has nothing to lose: what pgpool has of it counts for nothing.
        passwords = {
            role: password
            for role, password in served.passwords.items()
            if role not in self._heartbeat.unproven or desired.roles.passwords.get(role) == password
        }
        served = Roles(passwords, served.check_user)
        return _Scene(desired=desired, live=live, verified=verified, booted=booted, key=key, served=served)

    def _try(self, scene: _Scene) -> dict[str, Trial]:
        served, wanted = scene.served, scene.desired.roles
        database = self._database(scene.desired)
        trials: dict[str, Trial] = {}
        silent = 0
        for role in to_try(served, wanted):
            if silent >= SILENT:
                trials[role] = Trial(None, Outcome.UNKNOWN, "PostgreSQL gave no answer about others")
                continue
            begin = self._around.clock()
            new = self._proof.ask(database, role, wanted.passwords[role])
            former, old = served.passwords.get(role), None
            # The old one matters only where the new one is refused, and each failed login stands in somebody's log.
            if new.outcome is Outcome.REJECTED and former is not None:
                old = self._proof.ask(database, role, former).outcome
            trials[role] = Trial(old, new.outcome, new.reason)
            silent = silent + 1 if new.outcome is Outcome.UNKNOWN else 0
            self._note.info(
                "rotation.tried",
                role=role,
                new=new.outcome.name.lower(),
                old=old and old.name.lower(),
                reason=new.reason or None,
                ms=self._around.ms_since(begin),
            )
        return trials

    def _database(self, desired: Desired) -> Database:
        return self._around.database(desired.resolved.settings.backends, self._around.options.database)

    def _leaving(self, scene: _Scene) -> frozenset[str]:
        """Roles whose files have been gone for the whole grace period."""
        now, grace = self._around.clock(), self._around.options.removal_grace
        gone = scene.served.passwords.keys() - scene.desired.roles.passwords.keys()
        self._gone_since = {role: self._gone_since.get(role, now) for role in gone}
        leaving = frozenset(role for role, since in self._gone_since.items() if now - since >= grace)
        self._removals = [since + grace for role, since in self._gone_since.items() if role not in leaving]
        return leaving

    # --- what pgpool is given, and the proof -------------------------------------------------------------------------

    def _serve(self, scene: _Scene, plan: Plan, tree: Tree) -> bool:
        """See to it that pgpool works with `tree`; false: it does not, and works with the former set again.

        Raises NotYetError, PcpError and what publishing raises when that is not certain yet.
        """
        former = self._way_back(scene, tree)
        if former is not None and self._account.is_rejected(tree.digest):
            self._put_back(former, scene.live, scene.served, self._database(scene.desired))
            return False
        if scene.live.digest == tree.digest and self._is_proven(scene.live.digest):
            return True
        refusal = self._apply(scene, plan, tree)
        if refusal is None:
            return True
        role, reason = refusal
        why = f"pgpool refuses role {role!r}, which PostgreSQL accepts: {reason}"
        if reason == LOCKED_OUT and (former is None or former.tree.files[HBA] == tree.files[HBA]):
            remedy = "let it in over the socket: `local all all scram-sha-256`"
            raise NotYetError(f"role {role!r} cannot be proved through pgpool: {reason} → {remedy}", alarm=True)
        if former is None:
            raise NotYetError(f"{why}; there is no former set to put back", alarm=True)
        if not self._former_passwords_work(scene, plan):
            raise NotYetError(f"{why}; former passwords are no longer good, so nothing is put back", alarm=True)
        self._account.reject(tree.digest)
        self._around.metrics.rollbacks.labels("refused").inc()
        self._note.error(
            "rotation.rolled_back", generation=shown(former.digest), rejected=shown(tree.digest), reason=why
        )
        live = read_generation(self._around.run_dir, CURRENT) or scene.live
        self._put_back(former, live, scene.served, self._database(scene.desired))
        return False

    def _way_back(self, scene: _Scene, tree: Tree) -> Generation | None:
        """The set to put back, should pgpool refuse `tree`: one that it worked with since it was started.

        One from before that may be encrypted with a key, or hold a PCP password, that are no longer known.
        """
        run_dir = self._around.run_dir
        since_boot = marked_at(run_dir, VERIFIED) >= marked_at(run_dir, BOOTED)
        return scene.verified if since_boot and scene.verified and scene.verified.digest != tree.digest else None

    def _is_proven(self, digest: str) -> bool:
        """Whether pgpool was seen to work with this live generation since it went live."""
        run_dir = self._around.run_dir
        return marked(run_dir, VERIFIED) == digest and marked_at(run_dir, VERIFIED) >= marked_at(run_dir, CURRENT)

    def _apply(self, scene: _Scene, plan: Plan, tree: Tree) -> tuple[str, str] | None:
        """Publish, reload, prove, retire and remember; else which role pgpool refuses, and why."""
        run_dir, live = self._around.run_dir, scene.live
        started_with_it = live.digest == tree.digest and marked_at(run_dir, CURRENT) <= marked_at(run_dir, BOOTED)
        same_passwords = self._is_proven(live.digest) and live.tree.files[PASSWD] == tree.files[PASSWD]
        if _settings(tree) != _settings(live.tree):
            self._around.dry_run(tree.files[CONF])
        if tree.digest != live.digest:
            self._publish(tree, live)
        if not started_with_it:
            # With failover allowed, a reload may be the very thing that makes a stuck check detach its node.
            self._renew_checks(scene, plan, tree)
            self._proof.reload(tree)
        roles = _to_prove(plan, scene.served)
        refusal = self._proof.refusal(plan.roles, roles, tree, self._database(scene.desired))
        if refusal is not None:
            return refusal
        if self._changed_at is not None:
            self._around.metrics.rotation_duration.observe(self._around.clock() - self._changed_at)
        if not (started_with_it or same_passwords):
            self._proof.retire(plan.roles, roles[0], self._database(scene.desired))
        mark(run_dir, VERIFIED, tree.digest)
        self._account.prove(tree.digest)
        self._heartbeat.unproven = {**self._heartbeat.unproven, **plan.unproven}
        self._heartbeat.hasten()
        self._around.metrics.applies.labels("applied").inc()
        self._around.metrics.last_verified_timestamp.set(self._around.now().timestamp())
        ms = self._around.ms_since(self._changed_at)
        self._note.info("rotation.verified", generation=shown(tree.digest), ms=ms)
        self._changed_at = None
        return None

    def _renew_checks(self, scene: _Scene, plan: Plan, tree: Tree) -> None:
        """When the check role's password has changed: hold failover while pgpool's health checks begin anew.

        They go on with the former password, deaf to reloads, and would detach their node. Another role's password is
        fetched anew. No client is asked to prove anything meanwhile: a node that dies now waits until the hold ends.
        """
        check = plan.roles.check_user
        changed = scene.served.check_user == check and scene.served.passwords.get(check) != plan.roles.passwords[check]
        if not changed or self._renewed == tree.digest:
            return
        nodes = len(scene.desired.resolved.settings.backends)
        held = hold_failover(tree, nodes)
        self._publish(held, Generation(tree.digest, tree))
        try:
            self._proof.reload(held, anew=True)
            self._proof.renew_checks(nodes)
            self._renewed = tree.digest
        finally:
            self._publish(tree, Generation(held.digest, held))
            with suppress(PcpError, NotYetError):  # if it is lost, the next step sends it again
                self._proof.reload(tree)

    def _release(self, live: Generation) -> Generation:
        """End a hold of failover that somebody left who was killed meanwhile."""
        tree = release_failover(live.tree)
        self._publish(tree, live)
        self._proof.reload(tree, anew=True)
        return Generation(tree.digest, tree)

    def _publish(self, tree: Tree, live: Generation) -> None:
        begin = self._around.clock()
        publish(tree, self._around.run_dir, replacing=live.digest)
        if self._seen:  # what we do ourselves is nothing new
            self._seen = (self._seen[0], tree.digest, self._seen[2])
        self._note.info("rotation.published", generation=shown(tree.digest), ms=self._around.ms_since(begin))
        self._conclude(State.APPLYING, "published; reload and proof are under way")

    def _former_passwords_work(self, scene: _Scene, plan: Plan) -> bool:
        """Whether PostgreSQL still accepts what would be put back: else pgpool is not the one to blame."""
        database = self._database(scene.desired)
        return all(
            self._proof.ask(database, role, scene.served.passwords[role]).outcome is Outcome.ACCEPTED
            for role in _changed_roles(plan, scene.served)
            if role in scene.served.passwords
        )

    def _put_back(self, former: Generation, live: Generation, roles: Roles, database: Database) -> None:
        """Have pgpool serve a former set, with these roles, again; nothing when it does already."""
        if live.digest != former.digest:
            self._publish(former.tree, live)
        if not self._is_proven(former.digest):
            self._proof.reload(former.tree)
            self._proof.retire(roles, roles.check_user, database)
            mark(self._around.run_dir, VERIFIED, former.digest)

    # --- the end of a step -------------------------------------------------------------------------------------------

    def _settle(self, desired: Desired, plan: Plan) -> Status:
        """The state once pgpool has what was planned; asks now and then whether PostgreSQL still agrees."""
        database, heartbeat = self._database(desired), self._heartbeat
        heartbeat.ask_about_new_roles(database, plan.roles)
        if not plan.held:
            heartbeat.beat(database, plan.roles)
        heartbeat.forget(plan.roles)
        alarms = [role for role, each in plan.held.items() if each.alarm]
        self._around.metrics.rejected_credentials.set(len({*alarms, *heartbeat.refused}))
        due = self._backoff.next() if plan.held or heartbeat.unproven else HEARTBEAT_SECONDS
        if plan.held:
            self._around.metrics.applies.labels("held").inc()
            reason = "; ".join(f"role {role!r}: {each.reason}" for role, each in plan.held.items())
            return self._conclude(State.DEGRADED if alarms else State.PENDING, reason, due=due, held=plan.held)
        if heartbeat.refused:
            reason = f"PostgreSQL does not accept the Secret's password of {', '.join(map(repr, heartbeat.refused))}"
            return self._conclude(State.DEGRADED, reason, due=due)
        return self._conclude(State.IN_SYNC, due=due)

    def _restart(self, reasons: tuple[str, ...], desired: Desired, *, fit: bool) -> Status:
        """What of the configuration waits for a restart, and the restart when this pod's turn has come."""
        waiting = self._restarter.consider(reasons, desired, self._database(desired), fit=fit)
        if waiting.in_vain:
            reason = f"a restart did not apply {', '.join(reasons)}: do both containers run the same image?"
            return self._conclude(State.DEGRADED, reason)
        if waiting.seconds is not None:
            self._due = min(self._due, self._around.clock() + waiting.seconds)
        return self.status

    def _invalid(self, error: EntrypointError) -> Status:
        self._around.metrics.applies.labels("invalid").inc()
        problems = error.problems if isinstance(error, ConfigurationError) else ()
        told = [f"{each.setting} ({each.origin}) {each.what} → {each.remedy}" for each in problems]
        reason = "; ".join(told) or " ".join(str(error).split())
        return self._conclude(State.INVALID, reason)

    def _failed(self, reason: str, *, alarm: bool = False) -> Status:
        self._around.metrics.applies.labels("failed").inc()
        return self._conclude(State.DEGRADED if alarm else State.APPLYING, reason, due=self._backoff.next())

    def _conclude(
        self, state: State, reason: str = "", *, due: float = HEARTBEAT_SECONDS, held: Mapping[str, Held] | None = None
    ) -> Status:
        """The account of this step; `due`: seconds until the next step is of use."""
        self._due = min([self._around.clock() + due, *self._removals])
        return self._account.conclude(state, reason, held=held or {}, unproven=self._heartbeat.unproven)


def _changed_roles(plan: Plan, served: Roles) -> list[str]:
    """The roles that get a new password, as far as PostgreSQL lets them in: the check role first."""
    changed = [
        role
        for role, password in plan.roles.passwords.items()
        if served.passwords.get(role) != password and role not in plan.unproven
    ]
    return sorted(changed, key=lambda role: role != plan.roles.check_user)


def _to_prove(plan: Plan, served: Roles) -> Sequence[str]:
    """The first of those that changed, for each takes a client slot; when nobody did, the check role."""
    return _changed_roles(plan, served)[:ROLES] or [plan.roles.check_user]


def _settings(tree: Tree) -> dict[str, str]:
    """What pgpool.conf says, besides what changes with every password."""
    return {name: value for name, value in parameters(tree).items() if name not in RELOADED_ALWAYS}
