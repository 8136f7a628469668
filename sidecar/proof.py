"""Has pgpool read its files again, and proves by logging in that it works with them.

A reload that was sent proves nothing: it may get lost, and a child in a session never sees it (pool_passwd is read
between two sessions).
"""

from collections.abc import Sequence

from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.desired import Roles
from sidecar.generation import marker
from sidecar.login import Attempt, Outcome
from sidecar.pcp import PcpError
from sidecar.status import shown
from sidecar.surroundings import Database, Surroundings
from sidecar.through_pgpool import LOCKED_OUT

LOGINS = 3
"""Fresh logins through pgpool, one after the other, that prove a password."""
_ROUNDS = 4
_BETWEEN_ROUNDS_SECONDS = 0.25
_ARRIVAL_SECONDS = 5.0
_LOOK_AGAIN_SECONDS = 0.02


class NotYetError(Exception):
    """This step cannot be finished now; another may."""

    def __init__(self, reason: str, *, alarm: bool = False) -> None:
        super().__init__(reason)
        self.alarm = alarm
        """Whether somebody must act: time alone will hardly help."""


class Proof:
    """What is asked of pgpool, and of PostgreSQL, and counted."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._sent_for: str | None = None
        """The digest of what pgpool was last seen to have taken from a reload of ours."""

    def ask(self, database: Database, role: str, password: Secret) -> Attempt:
        """One login directly at PostgreSQL."""
        self._around.beat()
        attempt = database.attempt(role, password)
        self._around.metrics.verifications.labels("backend", attempt.outcome.name.lower()).inc()
        return attempt

    def login(self, role: str, password: Secret) -> Attempt:
        """One login through pgpool."""
        self._around.beat()
        attempt = self._around.pgpool.login(role, password)
        self._around.metrics.verifications.labels("pgpool", attempt.outcome.name.lower()).inc()
        return attempt

    def reload(self, tree: Tree, *, anew: bool = False) -> None:
        """Have pgpool read the live files, unless it has (and not `anew`), and wait until it has.

        A reload too many is not free: it costs a health check that is failing at this time one of its retries.
        Raises NotYetError or PcpError.
        """
        around, metrics = self._around, self._around.metrics
        begin = around.clock()
        try:
            # That it has arrived proves nothing alone: PCP reads the file when it is next asked, after any reload.
            if not anew and self._sent_for == tree.digest and around.pgpool.arrived(marker(tree)):
                return
            self._sent_for = None
            around.pgpool.reload()
            self._await_arrival(marker(tree), begin + _ARRIVAL_SECONDS)
        except (PcpError, NotYetError):
            metrics.reloads.labels("failure").inc()
            metrics.last_reload_successful.set(0)
            raise
        self._sent_for = tree.digest
        metrics.reloads.labels("success").inc()
        metrics.last_reload_successful.set(1)
        metrics.last_reload_success_timestamp.set(around.now().timestamp())
        around.events.info("rotation.reloaded", generation=shown(tree.digest), ms=around.ms_since(begin))

    def started_with_it(self) -> None:
        """What is live was read at pgpool's start and is proved: a reload that failed before is missed no more."""
        self._around.metrics.last_reload_successful.set(1)

    def _await_arrival(self, mark: str, until: float) -> None:
        while not self._around.pgpool.arrived(mark):
            if self._around.clock() > until:
                raise NotYetError(f"the reload has not arrived in pgpool within {_ARRIVAL_SECONDS:.0f} s")
            self._around.sleep(_LOOK_AGAIN_SECONDS)

    def refusal(self, having: Roles, roles: Sequence[str], tree: Tree, database: Database) -> tuple[str, str] | None:
        """Log in with each role as often as a proof needs: the role that pgpool refuses, and its reason; None: proved.

        A refusal may come from a child that has not seen the reload, so there are some rounds, with some time between.
        But a password that PostgreSQL itself refuses is not tried again: somebody counts failed logins.
        Raises NotYetError when pgpool, or PostgreSQL behind it, could not be asked, or PostgreSQL refuses.
        """
        begin = self._around.clock()
        refused: tuple[str, str] | None = None
        for round_ in range(_ROUNDS):
            if round_ == _ROUNDS - 1:
                # It may be those who are in a session at each reload.
                self.replace_children(having, database)
            elif round_:
                self._around.sleep(_BETWEEN_ROUNDS_SECONDS)
                self.reload(tree, anew=True)
            refused = self._round(having, roles)
            if refused is None:
                self._around.metrics.verify_duration.observe(self._around.clock() - begin)
                logins, ms = LOGINS * len(roles), self._around.ms_since(begin)
                self._around.events.info("rotation.proved", roles=len(roles), logins=logins, ms=ms)
                return None
            role = refused[0]
            direct = self.ask(database, role, having.passwords[role])
            if direct.outcome is not Outcome.ACCEPTED:
                raise NotYetError(
                    f"PostgreSQL does not accept the password of role {role!r}: {direct.reason}",
                    alarm=direct.outcome is Outcome.REJECTED,
                )
        return refused

    def _round(self, having: Roles, roles: Sequence[str]) -> tuple[str, str] | None:
        for role in roles:
            for _ in range(LOGINS):
                attempt = self.login(role, having.passwords[role])
                if attempt.outcome is Outcome.UNKNOWN and attempt.reason != LOCKED_OUT:
                    raise NotYetError(f"role {role!r} could not be proved through pgpool: {attempt.reason}")
                if attempt.outcome is not Outcome.ACCEPTED:
                    return role, attempt.reason
        return None

    def renew_checks(self, nodes: int) -> None:
        """Have pgpool's health checks take the password that it has now. Raises PcpError."""
        begin = self._around.clock()
        stale = self._around.pgpool.renew_checks(nodes)
        tell = self._around.events.warning if stale else self._around.events.info
        without = ",".join(map(str, stale)) or None
        tell("rotation.checks_renewed", without_success=without, ms=self._around.ms_since(begin))

    def retire(self, having: Roles, roles: Sequence[str], database: Database) -> None:
        """Retire the children that did not see the reload; `roles` still get in. Raises NotYetError or PcpError."""
        self.replace_children(having, database)
        if refused := self._round(having, roles):
            role, reason = refused
            raise NotYetError(f"role {role!r} could not log in after the former children were retired: {reason}")

    def replace_children(self, having: Roles, database: Database) -> None:
        """Have no idle child left that did not see the reload. Raises NotYetError or PcpError.

        Not while the check role cannot log in at PostgreSQL: pgpool looks for its primary on this occasion, and would
        hold every client until it has found it (find_primary_node_repeatedly, src/main/pgpool_main.c).
        """
        check = self.ask(database, having.check_user, having.passwords[having.check_user])
        if check.outcome is not Outcome.ACCEPTED:
            raise NotYetError(f"former children stay until the check role can log in at PostgreSQL: {check.reason}")
        begin = self._around.clock()
        self._around.pgpool.retire()
        self._around.events.info("rotation.retired", ms=self._around.ms_since(begin))
