"""What pgpool says about itself at one time: asked by PCP where that can answer, else by SQL, and within limits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from entrypoint.errors import EntrypointError
from sidecar.pcp import WAITING, HealthChecks, Node, PcpError, Process
from sidecar.through_pgpool import QueryError

Query = Callable[[str], Sequence[Mapping[str, str]]]
"""Runs one statement in the simple protocol (pgpool forwards SHOW POOL_… otherwise) as the check role, within
COMMAND_SECONDS. Raises QueryError, OSError or ValueError."""

COMMAND_SECONDS = 3.0
"""How long one question may take, by PCP or by SQL."""

NODES_SECONDS = 2.0
"""pgpool connects to each node to list them; one that swallows packets must not cost us the rest."""
_BEGIN_SECONDS = 2.0
"""No question begins later than this after the first: with COMMAND_SECONDS, a snapshot takes up to 5 s."""

STATEMENTS = {
    "select_cnt": "SELECTs sent to the node.",
    "insert_cnt": "INSERTs sent to the node.",
    "update_cnt": "UPDATEs sent to the node.",
    "delete_cnt": "DELETEs sent to the node.",
    "ddl_cnt": "CREATE, ALTER, DROP and their like sent to the node.",
    "other_cnt": "Statements of any other kind sent to the node.",
}
MESSAGES = {
    "panic_cnt": "PANICs that the node answered with.",
    "fatal_cnt": "FATAL errors that the node answered with.",
    "error_cnt": "Errors that the node answered with.",
}
CACHE_COUNTERS = {
    "num_cache_hits": "SELECTs answered from the query cache.",
    "num_selects": "SELECTs that the query cache did not have.",
}
CACHE_GAUGES = {
    "cache_hit_ratio": "The share of SELECTs answered from the query cache, 0 to 1.",
    "num_hash_entries": "Places in the query cache's index.",
    "used_hash_entries": "Places in the query cache's index that are taken.",
    "num_cache_entries": "Results in the query cache.",
    "used_cache_entries_size": "Bytes of the query cache that are taken.",
    "free_cache_entries_size": "Bytes of the query cache that are free.",
    "fragment_cache_entries_size": "Bytes of the query cache that are lost to fragmentation.",
}
"""The columns of SHOW POOL_BACKEND_STATS and SHOW POOL_CACHE that are numbers, and what they count."""

_HOST = "backend_hostname"


class Source(Protocol):
    """The part of sidecar.pcp.Pcp that is needed here."""

    def processes(self) -> tuple[Process, ...]:
        """The children."""

    def parameters(self) -> dict[str, str]:
        """The configuration in force."""

    def health_checks(self, node_id: int) -> HealthChecks:
        """What became of a node's checks."""

    def nodes(self, *, seconds: float) -> tuple[Node, ...]:
        """The nodes, each of which pgpool connects to for this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What pgpool said at one time; what it did not say is empty."""

    processes: tuple[Process, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    health_checks: tuple[HealthChecks, ...] = ()
    nodes: tuple[Node, ...] = ()
    backend_stats: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """By node id."""
    cache: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    """Why something is missing."""
    seconds: float = 0.0
    """How long it took."""

    @property
    def places(self) -> dict[int, tuple[str, str]]:
        """Host and port of each node, by its id."""
        hosts = {name: value for name, value in self.parameters.items() if name.startswith(_HOST)}
        ids = {int(name.removeprefix(_HOST)): host for name, host in hosts.items()}
        return {node_id: (host, self.parameters[f"backend_port{node_id}"]) for node_id, host in ids.items()}

    @property
    def used(self) -> int:
        """How many children have a client."""
        return len({process.pid for process in self.processes if process.pid and process.status != WAITING})

    @property
    def total(self) -> int:
        """How many children there may be; with dynamic process management, fewer live."""
        return int(self.parameters.get("num_init_children", 0)) or len({process.pid for process in self.processes})

    @property
    def free(self) -> int:
        """How many clients could come in before others have to wait."""
        return max(0, self.total - self.used)


def take(pcp: Source, query: Query | None, clock: Callable[[], float]) -> Snapshot:
    """Ask for everything; the first failure ends it, for what follows would fail or hang, too. Raises nothing."""
    started = clock()
    snapshot = Snapshot()

    def check_time() -> None:
        if clock() - started > _BEGIN_SECONDS:
            raise TimeoutError(f"not everything was answered within {_BEGIN_SECONDS:g} s")

    try:
        snapshot = replace(snapshot, processes=pcp.processes())
        check_time()
        snapshot = replace(snapshot, parameters=pcp.parameters())
        for node_id in snapshot.places:
            check_time()
            snapshot = replace(snapshot, health_checks=(*snapshot.health_checks, pcp.health_checks(node_id)))
        check_time()
        snapshot = replace(snapshot, nodes=pcp.nodes(seconds=NODES_SECONDS))
        # A login would wait for a child, behind clients.
        if query and snapshot.free:
            check_time()
            snapshot = replace(snapshot, backend_stats=_backend_stats(query("SHOW POOL_BACKEND_STATS")))
            if snapshot.parameters.get("memory_cache_enabled") == "1":
                check_time()
                snapshot = replace(snapshot, cache=_cache(query("SHOW POOL_CACHE")))
    except (PcpError, EntrypointError, TimeoutError) as error:
        snapshot = replace(snapshot, error=str(error))
    except QueryError as error:
        snapshot = replace(snapshot, error=f"SHOW: {error}")
    except (OSError, ValueError, KeyError) as error:
        snapshot = replace(snapshot, error=f"SHOW: {type(error).__name__}")  # a server's own words are not repeated
    return replace(snapshot, seconds=clock() - started)


def _backend_stats(rows: Sequence[Mapping[str, str]]) -> dict[int, dict[str, float]]:
    return {int(row["node_id"]): _numbers(row, (*STATEMENTS, *MESSAGES)) for row in rows}


def _cache(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    (row,) = rows
    return _numbers(row, (*CACHE_COUNTERS, *CACHE_GAUGES))


def _numbers(row: Mapping[str, str], names: Iterable[str]) -> dict[str, float]:
    return {name: float(row[name]) for name in names}
