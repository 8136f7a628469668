"""From what pgpool says to series, as a table."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from entrypoint.errors import ProgramMissingError
from sidecar.exporter import Exporter, families
from sidecar.pcp import HealthChecks, Node, PcpError, Process
from sidecar.snapshot import Snapshot, take
from sidecar.through_pgpool import QueryError
from support.pgpool_answers import PARAMETERS, busy, checks, node, process

ZERO = 'node_id="0",hostname="pg-1",port="5432"'
ONE = 'node_id="1",hostname="pg-2",port="5433"'


def series(metrics: Sequence[Metric]) -> dict[str, float]:
    return {_name(sample.name, sample.labels): sample.value for metric in metrics for sample in metric.samples}


def _name(name: str, labels: Mapping[str, str]) -> str:
    pairs = [f'{label}="{value}"' for label, value in labels.items()]
    return f"{name}{{{','.join(pairs)}}}"


def told(**parts: object) -> dict[str, float]:
    """The series of a pgpool that says this, besides the least it can say."""
    snapshot = Snapshot(processes=(process(1),), parameters=PARAMETERS)
    return series(list(families(replace(snapshot, **parts), count=1)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "status", "quarantine"),
    [
        ({"status": "up"}, 1, 0),
        ({"status": "waiting"}, 1, 0),
        ({"status": "down"}, 0, 0),
        ({"status": "unused"}, 0, 0),
        ({"status": "quarantine"}, 0, 1),
    ],
)
def test_quarantine_is_told_from_down(changes: Mapping[str, str], status: int, quarantine: int) -> None:
    found = told(health_checks=(checks(1, **changes),))
    assert found[f"pgpool2_pool_nodes_status{{{ONE}}}"] == status
    assert found[f"pgpool2_pool_nodes_quarantine{{{ONE}}}"] == quarantine


@pytest.mark.parametrize(
    ("role", "pg_role", "primary", "mistaken"),
    [
        ("primary", "primary", 1, 0),
        ("standby", "standby", 0, 0),
        ("primary", "standby", 0, 1),
        ("standby", "primary", 1, 1),
        ("primary", "unknown", None, None),
        ("standby", "unknown", None, None),
    ],
)
def test_pgpool_may_be_mistaken_about_a_node(
    role: str, pg_role: str, primary: int | None, mistaken: int | None
) -> None:
    found = told(nodes=(node(0, role=role, pg_role=pg_role),))
    assert found.get(f"pgpool2_pool_nodes_pg_primary{{{ZERO}}}") == primary
    assert found.get(f"pgpool2_pool_nodes_role_mismatch{{{ZERO}}}") == mistaken


@pytest.mark.parametrize(("status", "mistaken"), [(0, 0), (1, 1), (2, 1), (3, 0)])
def test_pgpool_is_not_mistaken_about_a_node_that_it_does_not_use(status: int, mistaken: int) -> None:
    """As of a former primary that is fenced while its PostgreSQL lives."""
    found = told(nodes=(node(0, role="standby", pg_role="primary", status=status),))
    assert found[f"pgpool2_pool_nodes_role_mismatch{{{ZERO}}}"] == mistaken


def test_a_failover_starts_no_new_series() -> None:
    before = told(health_checks=(checks(0), checks(1)), nodes=(node(0), node(1)))
    swapped = {"role": "standby", "pg_role": "standby"}, {"role": "primary", "pg_role": "primary"}
    after = told(
        health_checks=(checks(0, role="standby", status="down"), checks(1, role="primary")),
        nodes=(node(0, **swapped[0]), node(1, **swapped[1])),
    )
    assert before[f"pgpool2_pool_nodes_primary{{{ZERO}}}"] == after[f"pgpool2_pool_nodes_primary{{{ONE}}}"] == 1
    assert {name for name in before if "streaming" not in name} == {name for name in after if "streaming" not in name}


@pytest.mark.parametrize(("unit", "other"), [("bytes", "seconds"), ("seconds", "bytes")])
def test_a_delay_has_its_unit_in_its_name(unit: str, other: str) -> None:
    found = told(nodes=(node(1, replication_delay=2.5, delay_unit=unit),))
    assert found[f"pgpool2_pool_nodes_replication_delay_{unit}{{{ONE}}}"] == 2.5
    assert f"pgpool2_pool_nodes_replication_delay_{other}{{{ONE}}}" not in found


def test_health_checks_are_counted() -> None:
    found = told(health_checks=(checks(0), checks(1, average_retry_count=float("nan"))))
    name = "pgpool2_pool_health_check_stats"
    counts = {kind: found[f"{name}_{kind}_count_total{{{ZERO}}}"] for kind in ("total", "success", "fail", "skip")}
    assert counts == {"total": 10, "success": 7, "fail": 1, "skip": 2}
    assert found[f"{name}_retry_count_total{{{ZERO}}}"] == 3
    assert found[f"{name}_average_duration{{{ZERO}}}"] == 5.5
    assert found[f"{name}_average_retry_count{{{ZERO}}}"] == 0.375
    assert f"{name}_average_retry_count{{{ONE}}}" not in found, "0/0 before the first check"


def test_children_are_counted_once_whatever_their_places() -> None:
    found = told(
        processes=(*busy(1), *busy(2, status="Execute command"), process(3), process(3), *busy(4, "o'h", 'd"b'))
    )
    assert found["pgpool2_frontend_total{}"] == 4
    assert found["pgpool2_frontend_free{}"] == 1
    assert found["pgpool2_frontend_used_ratio{}"] == 0.75
    assert found['pgpool2_frontend_used{username="app",database="shop"}'] == 2
    assert found['pgpool2_frontend_processes{state="idle"}'] == 2
    assert found['pgpool2_frontend_processes{state="execute_command"}'] == 1
    assert found['pgpool2_frontend_processes{state="wait_for_connection"}'] == 1
    assert found['pgpool2_frontend_processes{state="idle_in_transaction"}'] == 0
    assert found["pgpool2_backend_total{}"] == 8
    assert found["pgpool2_backend_used{}"] == 6
    assert found["pgpool2_backend_used_ratio{}"] == 0.75


def test_a_child_that_is_not_there_is_free_to_come() -> None:
    found = told(processes=(*busy(1), process(0), process(0), process(0)))
    assert found["pgpool2_frontend_free{}"] == 3
    assert sum(value for name, value in found.items() if name.startswith("pgpool2_frontend_processes")) == 1


def test_a_client_that_is_logging_in_is_counted_without_a_name() -> None:
    found = told(processes=(process(1, "Connecting"),))
    assert found['pgpool2_frontend_used{username="",database=""}'] == 1
    assert found["pgpool2_frontend_free{}"] == 3


def test_names_from_clients_make_no_more_than_a_few_series() -> None:
    crowd = [place for pid in range(1, 101) for place in busy(pid, username=f"user {pid}%")]
    found = told(processes=(*crowd, *busy(101), *busy(102)))
    used = {name: value for name, value in found.items() if name.startswith("pgpool2_frontend_used{")}
    assert len(used) == 21
    assert used['pgpool2_frontend_used{username="app",database="shop"}'] == 2
    assert used['pgpool2_frontend_used{username="(other)",database="(other)"}'] == 81
    assert sum(used.values()) == 102


def test_nothing_is_labelled_with_a_process() -> None:
    found = told(processes=(*busy(31337),), health_checks=(checks(0),), nodes=(node(0),))
    assert not [name for name in found if "31337" in name]


def test_what_pgpool_did_not_say_is_absent() -> None:
    assert set(series(list(families(Snapshot(error="away"), count=3)))) == {
        "pgpool2_up{}",
        "pgpool2_last_scrape_duration_seconds{}",
        "pgpool2_last_scrape_error{}",
        "pgpool2_scrapes_total{}",
    }


@dataclass
class Told:
    """pgpool's answers, of which a test breaks some."""

    broken: dict[str, Exception] = field(default_factory=dict)
    parameter: Mapping[str, str] = field(default_factory=lambda: dict(PARAMETERS))
    children: tuple[Process, ...] = (process(1), process(2))
    asked: list[str] = field(default_factory=list)
    may_answer: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.may_answer.set()

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        assert self.may_answer.wait(10)
        if what in self.broken:
            raise self.broken[what]

    def processes(self) -> tuple[Process, ...]:
        self._ask("processes")
        return self.children

    def parameters(self) -> dict[str, str]:
        self._ask("parameters")
        return dict(self.parameter)

    def health_checks(self, node_id: int) -> HealthChecks:
        self._ask(f"health_checks {node_id}")
        return checks(node_id)

    def nodes(self, *, seconds: float) -> tuple[Node, ...]:
        self._ask("nodes")
        assert seconds <= 3
        return (node(0), node(1))

    def query(self, statement: str) -> list[dict[str, str]]:
        self._ask(statement)
        if statement == "SHOW POOL_CACHE":
            return [dict.fromkeys(CACHE, "0.5")]
        return [{"node_id": str(node_id), "role": "primary", **dict.fromkeys(STATEMENTS, "7")} for node_id in (0, 1)]


