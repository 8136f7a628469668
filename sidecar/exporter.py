"""pgpool's own numbers for Prometheus, under the names of pgpool2_exporter where the meaning is the same.

Different from there, the role of a node is a value, not a label, so that a failover starts no new series; counters
are counters, and end in `_total`; quarantine is told from down; a delay has its unit in its name; nothing is
labelled with a process; and a pool without a free child is still seen.

A scrape never hangs because pgpool does: a snapshot has a time limit, all who ask at the same time share one, and
after one that failed nobody waits longer than `_IMPATIENCE` for the next. Without scrapes, nothing is asked.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.latest import Latest, Seen
from sidecar.pcp import CONNECTING, UP, WAITING, HealthChecks, Node
from sidecar.snapshot import CACHE_COUNTERS, CACHE_GAUGES, MESSAGES, STATEMENTS, Query, Snapshot, Source, take

Places = Mapping[int, tuple[str, str, str]]
"""The labels of each node, by its id."""

_FRESH = 3.0
_STALE = 30.0
_PATIENCE = 5.0
_IMPATIENCE = 0.5

_PAIRS = 20
"""So many pairs of user and database get series of their own: names of users come from clients."""
_OTHER = "(other)"

_STATES = {
    WAITING: "wait_for_connection",
    CONNECTING: "connecting",
    "Idle": "idle",
    "Idle in transaction": "idle_in_transaction",
    "Execute command": "execute_command",
}
_LABELS = ("node_id", "hostname", "port")
_HEALTH_COUNTERS = {
    "total_count": "Health checks of the node.",
    "success_count": "Health checks that succeeded.",
    "fail_count": "Health checks that failed, after all retries.",
    "skip_count": "Health checks left out, as the node was down.",
    "retry_count": "Further tries within health checks.",
}
_HEALTH_GAUGES = {
    "average_retry_count": "Further tries within a health check, on average.",
    "max_retry_count": "Further tries within a health check, at most.",
    "max_duration": "How long the longest health check took (ms).",
    "min_duration": "How long the shortest health check took (ms).",
    "average_duration": "How long a health check takes on average (ms).",
}


class Exporter(Collector):
    """Asks pgpool when Prometheus asks us; register it in a CollectorRegistry."""

    def __init__(self, pcp: Source, query: Query | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet.

        Args:
            pcp: pgpool's administration; its commands are to take snapshot.COMMAND_SECONDS at most.
            query: asks for what SQL alone tells; without it, that is absent.
            clock: seconds, monotonic.
        """
        self.error: str | None = None
        """What the last scrape lacked, for people."""
        self._latest = Latest(self._take, fresh=_FRESH, clock=clock)
        self._pcp = pcp
        self._query = query
        self._clock = clock
        self._count = 0

    def collect(self) -> Iterator[Metric]:
        """The series of the latest snapshot, and how it was come by."""
        seen = self._latest.get(_IMPATIENCE if self.error else _PATIENCE)
        if seen is None or seen.age > _STALE:
            seen = Seen(Snapshot(error="no new numbers came in time"), math.nan)
        self.error = seen.value.error
        yield _gauge("snapshot_age_seconds", "Age of the other numbers; NaN when there are none.", seen.age)
        yield from families(seen.value, count=self._count)

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that to be registered does not ask pgpool."""
        return iter(())

    def _take(self) -> Snapshot:
        self._count += 1
        return take(self._pcp, self._query, self._clock)


def families(snapshot: Snapshot, *, count: int) -> Iterator[Metric]:
    """Series for one snapshot. Pure.

    Args:
        snapshot: what pgpool said.
        count: how many snapshots were taken so far.
    """
    yield _gauge("up", "Whether pgpool's PCP answers.", bool(snapshot.processes))
    yield _gauge("last_scrape_duration_seconds", "Time that the last snapshot took.", snapshot.seconds)
    yield _gauge("last_scrape_error", "Whether something is missing from the last snapshot.", bool(snapshot.error))
    yield CounterMetricFamily("pgpool2_scrapes", "Snapshots taken of pgpool.", value=count)
    if snapshot.processes:
        yield from _frontends(snapshot)
        yield from _backends(snapshot)
    places = {node_id: (str(node_id), *place) for node_id, place in snapshot.places.items()}
    yield from _checks(snapshot.health_checks, places)
    yield from _nodes(snapshot.nodes)
    yield from _statistics(snapshot.backend_stats, places)
    yield from _query_cache(snapshot.cache)


def _frontends(snapshot: Snapshot) -> Iterator[Metric]:
    yield _gauge("frontend_total", "Clients that can be served at the same time (num_init_children).", snapshot.total)
    yield _gauge("frontend_free", "Clients that could come in before others have to wait.", snapshot.free)
    ratio = snapshot.used / snapshot.total if snapshot.total else 0.0
    yield _gauge("frontend_used_ratio", "Children with a client, of all; at 1, clients wait.", ratio)

    children = {process.pid: process.status for process in snapshot.processes if process.pid}
    states = Counter(_STATES.get(status, "other") for status in children.values())
    by_state = GaugeMetricFamily("pgpool2_frontend_processes", "Children by what they do.", labels=("state",))
    for state in (*_STATES.values(), "other"):
        by_state.add_metric((state,), states[state])
    yield by_state

    # A child that is only just connecting has no pair yet.
    pairs = {pid: ("", "") for pid, status in children.items() if status != WAITING}
    for process in snapshot.processes:
        if process.connected and process.pid in pairs:
            pairs[process.pid] = (process.username, process.database)
    by_pair = GaugeMetricFamily("pgpool2_frontend_used", "Children with a client.", labels=("username", "database"))
    ranked = Counter(pairs.values()).most_common()
    for pair, number in ranked[:_PAIRS]:
        by_pair.add_metric(pair, number)
    if others := sum(number for _, number in ranked[_PAIRS:]):
        by_pair.add_metric((_OTHER, _OTHER), others)
    yield by_pair


def _backends(snapshot: Snapshot) -> Iterator[Metric]:
    total = len(snapshot.processes)
    used = sum(bool(place.database) for place in snapshot.processes)
    yield _gauge("backend_total", "Places for connections to backends: children × max_pool × nodes.", total)
    yield _gauge("backend_used", "Connections to backends, in use or kept for reuse.", used)
    yield _gauge("backend_used_ratio", "The share of places that are used.", used / total)


def _checks(checks: Sequence[HealthChecks], places: Places) -> Iterator[Metric]:
    """From the statistics of health checks, because to ask for these no node is connected to."""

    def family(name: str, documentation: str, value: Callable[[HealthChecks], bool | float]) -> Metric:
        return _per_node(name, documentation, {check.node_id: value(check) for check in checks}, places)

    if not checks:
        return
    yield family("pool_nodes_status", "Whether pgpool uses the node.", lambda check: check.status in {"up", "waiting"})
    yield family(
        "pool_nodes_quarantine",
        "Whether the node is kept out, though others may reach it.",
        lambda check: check.status == "quarantine",
    )
    yield family("pool_nodes_primary", "Whether pgpool writes to this node.", lambda check: check.role == "primary")
    for name, documentation in _HEALTH_COUNTERS.items():
        values: dict[int, float] = {check.node_id: getattr(check, name) for check in checks}
        yield _per_node(f"pool_health_check_stats_{name}", documentation, values, places, counter=True)
    for name, documentation in _HEALTH_GAUGES.items():
        # 0/0 before the first check
        known = {check.node_id: value for check in checks if not math.isnan(value := float(getattr(check, name)))}
        yield _per_node(f"pool_health_check_stats_{name}", documentation, known, places)


def _nodes(nodes: Sequence[Node]) -> Iterator[Metric]:
    places = {node.node_id: (str(node.node_id), node.host, str(node.port)) for node in nodes}

    def family(name: str, documentation: str, value: Callable[[Node], bool | float | None]) -> Metric:
        values = {node.node_id: known for node in nodes if (known := value(node)) is not None}
        return _per_node(f"pool_nodes_{name}", documentation, values, places)

    if not nodes:
        return
    yield family("weight", "The node's share of reading queries.", lambda node: node.weight)
    yield family("pg_status", "Whether PostgreSQL answers on the node.", lambda node: _is(node.pg_status, "up", "down"))
    yield family(
        "pg_primary", "Whether PostgreSQL says it is the primary.", lambda node: _is(node.pg_role, "primary", "standby")
    )
    yield family("role_mismatch", "Whether pgpool uses the node as what it is not.", _is_mistaken)
    yield family(
        "replication_delay_bytes",
        "WAL that the standby has not replayed.",
        lambda node: node.replication_delay if node.delay_unit == "bytes" else None,
    )
    yield family(
        "replication_delay_seconds",
        "How far the standby is behind.",
        lambda node: node.replication_delay if node.delay_unit == "seconds" else None,
    )
    yield family(
        "streaming",
        "Whether a standby receives WAL.",
        lambda node: node.replication_state == "streaming" if node.role == "standby" else None,
    )


def _is_mistaken(node: Node) -> bool | None:
    actual = _is(node.pg_role, "primary", "standby")
    # A former primary that is fenced may still say that it is one; nobody is sent there.
    return None if actual is None else node.status in UP and actual != (node.role == "primary")


def _is(text: str, yes: str, no: str) -> bool | None:
    return {yes: True, no: False}.get(text)


def _statistics(stats: Mapping[int, Mapping[str, float]], places: Places) -> Iterator[Metric]:
    if not stats:
        return
    for name, documentation in (STATEMENTS | MESSAGES).items():
        values = {node_id: row[name] for node_id, row in stats.items()}
        yield _per_node(f"pool_backend_stats_{name}", documentation, values, places, counter=True)


def _query_cache(cache: Mapping[str, float]) -> Iterator[Metric]:
    if not cache:
        return
    for name, documentation in CACHE_COUNTERS.items():
        yield CounterMetricFamily(f"pgpool2_pool_cache_{name}", documentation, value=cache[name])
    for name, documentation in CACHE_GAUGES.items():
        yield _gauge(f"pool_cache_{name}", documentation, cache[name])


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(f"pgpool2_{name}", documentation, value=float(value))


def _per_node(
    name: str,
    documentation: str,
    values: Mapping[int, float],
    places: Places,
    *,
    counter: bool = False,
) -> Metric:
    kind = CounterMetricFamily if counter else GaugeMetricFamily
    family = kind(f"pgpool2_{name}", documentation, labels=_LABELS)
    for node_id, value in values.items():
        if node_id in places:  # else it was added while we asked
            family.add_metric(places[node_id], float(value))
    return family
