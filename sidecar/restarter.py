"""Restarts pgpool when this pod's turn has come, for what a reload does not apply."""

from collections.abc import Mapping
from dataclasses import dataclass

from entrypoint.errors import ConfigurationError
from entrypoint.publish import BOOTED, marked_at
from entrypoint.render import render
from entrypoint.secret import Secret
from sidecar.account import Account
from sidecar.desired import Desired, read_desired
from sidecar.generation import CONF
from sidecar.login import Outcome
from sidecar.proof import NotYetError, Proof
from sidecar.restart import LISTENERS, turn_seconds, wanted_by
from sidecar.retry import Backoff
from sidecar.status import Restart
from sidecar.surroundings import Database, Surroundings


@dataclass(frozen=True, slots=True)
class _Stop:
    """A pgpool that we stopped."""

    booted: int
    """When it had booted."""
    wanted: Mapping[str, bytes | str | Secret | None]
    """What its restart was to bring."""


class Restarter:
    """Remembers since when a restart is due, and what the last one was for."""

    def __init__(self, around: Surroundings, proof: Proof, account: Account, backoff: Backoff) -> None:
        self._around = around
        self._backoff = backoff
        self._proof = proof
        self._account = account
        self._since: float | None = None
        self._stopped: _Stop | None = None
        """The last one, until nothing waits for a restart any more."""

    def in_vain(self, reasons: tuple[str, ...], desired: Desired) -> bool:
        """Whether a restart for just this has not helped. What has changed since then may do better."""
        stopped = self._stopped
        if stopped is None or not reasons or marked_at(self._around.run_dir, BOOTED) <= stopped.booted:
            return False
        wanted = wanted_by(reasons, desired.resolved.model)
        return all(name in stopped.wanted and stopped.wanted[name] == value for name, value in wanted.items())

    def consider(self, reasons: tuple[str, ...], desired: Desired, database: Database, *, fit: bool) -> float | None:
        """Stop pgpool if `reasons` and this pod's turn say so; a boot then publishes all that the Secrets say.

        `fit`: as far as is known, that works. The seconds until this is to be considered again; None: not by the
        clock. Raises RejectedError, NotYetError or PcpError.
        """
        options, now = self._around.options, self._around.clock()
        self._around.metrics.restart_required.set(bool(reasons))
        if not reasons:
            self._since = self._stopped = None
            self._account.restart(None)
            return None
        if self.in_vain(reasons, desired):
            return None
        policy = "never" if LISTENERS & set(reasons) else options.restart
        if self._since is None:
            self._since = now
            self._around.events.warning("restart.required", by=",".join(reasons), policy=policy)
        turn = self._since + turn_seconds(self._around.host_name, options.restart_spread)
        left = None if policy == "never" else max(0.0, turn - now)
        self._account.restart(Restart(required_by=reasons, policy=policy, in_seconds=left))
        if left is None or not fit:
            return None
        if left > 0:
            return left
        if not self._would_serve(desired, database):
            return self._backoff.next()
        self._around.events.warning("restart.stopping", by=",".join(reasons))
        booted = marked_at(self._around.run_dir, BOOTED)
        self._stopped = _Stop(booted, wanted_by(reasons, desired.resolved.model))
        self._since = None
        self._around.pgpool.stop()
        self._around.metrics.restarts.labels("configuration").inc()
        return None

    def _would_serve(self, desired: Desired, database: Database) -> bool:
        """Whether a pgpool that boots now, with the Secrets as they are, would serve. Raises NotYetError.

        What stops no rotation may stop a boot: a certificate that has expired in use.
        """
        try:
            read_desired(self._around.run_dir, self._around.env, self._around.now())
        except ConfigurationError as error:
            raise NotYetError(f"a restart would end in refusal: {error.problems[0].line}", alarm=True) from None
        self._around.dry_run(render(desired.resolved.model).files[CONF])
        check = desired.roles.check_user
        return self._proof.ask(database, check, desired.roles.passwords[check]).outcome is Outcome.ACCEPTED