CACHE = (
    *("num_cache_hits", "num_selects", "cache_hit_ratio", "num_hash_entries", "used_hash_entries"),
    *("num_cache_entries", "used_cache_entries_size", "free_cache_entries_size", "fragment_cache_entries_size"),
)
STATEMENTS = (
    *("select_cnt", "insert_cnt", "update_cnt", "delete_cnt", "ddl_cnt", "other_cnt"),
    *("panic_cnt", "fatal_cnt", "error_cnt"),
)
BY_PCP = ["processes", "parameters", "health_checks 0", "health_checks 1", "nodes"]
AWAY = PcpError("pcp", "no answer within 3 s", away=True)


def test_pcp_is_asked_first_and_sql_last() -> None:
    pgpool = Told()
    snapshot = take(pgpool, pgpool.query, time.monotonic)
    assert snapshot.error is None
    assert pgpool.asked == [*BY_PCP, "SHOW POOL_BACKEND_STATS"]
    found = series(list(families(snapshot, count=1)))
    assert found[f"pgpool2_pool_backend_stats_select_cnt_total{{{ONE}}}"] == 7
    assert found[f"pgpool2_pool_backend_stats_fatal_cnt_total{{{ZERO}}}"] == 7


def test_the_query_cache_is_asked_about_where_it_is_on() -> None:
    pgpool = Told(parameter={**PARAMETERS, "memory_cache_enabled": "1"})
    found = series(list(families(take(pgpool, pgpool.query, time.monotonic), count=1)))
    assert {name for name in found if "cache" in name} == {
        "pgpool2_pool_cache_num_cache_hits_total{}",
        "pgpool2_pool_cache_num_selects_total{}",
        *(f"pgpool2_pool_cache_{name}{{}}" for name in CACHE[2:]),
    }


