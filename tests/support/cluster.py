"""A real Patroni cluster, and everything that can happen to it: three nodes, three etcd members, one machine.

It needs a network of its own (`tests/isolated.py`), in which the addresses are fixed:

    PostgreSQL and Patroni   127.0.0.11 … 13, ports 5432 and 8008
    etcd                     127.0.0.21 … 23
    the same nodes, seen through the network that can be cut   127.0.1.11 … 13

Each fault is a verb, and returns as soon as the fault is there, not when its consequences are.
"""

import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from support import network, patroni
from support.deadline import wait_until
from support.etcd import Etcd
from support.network import How, Network
from support.patroni import Member, Node, Options, RefusedError, What
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE

START_TIMEOUT = 120.0  # 10 s if it has two processors for itself
HEALTHY_TIMEOUT = 60.0
SWITCHOVER_TIMEOUT = 60.0
RESTART_TIMEOUT = 60.0
CONFIGURE_TIMEOUT = 10.0
UNAVAILABLE = 503
PAUSE = 0.2
"""Seconds between two questions to all nodes: each costs Patroni time that the faults are to have."""

T = TypeVar("T")


class Cluster:
    """Three nodes `postgres-1` to `postgres-3`; the application's role has a database of its name.

    Nodes are named by their names everywhere.
    """

    def __init__(self, *, patroni_bin: Path, postgres_bin: Path, options: Options | None = None) -> None:
        """Start nothing yet."""
        assert Network.is_ours(), "A cluster needs namespaces of its own: run this by tests/isolated.py"
        self.options = options or Options()
        self.patroni_bin = patroni_bin
        self.directory = Path(tempfile.mkdtemp(prefix="cluster-"))
        self.etcd = {number: Etcd(number, self.directory) for number in (1, 2, 3)}
        nodes = [
            Node(number, self.directory, patroni_bin=patroni_bin, postgres_bin=postgres_bin, options=self.options)
            for number in (1, 2, 3)
        ]
        self.nodes = {node.name: node for node in nodes}
        self._network = Network(node.address for node in nodes)

    def __enter__(self) -> Self:
        try:
            self.start_all()
        except BaseException:
            self.stop_all()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_all()

    def start_all(self) -> None:
        """From nothing to a healthy cluster with the roles in it."""
        self._network.open()
        for member in self.etcd.values():
            member.start()
        for member in self.etcd.values():
            member.wait_until_healthy()
        first, *others = self.nodes.values()
        first.start()
        self.wait_until(self.find_leader, START_TIMEOUT)
        for node in others:
            node.start()
        first.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
        first.create_role(APP_ROLE, APP_PASSWORD)
        first.sql(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(APP_ROLE)))
        self.wait_until_healthy(START_TIMEOUT)

    def stop_all(self) -> None:
        """End every process at once, and remove every file."""
        for node in self.nodes.values():
            node.kill()
        for member in self.etcd.values():
            member.stop()
        self._network.close()
        shutil.rmtree(self.directory)

    # What can happen.

    def switchover(self, candidate: str | None = None) -> str:
        """Have Patroni move the primary, and return the new one's name when Patroni says that it is done."""
        leader = self.leader()
        self._have(leader, "switchover", {"leader": leader, "candidate": candidate}, SWITCHOVER_TIMEOUT)
        return self.wait_until(lambda: new if (new := self.find_leader()) != leader else None, SWITCHOVER_TIMEOUT)

    def kill_postmaster(self, node: str) -> None:
        """Its postmaster crashes (kill -9); Patroni sees that within `loop_wait`, and starts it again."""
        self.nodes[node].kill_postmaster()

    def kill_patroni(self, node: str) -> None:
        """Its Patroni is gone (kill -9) while its PostgreSQL goes on; `start` brings it back."""
        self.nodes[node].kill_patroni()

    def lose(self, node: str) -> None:
        """Patroni and PostgreSQL are gone at the same moment; `start` brings the node back.

        Their connections are reset, as when a container is killed. For a machine without power, `cut` it as well.
        """
        self.nodes[node].kill()

    def start(self, node: str) -> None:
        """Start what `lose` or `kill_patroni` has ended, waiting for nothing."""
        self.nodes[node].start()

    def freeze(self, node: str, what: What = "postgres") -> None:
        """Stop it in the midst of whatever it does (SIGSTOP): connections are accepted, and never served."""
        self.nodes[node].signal(what, signal.SIGSTOP)

    def thaw(self, node: str, what: What = "postgres") -> None:
        """Let it go on."""
        self.nodes[node].signal(what, signal.SIGCONT)

    def restart_postgres(self, node: str) -> None:
        """Have Patroni restart its PostgreSQL, and wait for that."""
        self._have(node, "restart", {}, RESTART_TIMEOUT)

    def cut(self, nodes: Iterable[str], how: How = "drop") -> None:
        """Cut these nodes off from whoever uses `far` addresses: silently, or with resets.

        Sessions that exist are cut, too: a reset reaches them with the next packet.
        """
        self._network.cut((self.nodes[node].address for node in nodes), how)

    def mend(self) -> None:
        """End every cut."""
        self._network.mend()

    def stop_etcd(self, number: int) -> None:
        """One etcd member (1 to 3) is gone; without two of them, Patroni demotes the primary in time for its ttl."""
        self.etcd[number].stop()

    def start_etcd(self, number: int) -> None:
        """Bring it back, waiting for nothing."""
        self.etcd[number].start()

    def terminate_backends(self, application: str) -> int:
        """An administrator ends all sessions of an application on the leader; returns how many."""
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        return len(self.nodes[self.leader()].sql(query, [application]))

    def configure(self, changes: Mapping[str, Any]) -> None:
        """Change Patroni's dynamic configuration; each node learns of it within `loop_wait`."""
        self.nodes[self.leader()].ask("PATCH", "config", dict(changes), timeout=CONFIGURE_TIMEOUT)

    def restore(self) -> None:
        """Undo whatever was done, and wait until all is well."""
        self.mend()
        for member in self.etcd.values():
            if not member.running:
                member.start()
        for node in self.nodes.values():
            node.signal("postgres", signal.SIGCONT)
            if node.patroni_running:
                node.signal("patroni", signal.SIGCONT)
            else:
                node.start()
        for member in self.etcd.values():
            member.wait_until_healthy()
        self.wait_until_healthy()
        self.configure(self.options.dynamic())

    def _have(self, node: str, what: str, body: object, timeout: float) -> None:
        """Have Patroni do something as soon as it can: it may be demoting still, or etcd elect a leader of its own."""

        def is_done() -> bool:
            try:
                self.nodes[node].ask("POST", what, body, timeout=timeout)
            except RefusedError as error:
                if error.code != UNAVAILABLE:
                    raise
                return False
            return True

        self.wait_until(is_done, timeout)

    # What is the case.

    def member(self, node: str) -> Member | None:
        """What this node's Patroni says, or None while it does not answer."""
        return self.nodes[node].member()

    def members(self) -> list[Member]:
        return [member for node in self.nodes.values() if (member := node.member())]

    def find_leader(self) -> str | None:
        """The node that runs as the primary and has the lock, as it says itself."""
        return next((member.name for member in self.members() if member.has_lock), None)

    def leader(self) -> str:
        leader = self.find_leader()
        assert leader, f"there is no leader:\n{self.describe()}"
        return leader

    def standbys(self) -> list[str]:
        """All but the leader, whatever state they are in."""
        leader = self.leader()
        return [name for name in self.nodes if name != leader]

    def timeline(self) -> int:
        """The leader's, as PostgreSQL says."""
        query = "SELECT ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int"
        [(timeline,)] = self.nodes[self.leader()].sql(query)
        return int(timeline)

    def writable_nodes(self) -> list[str]:
        """Where a client could write at this moment; more than one is a split brain."""
        return [name for name, node in self.nodes.items() if _is_writable(node)]

    def is_healthy(self) -> bool:
        """One leader that can be written to, all others streaming from it, on its timeline."""
        members = self.members()
        leaders = [member for member in members if member.has_lock]
        if len(members) != len(self.nodes) or len(leaders) != 1:
            return False
        [leader] = leaders
        streaming = {member.name for member in members if member.streaming and member.timeline == leader.timeline}
        return len(streaming) == len(members) - 1 and _is_writable(self.nodes[leader.name])

    def wait_until_healthy(self, timeout: float = HEALTHY_TIMEOUT) -> None:
        self.wait_until(self.is_healthy, timeout)

    def wait_until(self, condition: Callable[[], T | None], timeout: float) -> T:
        """Wait for something that is asked of the nodes, not more often than they like."""
        next_time = 0.0

        def ask() -> T | None:
            nonlocal next_time
            if time.monotonic() < next_time:
                return None
            answer = condition()
            next_time = time.monotonic() + PAUSE
            return answer

        return wait_until(ask, timeout=timeout, failure=self.describe)

    def describe(self) -> str:
        """For failure messages: every node's state, and the end of its log."""
        lines = [f"{name}: {self.member(name)}" for name in self.nodes]
        for name, node in self.nodes.items():
            lines += [f"--- the end of the log of {name}:", *node.log.splitlines()[-15:]]
        return "\n".join(lines)

    # How to get there.

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a pgpool in front of it, at the other end of the network that can be cut."""
        far = {name: network.far(node.address) for name, node in self.nodes.items()}
        return {
            "PGPOOL_BACKENDS": ",".join(f"{name}={address}:{patroni.PORT}" for name, address in far.items()),
            "PGPOOL_PATRONI": ",".join(f"http://{address}:{patroni.REST_PORT}" for address in far.values()),
        }

    def conninfo(self, *, far: bool = False) -> str:
        """The application's way to the primary, whichever node that is, by libpq alone."""
        addresses = [network.far(node.address) if far else node.address for node in self.nodes.values()]
        return make_conninfo(
            "",
            host=",".join(addresses),
            port=patroni.PORT,
            user=APP_ROLE,
            password=APP_PASSWORD,
            dbname=APP_ROLE,
            target_session_attrs="read-write",
            connect_timeout=patroni.CONNECT_TIMEOUT,
        )


def _is_writable(node: Node) -> bool:
    try:
        return node.sql("SELECT NOT pg_is_in_recovery()") == [(True,)]
    except psycopg.OperationalError:
        return False
