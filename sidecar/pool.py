"""pgpool as its administrator and its clients see it: reload, proof, retirement of what will not learn."""

import itertools
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from entrypoint.render import MARKER
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.generation import CONF, marker
from sidecar.login import Attempt
from sidecar.pcp import CONNECTING, WAITING, HealthChecks, Pcp, PcpError, Process

T = TypeVar("T")

UNDEFINED_NODES = range(127, 119, -1)
"""The last ids that pgpool takes (MAX_NUM_BACKENDS), least likely to be somebody's backends. One that was attached is
refused until pgpool has carried out a reload, hence several."""

_RELOAD_SECONDS = 2.0
_PAUSE = 0.1
"""Seconds between two looks."""
_ROUNDS = 3
_CHECK_SECONDS = 15.0
"""For 24 logins of a health check, the number that our defaults allow: 3 s beside the server."""
_HELD = "failover-held"
_HOLD = b"\n# Failover is held for a moment, while the health checks take the check role's new password\n"


class Pool:
    """Commands raise PcpError. While PCP is away, as for two seconds after each failover, they are tried again."""

    def __init__(
        self,
        pcp: Pcp,
        login: Callable[[str, Secret], Attempt],
        *,
        patience: float = 8.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Do nothing yet.

        Args:
            pcp: the way to pgpool.
            login: one fresh login through pgpool.
            patience: seconds for a command to be taken, and for its effect to be seen.
            clock: seconds, never going back.
            sleep: waits for that many of them.
        """
        self._pcp = pcp
        self._login = login
        self._patience = patience
        self._clock = clock
        self._sleep = sleep
        self._undefined = itertools.cycle(UNDEFINED_NODES)

    def reload(self) -> None:
        """Have pgpool read its configuration; `arrived` tells when it has."""
        self._insist(self._pcp.reload)

    def arrived(self, marker: str) -> bool:
        """Whether the generation with this marker is in force; no, while PCP is away."""
        try:
            return self._pcp.parameters().get(MARKER) == marker
        except PcpError as error:
            if error.away:
                return False
            raise

    def login(self, role: str, password: Secret) -> Attempt:
        """One fresh login through pgpool, with a query."""
        return self._login(role, password)

    def retire(self) -> None:
        """Have no child left that knows former passwords: idle ones learn at once, others end with their session.

        A child that is in a session during a reload never reads pool_passwd again (pool_process_query.c; a patched one
        does, and loses only its former connections here). Attaching a node that is not defined marks all children for a
        restart, and changes nothing else (failover(), pgpool_main.c). They heed the mark when they are about to wait
        for a client; a reload wakes those that wait already. No session is cut, but for about a second new logins and
        the next statements of busy sessions wait: those look only once a second whether failover is over
        (wait_for_failover_to_finish, pool_query_context.c). Only a child that is just letting a client in takes the
        mark away and stays (child.c): for such ones all is done once more.
        """
        for _ in range(_ROUNDS):
            before = self._children()
            self._insist(partial(self._pcp.attach, next(self._undefined)))
            now = self._wait_for_restarts(before)
            if not any(_may_stay(before[pid], child) for pid, child in now.items() if pid in before):
                break
        self.reload()

    def attach(self, node_id: int) -> None:
        """Take a node into use: pgpool looks for its primary on this occasion."""
        self._pcp.attach(node_id)

    def detach(self, node_id: int) -> None:
        """Take a node out of use; sessions that use it end."""
        self._pcp.detach(node_id)

    def look_again(self) -> None:
        """Have pgpool look for its primary, ending no session: the first half of what `retire` does."""
        self._pcp.attach(next(self._undefined))
        self.reload()

    def _wait_for_restarts(self, before: Mapping[int, Process]) -> Mapping[int, Process]:
        """Reload until a child has gone, which shows that the mark was set for all; or none can, as all are busy.

        Main takes a reload when it has set the marks, so one is enough, as a rule. Each one more would cost a health
        check that is failing at this time one of its retries.
        """
        until = self._clock() + self._patience
        while True:
            self.reload()
            again = self._clock() + _RELOAD_SECONDS
            while self._clock() < again:
                self._sleep(_PAUSE)
                now = self._children()
                if before.keys() - now or not any(child.status == WAITING for child in before.values()):
                    return now
            if self._clock() >= until:
                raise PcpError("pcp_attach_node", "no child was replaced", away=False)

    def _children(self) -> Mapping[int, Process]:
        # 0 is the place of a child that is not there.
        return {process.pid: process for process in self._insist(self._pcp.processes) if process.pid}

    def renew_checks(self, nodes: int) -> tuple[int, ...]:
        """Have the checks of the first `nodes` nodes log in with the password of now; return those that did not begin.

        A check fetches the password once and then tries it health_check_max_retries times, deaf to reloads
        (establish_persistent_connection, src/main/health_check.c); in the end it detaches the node. But each signal
        cuts its wait between two tries short, and while failover is held, the end is harmless: the next check
        begins, with the new password.

        To be called with a configuration by `hold_failover`, which has arrived.
        """
        parameters = self._insist(self._pcp.parameters)
        held = range(min(nodes, self._insist(self._pcp.node_count)))
        if not all("DISALLOW_TO_FAILOVER" in parameters.get(f"backend_flag{node}", "") for node in held):
            raise PcpError("pcp_pool_status", "failover is not held", away=False)
        before = {node: self._checks(node) for node in held}
        stale = [node for node, checks in before.items() if checks.status != "down" and checks.total_count]
        until = self._clock() + _CHECK_SECONDS
        while stale and self._clock() < until:
            self.reload()
            self._sleep(_PAUSE)
            stale = [node for node in stale if not _has_ended(before[node], self._checks(node))]
        return tuple(stale)

    def stop(self) -> None:
        """Stop pgpool, ending its sessions. Asked once: a second time might meet the pgpool that was started anew."""
        self._pcp.stop()

    def _checks(self, node: int) -> HealthChecks:
        return self._insist(lambda: self._pcp.health_checks(node))

    def _insist(self, command: Callable[[], T]) -> T:
        until = self._clock() + self._patience
        while True:
            try:
                return command()
            except PcpError as error:
                if not error.away or self._clock() >= until:
                    raise
            self._sleep(_PAUSE)


def _has_ended(before: HealthChecks, now: HealthChecks) -> bool:
    """Whether a check has come to its end: the one that comes next has the password of now."""
    return (before.success_count, before.last_failure) != (now.success_count, now.last_failure)


def _may_stay(before: Process, now: Process) -> bool:
    """Whether a child may have lost the mark: it has let somebody in since, who may have left again."""
    came = now.status != WAITING and before.status in {WAITING, CONNECTING}
    return came or now.client_connections != before.client_connections


def hold_failover(tree: Tree, nodes: int) -> Tree:
    """The same configuration, but none of the first `nodes` nodes is ever detached; with a marker of its own.

    It takes a configuration that states every backend_flagN to end this: pgpool keeps what a file does not mention.
    """
    lines = [f"backend_flag{node} = 'DISALLOW_TO_FAILOVER'" for node in range(nodes)]
    lines.append(f"{MARKER} = '{_HELD}'")
    addition = _HOLD + "".join(f"{line}\n" for line in lines).encode()
    return Tree({**tree.files, CONF: tree.files[CONF] + addition})


def holds_failover(tree: Tree) -> bool:
    """Whether a configuration is one of `hold_failover`'s."""
    return marker(tree) == _HELD


def release_failover(tree: Tree) -> Tree:
    """What a configuration of `hold_failover` was made from."""
    return Tree({**tree.files, CONF: tree.files[CONF].partition(_HOLD)[0]})