def test_a_full_pool_is_not_asked_for_a_child() -> None:
    pgpool = Told(children=tuple(place for pid in range(1, 5) for place in busy(pid)))
    snapshot = take(pgpool, pgpool.query, time.monotonic)
    assert snapshot.error is None
    assert pgpool.asked == BY_PCP


@pytest.mark.parametrize(
    ("question", "error"),
    [
        ("processes", AWAY),
        ("processes", ProgramMissingError("pcp_proc_info is not on PATH")),
        ("parameters", AWAY),
        ("health_checks 1", AWAY),
        ("nodes", AWAY),
        ("SHOW POOL_BACKEND_STATS", QueryError("no answer in time")),
        ("SHOW POOL_BACKEND_STATS", ConnectionResetError("the server's own words")),
    ],
)
def test_the_first_failure_ends_the_asking(question: str, error: Exception) -> None:
    pgpool = Told({question: error})
    snapshot = take(pgpool, pgpool.query, time.monotonic)
    assert pgpool.asked[-1] == question
    found = series(list(families(snapshot, count=1)))
    assert found["pgpool2_last_scrape_error{}"] == 1
    assert found["pgpool2_up{}"] == (question != "processes")
    assert snapshot.error
    assert "own words" not in snapshot.error


def test_a_node_that_hangs_does_not_hide_the_rest() -> None:
    found = series(list(families(take(Told({"nodes": AWAY}), None, time.monotonic), count=1)))
    assert found[f"pgpool2_pool_nodes_status{{{ONE}}}"] == 1
    assert found[f"pgpool2_pool_nodes_primary{{{ZERO}}}"] == 1
    assert found["pgpool2_frontend_total{}"] == 4
    assert f"pgpool2_pool_nodes_pg_primary{{{ZERO}}}" not in found


