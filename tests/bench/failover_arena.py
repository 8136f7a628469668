"""Where faults are lived through: a cluster, pgpools with their sidecars before it, and clients of both."""

import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psycopg

from bench.haproxy import running_haproxy
from bench.report import progress
from sidecar.pcp import PcpError
from sidecar.table import Row, TableReader
from support.cluster import Cluster
from support.deadline import DeadlineExpiredError, wait_until
from support.network import far
from support.patroni import PORT
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, Pod
from support.probe_client import Crew
from support.probe_log import LOGIN, STEADY, Ack, kind_of
from support.probe_report import Report, next_ack
from support.prober import Prober, through_pgpool, to_the_nodes
from support.sidecar_process import Sidecar

PATIENCE = 60.0
"""Seconds without an answer, once clients could be served again, after which a pgpool is given up."""
QUIET_SECONDS = 1.0
"""How long all is well before and after an event."""
NOTICEABLE = 0.5
"""Seconds without an acknowledgment that are no accident."""
CRASH = "terminated by segmentation fault"

LOGIN_AS = {"user": APP_ROLE, "password": APP_PASSWORD, "dbname": APP_ROLE}


class Front:
    """One pgpool with its sidecar, as in a pod."""

    def __init__(self, directory: Path, cluster: Cluster, pgpool_bin: Path, *, sidecar: bool) -> None:
        """Start nothing yet."""
        directory.mkdir()
        self.pod = Pod(directory, pgpool_bin=pgpool_bin, postgres_port=PORT)
        self.pod.environment |= cluster.environment
        self.pod.encrypt()
        self.pod.write_user(CHECK_ROLE, CHECK_PASSWORD)
        self.pod.write_user(APP_ROLE, APP_PASSWORD)
        self.pgpool = self.pod.pgpool()
        self.sidecar = Sidecar(self.pod) if sidecar else None
        self._table = TableReader(self.pod.pcp_address)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        with self.pgpool, ExitStack() as stack:
            self.pgpool.wait_until_login(APP_ROLE, APP_PASSWORD, APP_ROLE)
            stack.callback(self._table.close)  # a session of PCP outlives pgpool
            if self.sidecar:
                stack.enter_context(self.sidecar)
            yield

    @property
    def crashes(self) -> int:
        """Of pgpool's processes, so far."""
        return self.pgpool.log.count(CRASH)

    def table(self) -> Sequence[Row]:
        """pgpool's nodes; none while it does not say."""
        try:
            return self._table.read()
        except PcpError:
            return ()

    def is_whole(self, primary: str) -> bool:
        """Whether every node is up, and the one at this address is the primary."""
        rows = self.table()
        leading = [row.host for row in rows if row.role == "primary"]
        return leading == [primary] and all(row.status in {"up", "waiting"} for row in rows)

    def renew(self) -> None:
        """Start pgpool anew, as somebody would who found it stuck."""
        self._table.close()
        self.pgpool.kill_group()
        self.pgpool.start()
        self.pgpool.wait_until_login(APP_ROLE, APP_PASSWORD, APP_ROLE, timeout=PATIENCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One fault, as it was lived through."""

    through: tuple[Report, ...]
    """By the clients of each pgpool."""
    floor: Report
    """By clients that know all nodes and have no pgpool between."""
    moment: float
    """When clients could have been served again."""
    resumed: tuple[float, ...]
    """Seconds from then to the next acknowledgment of each pgpool's clients, and of new logins."""
    former: float
    """Seconds for which writes through a pgpool still went to the timeline of before."""
    stuck: tuple[str, ...]
    """What did not get well by itself."""
    misses: tuple[str, ...]
    """What the fault itself found wrong."""
    crashes: int
    beside: Mapping[str, "Beside"]
    """What clients of something else than pgpool saw of it, by its name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """The same event for clients who have something else than pgpool."""

    seen: Report
    resumed: tuple[float, ...]
    """As in Event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What a scenario's audits found, over all its events."""

    lost: tuple[Ack, ...]
    """Of the rows that are not there."""
    phantom: int
    duplicate: int


Act = Callable[["Arena"], float | None]
"""A fault and its end; returns the moment from which clients can be served, or None if that is when the floor can."""


class Arena:
    """Everything at work, with the probers of one scenario at a time."""

    def __init__(
        self, cluster: Cluster, fronts: Sequence[Front], beside: Mapping[str, int], directory: Path, seed: int
    ) -> None:
        """Everything has been started but the probers; `beside`: ports of what is measured beside pgpool."""
        self.cluster = cluster
        self.fronts = fronts
        self.beside: dict[str, Prober] = {}
        self.random = random.Random(seed)
        self.through: list[Prober] = []
        self.floor: Prober
        self._ports_beside = beside
        self._directory = directory
        self._misses: list[str] = []
        self._stuck: list[str] = []
        self._given_up: list[float] = []

    @contextmanager
    def probing(self, name: str, crew: Crew) -> Iterator[None]:
        """Clients at work; `name` is for tables and files."""
        with ExitStack() as stack:

            def clients(of: str, conninfo: str) -> Prober:
                return stack.enter_context(Prober(f"{name}_{of}", conninfo, self._directory, self._admin, crew))

            self.through = [
                clients(str(number), through_pgpool((front.pgpool.host, front.pgpool.port), **LOGIN_AS))
                for number, front in enumerate(self.fronts, 1)
            ]
            self.beside = {
                other: clients(other.lower(), through_pgpool(("127.0.0.1", port), **LOGIN_AS))
                for other, port in self._ports_beside.items()
            }
            nodes = [(node.address, PORT) for node in self.cluster.nodes.values()]
            self.floor = clients("floor", to_the_nodes(nodes, **LOGIN_AS))
            yield

    def live_through(self, act: Act) -> Event:
        """One event, from a healthy cluster to a healthy cluster."""
        self._misses.clear()
        self._settle()
        self.pause(QUIET_SECONDS + self.random.uniform(0, self.cluster.options.loop_wait))
        self._stuck.clear()
        self._given_up.clear()
        before = [front.crashes for front in self.fronts]
        since = time.monotonic()
        moment = act(self)
        if moment is None:
            moment = self.floor_resumed(since)
        self._wait_for_clients(moment)
        for prober in self.beside.values():
            with suppress(DeadlineExpiredError):
                self._wait_for_clients_of(prober, moment)
        self.cluster.restore()
        self._wait_for_tables()
        self.pause(QUIET_SECONDS)
        until = min([time.monotonic(), *self._given_up])  # what comes after is not pgpool's own doing
        return Event(
            through=tuple(prober.report(since, until) for prober in self.through),
            floor=self.floor.report(since, until),
            moment=moment,
            resumed=tuple(seconds for prober in self.through for seconds in _resumed(prober, moment, until)),
            former=max(_last_on_former(prober, since, until) for prober in self.through),
            stuck=tuple(self._stuck),
            misses=tuple(self._misses),
            crashes=sum(front.crashes - count for front, count in zip(self.fronts, before, strict=True)),
            beside={
                other: Beside(seen=prober.report(since, until), resumed=_resumed(prober, moment, until))
                for other, prober in self.beside.items()
            },
        )

    def losses(self, probers: Sequence[Prober]) -> Loss:
        """What has become of rows."""
        lost: list[Ack] = []
        audits = [prober.audit() for prober in probers]
        for prober, audit in zip(probers, audits, strict=True):
            rows = set(audit.lost)
            lost += [ack for ack in prober.records if isinstance(ack, Ack) and (ack.worker, ack.seq) in rows]
        return Loss(
            lost=tuple(lost),
            phantom=sum(len(audit.phantom) for audit in audits),
            duplicate=sum(len(audit.duplicate) for audit in audits),
        )

    # What acts use.

    def pause(self, seconds: float) -> None:
        """Let time pass; a fault that lasts, lasts for so long."""
        time.sleep(seconds)

    def miss(self, words: str) -> None:
        """Something is not as it should be."""
        self._misses.append(words)

    def wait_for_leader(self, *, other_than: str) -> str:
        def other() -> str | None:
            leader = self.cluster.find_leader()
            return leader if leader != other_than else None

        return wait_until(other, timeout=2 * PATIENCE, failure=self.cluster.describe)

    def floor_resumed(self, since: float) -> float:
        """When clients without pgpool were served again after their longest gap; `since`, if there was none."""

        def resumed() -> float | None:
            seen = self.floor.report(since)
            # The gap may only be beginning, as long as nothing came after it.
            after = next_ack(self.floor.records, seen.gap_began + 1e-6)
            if after is None:
                return None
            if seen.gap >= NOTICEABLE:
                return seen.gap_began + after
            return since if time.monotonic() > since + 2 * NOTICEABLE else None

        return wait_until(resumed, timeout=2 * PATIENCE, failure=lambda: f"{self.floor.report(since)}")

    # Between events.

    def _admin(self) -> psycopg.Connection:
        return self.cluster.nodes[self.cluster.leader()].connect(dbname=APP_ROLE)

    def _settle(self) -> None:
        self.cluster.wait_until_healthy()
        self._wait_for_tables()
        for prober in (*self.through, *self.beside.values(), self.floor):
            self._wait_for_clients_of(prober, time.monotonic())

    def _wait_for_clients(self, moment: float) -> None:
        """Wait for what should come by itself; start anew what does not."""
        for front, prober in zip(self.fronts, self.through, strict=True):
            try:
                self._wait_for_clients_of(prober, moment)
            except DeadlineExpiredError as error:
                self._renew(front, "served nobody any more", error)

    def _wait_for_clients_of(self, prober: Prober, moment: float) -> None:
        for kind in (STEADY, LOGIN):
            prober.wait_until_acknowledged(moment, kind=kind, timeout=PATIENCE)

    def _wait_for_tables(self) -> None:
        """Wait until every pgpool has all nodes again; start anew one that has not."""
        primary = far(self.cluster.nodes[self.cluster.leader()].address)
        for front in self.fronts:
            try:
                wait_until(partial(front.is_whole, primary), timeout=PATIENCE, failure=lambda: f"{primary} leads")
            except DeadlineExpiredError as error:
                rows = ", ".join(f"{row.host} {row.status} {row.role}" for row in front.table())
                self._renew(front, f"left its nodes as {rows}", error)

    def _renew(self, front: Front, why: str, error: DeadlineExpiredError) -> None:
        print(error, file=sys.stderr)
        self._stuck.append(why)
        self._given_up.append(time.monotonic())
        self.cluster.restore()
        front.renew()


def _resumed(prober: Prober, moment: float, until: float) -> tuple[float, ...]:
    """Seconds to the next acknowledgment, and to that of a new login."""
    return tuple(min(until - moment, next_ack(prober.records, moment, kind) or PATIENCE) for kind in (STEADY, LOGIN))


def _last_on_former(prober: Prober, since: float, until: float) -> float:
    acks = [ack for ack in prober.records if isinstance(ack, Ack) and ack.timeline and kind_of(ack.worker) == STEADY]
    before = [ack.timeline for ack in acks if ack.at < since]
    former = [ack.at for ack in acks if since <= ack.at <= until and ack.timeline == before[-1]]
    return max(former, default=since) - since


def patches(pgpool_bin: Path) -> str:
    """The numbers of image/patches that this pgpool was built with, or `none`."""
    answer = subprocess.run([pgpool_bin / "pgpool", "--version"], capture_output=True, text=True, check=True)
    numbers = re.search(r"pgpool-entrypoint patches: ([^)]*)", answer.stdout + answer.stderr)
    return numbers[1] if numbers else "none"


@contextmanager
def opened(
    cluster: Cluster, pgpool_bin: Path, *, pgpools: int, sidecar: bool, seed: int, haproxy: Path | None = None
) -> Iterator[Arena]:
    """Start everything but the probers, and end it; the cluster is at work."""
    with ExitStack() as stack:
        fronts = [
            Front(cluster.directory / f"p{number}", cluster, pgpool_bin, sidecar=sidecar)
            for number in range(1, pgpools + 1)
        ]
        for front in fronts:
            progress(f"a pgpool on port {front.pgpool.port}, its log: {front.pgpool.log_path}")
            stack.enter_context(front.at_work())
        beside: dict[str, int] = {}
        if haproxy:
            addresses = [far(node.address) for node in cluster.nodes.values()]
            beside["HAProxy"] = stack.enter_context(running_haproxy(haproxy, cluster.directory, addresses))
        yield Arena(cluster, fronts, beside, cluster.directory, seed)
