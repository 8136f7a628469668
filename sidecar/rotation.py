"""Keeps what pgpool serves equal to what the Secrets say: read, compare, try, publish, reload, prove, record.

Each step begins anew from what is on disk, so the newest content wins, and a sidecar that was killed anywhere goes on
where it was. Three symlinks are its memory: `current` is what pgpool was given last, `verified` what it was last seen
to work with, `booted` what it was started with.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from entrypoint.errors import ConfigurationError, EntrypointError, PublishError
from entrypoint.model import CURRENT
from entrypoint.program import RejectedError
from entrypoint.publish import BOOTED, SupersededError, marked_at, turn
from entrypoint.render import render
from entrypoint.secret import Secret
from sidecar.account import Account
from sidecar.desired import Desired
from sidecar.generation import Generation, read_generation
from sidecar.heartbeat import HEARTBEAT_SECONDS, Heartbeat
from sidecar.pcp import PcpError
from sidecar.plan import Held, Plan, decide
from sidecar.pool import holds_failover
from sidecar.proof import NotYetError, Proof
from sidecar.restart import KEY, restart_reasons
from sidecar.restarter import Restarter
from sidecar.retry import Backoff
from sidecar.scene import Look, Scene
from sidecar.serving import Serving
from sidecar.status import State, Status
from sidecar.surroundings import Surroundings

_BOOT_SECONDS = 1.0
_TURN_SECONDS = 30.0


class Rotation:
    """The loop's body: `step` is called for every hint and timer, and is cheap when there is nothing to do."""

    def __init__(self, around: Surroundings, *, patience: float = _TURN_SECONDS) -> None:
        """`patience`: how many seconds a step waits for that of another sidecar, such as `--once`."""
        self._around = around
        self._patience = patience
        proof = Proof(around)
        self._backoff = Backoff(around.draw)
        self._account = Account(around)
        self._heartbeat = Heartbeat(around, proof)
        self._restarter = Restarter(around, proof, self._account, self._backoff)
        self._look = Look(around, proof)
        self._serving = Serving(around, proof, self._account, self._heartbeat, self._published)
        self._seen: tuple[str, str, int] | None = None
        """What the last step began with: digests wanted and live, and the time of the boot."""
        self._due = 0.0

    @property
    def status(self) -> Status:
        """The account of the last step."""
        return self._account.status

    @property
    def places(self) -> frozenset[Path]:
        """Every file and directory that the last good reading looked at."""
        desired = self._look.desired
        return desired.resolved.places if desired else frozenset()

    def check_role(self) -> tuple[str, Secret] | None:
        """The check role and its password, as pgpool has them; None before a boot, in its midst, and before a step.

        As the Secrets have them while pgpool's key is not known: that may be long, and the nodes are to be kept true.
        Raises OSError.
        """
        live = read_generation(self._around.run_dir, CURRENT)
        desired = self._look.desired
        roles = live and (live.roles(self._look.key) or (desired and desired.roles))
        return (roles.check_user, roles.passwords[roles.check_user]) if roles else None

    def due_seconds(self) -> float:
        """How long until `step` has something to do even when nothing changes."""
        return max(0.0, self._due - self._around.clock())

    def step(self) -> Status:
        """One pass. Raises nothing that time may cure."""
        again = self._around.clock() >= self._due
        self._around.metrics.scan_timestamp.set(self._around.now().timestamp())
        if booted := marked_at(self._around.run_dir, BOOTED):
            self._around.metrics.booted_timestamp.set(booted / 1e9)
        try:
            return self._in_turn(again=again)
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

    def _in_turn(self, *, again: bool) -> Status:
        """One sidecar at a time: a second one would take a hold of failover for one that somebody has left."""
        with ExitStack() as stack:
            try:
                stack.enter_context(turn(self._around.run_dir, self._patience))
            except FileNotFoundError:
                pass  # nothing has booted, so there is nothing to do
            except PublishError:
                return self._failed("another sidecar is at work here, and does not come to an end")
            return self._step(again=again)

    def _step(self, *, again: bool) -> Status:
        live: Generation | None = None
        missing = "pgpool-entrypoint has not booted here"
        try:
            live = read_generation(self._around.run_dir, CURRENT)
            if live is not None and holds_failover(live.tree):
                live = self._serving.release(live)
            desired = None if live is None else self._look.read(live)
        except ConfigurationError:
            self._seen = None
            if live is not None:
                self._serving.deliver(live)
            raise
        except (OSError, ValueError) as error:
            live = desired = None
            missing = f"what pgpool-entrypoint left here cannot be read: {error}"
        if live is None or desired is None:
            self._seen = None
            return self._conclude(State.STARTING, missing, due=_BOOT_SECONDS)
        try:
            return self._reconcile(desired, live, again=again)
        except RejectedError:
            self._serving.deliver(live)
            raise

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
        self._account.want(wanted, live)
        scene = self._look.scene(desired, live, self._heartbeat.unproven)
        if scene is None:
            vain = self._in_vain((KEY,), desired)
            reason = vain or "PGPOOLKEYFILE has changed: only a restart applies a new key"
            self._conclude(State.DEGRADED if vain else State.PENDING, reason)
            return self._restart((KEY,), desired, fit=True)
        plan = decide(scene.served, desired.roles, self._look.trials(scene), self._look.leaving(scene))
        as_wanted = plan.roles == desired.roles and scene.key == model.key
        tree = wanted if as_wanted else desired.tree(plan.roles, scene.key)
        reasons = restart_reasons(scene.booted.tree, tree, desired.catalogue)
        if scene.key != model.key:
            reasons = (KEY, *reasons)
        served = self._serving.serve(scene, plan, tree)
        if served and as_wanted:
            self._account.forgive()
        self._settle(scene, plan, put_back=not served, vain=self._in_vain(reasons, desired))
        return self._restart(reasons, desired, fit=served and not plan.held)

    def _published(self, digest: str) -> None:
        """A generation went live."""
        if self._seen:  # what we do ourselves is nothing new
            self._seen = (self._seen[0], digest, self._seen[2])
        self._conclude(State.APPLYING, "published; reload and proof are under way")

    def _settle(self, scene: Scene, plan: Plan, *, put_back: bool, vain: str) -> Status:
        """The state once it is certain what pgpool has; asks now and then whether PostgreSQL still agrees.

        Args:
            scene: what this step began with.
            plan: what pgpool was to be given.
            put_back: it would not have it, and has what was served before.
            vain: what a restart has not applied, if anything.
        """
        heartbeat = self._heartbeat
        heartbeat.ask_about_new_roles(scene.database, plan.roles)
        heartbeat.beat(scene.database, scene.served if put_back else plan.roles, plan.held)
        alarms = [role for role, each in plan.held.items() if each.alarm]
        self._around.metrics.rejected_credentials.set(len({*alarms, *heartbeat.refused}))
        due = self._backoff.next() if plan.held or heartbeat.unproven else HEARTBEAT_SECONDS
        held = dict(plan.held)
        reasons = [vain] if vain else []
        if put_back:
            reasons.append("logins through pgpool failed with this set; it was put back")
            former = scene.served.passwords
            held |= {role: Held("put back with its set") for role in plan.changed(scene.served) if role in former}
        if plan.held:
            self._around.metrics.applies.labels("held").inc()
            reasons += [f"role {role!r}: {each.reason}" for role, each in plan.held.items()]
        if heartbeat.refused:
            roles = ", ".join(map(repr, heartbeat.refused))
            reasons.append(f"PostgreSQL does not accept the Secret's password of {roles}")
        state = State.PENDING if plan.held else State.IN_SYNC
        if vain or put_back or alarms or heartbeat.refused:
            state = State.DEGRADED
        return self._conclude(state, "; ".join(reasons), due=due, held=held)

    def _in_vain(self, reasons: tuple[str, ...], desired: Desired) -> str:
        """What to say of a restart that has not helped; nothing when there was none."""
        if not self._restarter.in_vain(reasons, desired):
            return ""
        return f"a restart did not apply {', '.join(reasons)}: do both containers run the same image?"

    def _restart(self, reasons: tuple[str, ...], desired: Desired, *, fit: bool) -> Status:
        """What of the configuration waits for a restart, and the restart when this pod's turn has come."""
        seconds = self._restarter.consider(reasons, desired, self._look.database(desired), fit=fit)
        if seconds is not None:
            self._due = min(self._due, self._around.clock() + seconds)
        return self.status

    def _invalid(self, error: EntrypointError) -> Status:
        self._around.metrics.applies.labels("invalid").inc()
        self._heartbeat.go_on()
        self._around.metrics.rejected_credentials.set(len(self._heartbeat.refused))
        problems = error.problems if isinstance(error, ConfigurationError) else ()
        told = [each.line for each in problems]
        reason = "; ".join(told) or " ".join(str(error).split())
        return self._conclude(State.INVALID, reason)

    def _failed(self, reason: str, *, alarm: bool = False) -> Status:
        self._around.metrics.applies.labels("failed").inc()
        return self._conclude(State.DEGRADED if alarm else State.APPLYING, reason, due=self._backoff.next())

    def _conclude(
        self, state: State, reason: str = "", *, due: float = HEARTBEAT_SECONDS, held: Mapping[str, Held] | None = None
    ) -> Status:
        """The account of this step; `due`: seconds until the next step is of use."""
        now = self._around.clock()
        # One that is past waits for something else: a set that can be used, say.
        self._due = min([now + due, *(removal for removal in self._look.removals if removal > now)])
        return self._account.conclude(state, reason, held=held or {}, unproven=self._heartbeat.unproven)
