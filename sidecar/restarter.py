"""Restarts pgpool when this pod's turn has come, for what a reload does not apply."""

from dataclasses import dataclass

from entrypoint.publish import BOOTED, marked_at
from entrypoint.render import render
from sidecar.account import Account
from sidecar.desired import Desired
from sidecar.generation import CONF
from sidecar.login import Outcome
from sidecar.proof import Proof
from sidecar.restart import turn_seconds
from sidecar.retry import Backoff
from sidecar.status import Restart
from sidecar.surroundings import Database, Surroundings


@dataclass(frozen=True, slots=True)
class Waiting:
    """What became of it this time."""

    seconds: float | None = None
    """Until it is to be considered again; None: not by the clock."""
    in_vain: bool = False
    """The last restart did not apply it."""


class Restarter:
    """Remembers since when a restart is due, and what the last one was for."""

    def __init__(self, around: Surroundings, proof: Proof, account: Account, backoff: Backoff) -> None:
        self._around = around
        self._backoff = backoff
        self._proof = proof
        self._account = account
        self._since: float | None = None
        self._stopped: tuple[int, tuple[str, ...]] | None = None
        """When the pgpool that we stopped last had booted, and what for."""

    def consider(self, reasons: tuple[str, ...], desired: Desired, database: Database, *, fit: bool) -> Waiting:
        """Stop pgpool if `reasons` and this pod's turn say so; a boot then publishes all that the Secrets say.

        `fit`: as far as is known, that works. Raises RejectedError or PcpError.
        """
        options, now = self._around.options, self._around.clock()
        self._around.metrics.restart_required.set(bool(reasons))
        if not reasons:
            self._since = None
            self._account.restart(None)
            return Waiting()
        booted = marked_at(self._around.run_dir, BOOTED)
        if self._stopped is not None and self._stopped[0] < booted and set(reasons) <= set(self._stopped[1]):
            return Waiting(in_vain=True)
        if self._since is None:
            self._since = now
            self._around.events.warning("restart.required", by=",".join(reasons), policy=options.restart)
        turn = self._since + turn_seconds(self._around.host_name, options.restart_spread)
        left = None if options.restart == "never" else max(0.0, turn - now)
        self._account.restart(Restart(required_by=reasons, policy=options.restart, in_seconds=left))
        if left is None or not fit:
            return Waiting()
        if left > 0:
            return Waiting(left)
        if not self._would_serve(desired, database):
            return Waiting(self._backoff.next())
        self._around.events.warning("restart.stopping", by=",".join(reasons))
        self._stopped = (booted, reasons)
        self._since = None
        self._around.pgpool.stop()
        self._around.metrics.restarts.labels("configuration").inc()
        return Waiting()

    def _would_serve(self, desired: Desired, database: Database) -> bool:
        """Whether a pgpool that boots now, with the Secrets as they are, would serve."""
        self._around.dry_run(render(desired.resolved.model).files[CONF])
        check = desired.roles.check_user
        return self._proof.ask(database, check, desired.roles.passwords[check]).outcome is Outcome.ACCEPTED