def test_nothing_is_begun_too_late() -> None:
    pgpool = Told()
    ticks = iter([0.0, 1.8, 1.9, 2.1, 2.2])
    snapshot = take(pgpool, None, lambda: next(ticks))
    assert pgpool.asked == BY_PCP[:3]
    assert snapshot.seconds == 2.2
    assert snapshot.error == "not everything was answered within 2 s"


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def test_to_register_asks_nothing_and_a_scrape_asks_once(registry: CollectorRegistry) -> None:
    pgpool = Told()
    registry.register(Exporter(pgpool))
    assert pgpool.asked == []
    generate_latest(registry)
    generate_latest(registry)
    assert pgpool.asked == BY_PCP


def test_everything_can_be_read_as_openmetrics(registry: CollectorRegistry) -> None:
    pgpool = Told(parameter={**PARAMETERS, "memory_cache_enabled": "1"}, children=tuple(busy(1)))
    registry.register(Exporter(pgpool, pgpool.query))
    text = generate_openmetrics(registry).decode()  # type: ignore[no-untyped-call]
    names = {family.name for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    assert len(names) > 40
    assert all(name.startswith("pgpool2_") for name in names)


def test_a_pgpool_that_hangs_is_waited_for_once(registry: CollectorRegistry) -> None:
    now = 100.0
    pgpool = Told()
    registry.register(Exporter(pgpool, clock=lambda: now))
    assert registry.get_sample_value("pgpool2_up") == 1
    pgpool.broken["processes"] = AWAY
    now += 15
    assert registry.get_sample_value("pgpool2_up") == 0
    assert registry.get_sample_value("pgpool2_frontend_total") is None
    pgpool.may_answer.clear()
    now += 15
    started = time.monotonic()
    assert registry.get_sample_value("pgpool2_up") == 0
    assert time.monotonic() - started < 1
    del pgpool.broken["processes"]
    pgpool.may_answer.set()
    now += 15
    assert registry.get_sample_value("pgpool2_up") == 1


def test_an_old_snapshot_is_not_passed_off_as_new(registry: CollectorRegistry) -> None:
    now = 100.0
    pgpool = Told({"nodes": AWAY})
    registry.register(Exporter(pgpool, clock=lambda: now))
    assert registry.get_sample_value("pgpool2_frontend_total") == 4
    pgpool.may_answer.clear()
    now += 29
    assert registry.get_sample_value("pgpool2_frontend_total") == 4
    assert registry.get_sample_value("pgpool2_snapshot_age_seconds") == 29
    now += 2
    assert registry.get_sample_value("pgpool2_frontend_total") is None
    assert registry.get_sample_value("pgpool2_up") == 0
    pgpool.may_answer.set()


def test_a_snapshot_does_not_stay_when_taking_one_fails_ever_since(
    registry: CollectorRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    now = 100.0
    pgpool = Told()
    exporter = Exporter(pgpool, clock=lambda: now)
    registry.register(exporter)
    assert registry.get_sample_value("pgpool2_up") == 1
    pgpool.broken["processes"] = RuntimeError("a bug")
    now += 31
    assert registry.get_sample_value("pgpool2_up") == 0
    assert registry.get_sample_value("pgpool2_last_scrape_error") == 1
    assert exporter.error == "no new numbers came in time"
