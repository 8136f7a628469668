"""Prometheus sees a real pgpool, whatever state that is in."""

import http.client
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from entrypoint.inputs import read_inputs
from entrypoint.pcp import PcpAddress
from entrypoint.probe import Verdict
from entrypoint.secret import Secret
from sidecar.exporter import Exporter
from sidecar.health import pgpool_live, pgpool_ready
from sidecar.libpq import Rows
from sidecar.metrics import Metrics
from sidecar.pcp import Pcp
from sidecar.snapshot import COMMAND_SECONDS
from sidecar.through_pgpool import rows_through_pgpool
from sidecar.web import Sources, Web, pages
from support import proc
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import NewServer, PostgresServer

PCP_PASSWORD = "sentinel 100% pcp"

Series = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


class Watched:
    """A pod's pgpool behind the sidecar's own HTTP."""

    def __init__(self, pod: Pod, *, sql: bool = True) -> None:
        self.pod = pod
        self.password = CHECK_PASSWORD
        self.env = {"PATH": f"{pod.pgpool_bin}:/usr/bin:/bin"}
        metrics = Metrics("1.2.3")
        pcp = Pcp(self.address, self.env)
        pcp.calls = metrics.pcp_called
        self.exporter = Exporter(pcp, self.query if sql else None)
        metrics.registry.register(self.exporter)
        self.web = Web(
            ("127.0.0.1", 0),
            pages(
                Sources(
                    live=lambda: Verdict(True, "beats"),
                    ready=lambda: Verdict(True, "good"),
                    pgpool_live=lambda: pgpool_live(pod.run_dir, self.address, self.env),
                    pgpool_ready=lambda: pgpool_ready(pod.run_dir, self.address, self.env),
                    status=lambda: {"error": self.exporter.error},
                    registry=metrics.registry,
                )
            ),
        )

    def address(self) -> PcpAddress:
        boot = read_inputs(self.pod.run_dir)
        return PcpAddress(self.pod.run_dir, boot.pcp_port, boot.pcp_user, Secret(PCP_PASSWORD))

    def query(self, statement: str) -> Rows:
        run_dir, port = self.pod.run_dir, self.pod.port
        return rows_through_pgpool(run_dir, port, CHECK_ROLE, Secret(self.password), statement, seconds=COMMAND_SECONDS)

    def get(self, path: str) -> tuple[int, str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.web.port, timeout=10)) as client:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read().decode()

    def scrape(self) -> Series:
        """A scrape that does not share an older snapshot."""
        before = self._read()
        taken = value(before, "pgpool2_scrapes_total")
        return wait_until(
            lambda: found if value(found := self._read(), "pgpool2_scrapes_total") > taken else {},
            timeout=10,
            failure=lambda: "no new snapshot",
        )

    def _read(self) -> Series:
        status, text = self.get("/metrics")
        assert status == 200
        families = text_string_to_metric_families(text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }


def value(series: Series, name: str, **labels: str) -> float:
    return series[name, frozenset(labels.items())]


def names(series: Series) -> set[str]:
    return {name for name, _ in series if name.startswith("pgpool2_")}


@contextmanager
def watched(pod: Pod, **parameters: str) -> Iterator[tuple[Watched, Pgpool]]:
    pod.environment["PGPOOL_PCP_PASSWORD_FILE"] = str(pod.write("pcp", PCP_PASSWORD))
    with pod.pgpool(**parameters) as pgpool:
        pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
        pgpool.wait_until_logged("successfully started")
        watch = Watched(pod)
        with watch.web:
            yield watch, pgpool


BY_PCP = {
    "pgpool2_up",
    "pgpool2_last_scrape_duration_seconds",
    "pgpool2_last_scrape_error",
    "pgpool2_scrapes_total",
    "pgpool2_snapshot_age_seconds",
    "pgpool2_frontend_total",
    "pgpool2_frontend_free",
    "pgpool2_frontend_used",
    "pgpool2_frontend_used_ratio",
    "pgpool2_frontend_processes",
    "pgpool2_backend_total",
    "pgpool2_backend_used",
    "pgpool2_backend_used_ratio",
    "pgpool2_pool_nodes_status",
    "pgpool2_pool_nodes_quarantine",
    "pgpool2_pool_nodes_primary",
    "pgpool2_pool_nodes_weight",
    "pgpool2_pool_nodes_pg_status",
    "pgpool2_pool_nodes_pg_primary",
    "pgpool2_pool_nodes_role_mismatch",
    "pgpool2_pool_nodes_replication_delay_bytes",
    *(f"pgpool2_pool_health_check_stats_{kind}_count_total" for kind in ("total", "success", "fail", "skip", "retry")),
    "pgpool2_pool_health_check_stats_average_retry_count",
    "pgpool2_pool_health_check_stats_max_retry_count",
    "pgpool2_pool_health_check_stats_max_duration",
    "pgpool2_pool_health_check_stats_min_duration",
    "pgpool2_pool_health_check_stats_average_duration",
}
STATEMENTS = {
    f"pgpool2_pool_backend_stats_{kind}_cnt_total"
    for kind in ("select", "insert", "update", "delete", "ddl", "other", "panic", "fatal", "error")
}
CACHE = {
    "pgpool2_pool_cache_num_cache_hits_total",
    "pgpool2_pool_cache_num_selects_total",
    "pgpool2_pool_cache_cache_hit_ratio",
    "pgpool2_pool_cache_num_hash_entries",
    "pgpool2_pool_cache_used_hash_entries",
    "pgpool2_pool_cache_num_cache_entries",
    "pgpool2_pool_cache_used_cache_entries_size",
    "pgpool2_pool_cache_free_cache_entries_size",
    "pgpool2_pool_cache_fragment_cache_entries_size",
}


def test_every_series_tells_what_is(pod: Pod, postgres: PostgresServer) -> None:
    parameters = {"PGPOOL_PARAMS_NUM_INIT_CHILDREN": "6", "PGPOOL_PARAMS_MEMORY_CACHE_ENABLED": "on"}
    node = {"node_id": "0", "hostname": "127.0.0.1", "port": str(postgres.port)}
    with watched(pod, **parameters) as (watch, pgpool), ExitStack() as stack:
        before = watch.scrape()
        client = stack.enter_context(pgpool.connect(APP_ROLE, APP_PASSWORD))
        client.execute("CREATE TEMPORARY TABLE t (n int)")
        for number in range(5):
            client.execute("INSERT INTO t VALUES (%s)", [number])
        client.execute("UPDATE t SET n = n + 1")
        client.execute("DELETE FROM t")
        with pytest.raises(psycopg.errors.UndefinedTable):
            client.execute("DELETE FROM nothing_such")
        client.execute("BEGIN")
        after = watch.scrape()
        counts = {
            name.removeprefix("pgpool2_pool_backend_stats_").removesuffix("_cnt_total"): value(after, name, **node)
            - value(before, name, **node)
            for name in STATEMENTS
        }
        assert counts["insert"] == 5
        assert counts["update"] == 1
        assert counts["delete"] == 2
        assert counts["ddl"] == 1
        assert counts["error"] == 1
        assert counts["panic"] == counts["fatal"] == 0

        assert names(after) == BY_PCP | STATEMENTS | CACHE
        assert value(after, "pgpool2_up") == 1
        assert value(after, "pgpool2_last_scrape_error") == 0
        assert 0 < value(after, "pgpool2_last_scrape_duration_seconds") < 5
        for name in ("status", "primary", "pg_status", "pg_primary", "weight"):
            assert value(after, f"pgpool2_pool_nodes_{name}", **node) == 1, name
        for name in ("quarantine", "role_mismatch", "replication_delay_bytes"):
            assert value(after, f"pgpool2_pool_nodes_{name}", **node) == 0, name
        checks = "pgpool2_pool_health_check_stats"
        assert value(after, f"{checks}_total_count_total", **node) >= 1
        assert value(after, f"{checks}_success_count_total", **node) >= 1
        assert value(after, f"{checks}_fail_count_total", **node) == 0

        assert value(after, "pgpool2_frontend_total") == 6
        assert value(after, "pgpool2_frontend_free") == 5
        assert value(after, "pgpool2_frontend_used", username=APP_ROLE, database="postgres") == 1
        assert value(after, "pgpool2_frontend_processes", state="idle_in_transaction") == 1
        assert value(after, "pgpool2_frontend_processes", state="wait_for_connection") == 5
        assert value(after, "pgpool2_backend_used") >= 1
        assert value(after, "pgpool_pcp_calls_total", tool="pcp_node_info", result="ok") >= 2


def test_a_full_pool_is_seen_to_be_full(pod: Pod) -> None:
    with watched(pod, PGPOOL_PARAMS_NUM_INIT_CHILDREN="3") as (watch, pgpool), ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(pgpool.connect(APP_ROLE, APP_PASSWORD))
        started = time.monotonic()
        full = watch.scrape()
        assert time.monotonic() - started < 10
        assert value(full, "pgpool2_up") == 1
        assert value(full, "pgpool2_last_scrape_error") == 0
        assert value(full, "pgpool2_frontend_used", username=APP_ROLE, database="postgres") == 3
        assert value(full, "pgpool2_frontend_total") == 3
        assert value(full, "pgpool2_frontend_free") == 0
        assert value(full, "pgpool2_frontend_used_ratio") == 1
        assert names(full) == BY_PCP, "SQL would have waited for a child"


def test_a_query_that_hangs_delays_one_snapshot_and_blocks_none(pod: Pod) -> None:
    with watched(pod) as (watch, pgpool):
        waiting = b"pgpool: wait for connection"
        with proc.frozen(*(pid for pid in proc.children(pgpool.pid) if proc.cmdline(pid).startswith(waiting))):
            begin = time.monotonic()
            hung = watch.scrape()
            assert 3 < time.monotonic() - begin < 6
            assert watch.exporter.error == "SHOW: no answer in time"
            assert value(hung, "pgpool2_last_scrape_error") == 1
            assert value(hung, "pgpool2_frontend_free") > 0
            assert STATEMENTS.isdisjoint(names(hung))
            assert value(watch.scrape(), "pgpool2_scrapes_total") > value(hung, "pgpool2_scrapes_total")
        assert names(watch.scrape()) >= STATEMENTS
        assert watch.exporter.error is None


def test_a_password_that_pgpool_does_not_take_costs_nothing_but_what_sql_tells(pod: Pod) -> None:
    with watched(pod) as (watch, _):
        watch.password = "another % password"
        found = watch.scrape()
        assert value(found, "pgpool2_up") == 1
        assert STATEMENTS.isdisjoint(names(found))
        assert watch.exporter.error == "SHOW: pgpool has another password"


def test_a_database_that_is_away_is_no_failure_of_pgpool(new_server: NewServer, new_pod: NewPod) -> None:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    node = {"node_id": "0", "hostname": "127.0.0.1", "port": str(server.port)}
    quickly = {
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD": "1",
        "PGPOOL_PARAMS_HEALTH_CHECK_MAX_RETRIES": "1",
        "PGPOOL_PARAMS_HEALTH_CHECK_RETRY_DELAY": "1",
        "PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT": "2",
    }
    with watched(new_pod(server), **quickly) as (watch, pgpool):
        assert value(watch.scrape(), "pgpool2_pool_nodes_status", **node) == 1
        server.stop("immediate")

        def seen() -> bool:
            found = watch.scrape()
            return value(found, "pgpool2_up") == 1 and value(found, "pgpool2_pool_nodes_status", **node) == 0

        wait_until(seen, timeout=60, failure=lambda: f"not seen to be down:\n{pgpool.log}")
        found = watch.scrape()
        assert value(found, "pgpool2_pool_nodes_primary", **node) == 0
        assert value(found, "pgpool2_pool_nodes_pg_status", **node) == 0
        assert value(found, "pgpool2_pool_health_check_stats_fail_count_total", **node) >= 1
        assert watch.get("/pgpool/livez") == (200, "PCP answers\n")
        assert watch.get("/pgpool/readyz") == (503, "none of 1 nodes is an attached primary\n")


def test_a_pgpool_that_hangs_hangs_no_scrape(pod: Pod) -> None:
    with watched(pod) as (watch, pgpool):
        assert value(watch.scrape(), "pgpool2_up") == 1
        assert watch.get("/pgpool/livez") == (200, "PCP answers\n")
        with proc.frozen(*pgpool.pids):
            wait_until(
                lambda: not value(watch.scrape(), "pgpool2_up"), timeout=20, failure=lambda: "still said to be up"
            )
            for _ in range(3):
                started = time.monotonic()
                status, text = watch.get("/metrics")
                assert time.monotonic() - started < 1
                assert (status, "pgpool2_up 0.0" in text, "pgpool2_frontend_total" in text) == (200, True, False)
            assert "pcp_proc_info: no answer within 3 s" in json.loads(watch.get("/status")[1])["error"]

            def dead() -> bool:
                asked = time.monotonic()
                status, reason = watch.get("/pgpool/livez")
                assert time.monotonic() - asked < 1.5
                return (status, reason) == (503, "PCP does not answer within 3 s\n")

            wait_until(dead, timeout=20, failure=lambda: "still said to live")
            assert watch.get("/livez")[0] == 200
        wait_until(
            lambda: value(watch.scrape(), "pgpool2_up") == 1, timeout=20, failure=lambda: "not seen to be up again"
        )
        wait_until(lambda: watch.get("/pgpool/livez")[0] == 200, timeout=20, failure=lambda: "not live again")
        assert watch.get("/pgpool/readyz")[0] == 200


def test_nobody_asks_pgpool_when_nobody_scrapes(pod: Pod) -> None:
    with watched(pod, PGPOOL_PARAMS_LOG_PCP_PROCESSES="on") as (watch, pgpool):
        asked = "PCP process with pid"
        assert watch.get("/status")[0] == watch.get("/livez")[0] == 200
        assert asked not in pgpool.log
        watch.scrape()
        pgpool.wait_until_logged(asked)


def test_before_the_first_boot_pgpool_is_neither_live_nor_ready(pod: Pod) -> None:
    watch = Watched(pod)
    with watch.web:
        for path in ("/pgpool/livez", "/pgpool/readyz"):
            assert watch.get(path) == (503, f"pgpool-entrypoint has not booted in {pod.run_dir}\n")


def test_a_pgpool_that_ended_is_neither_live_nor_ready_nor_up(pod: Pod) -> None:
    with watched(pod) as (watch, pgpool):
        pgpool.kill_group()
        away = "PCP is away, as during a failover; pgpool's own socket accepts none\n"
        for path in ("/pgpool/livez", "/pgpool/readyz"):
            assert watch.get(path) == (503, away)
        assert value(watch.scrape(), "pgpool2_up") == 0


def test_without_pcp_tools_the_socket_tells(pod: Pod) -> None:
    with watched(pod) as (watch, pgpool):
        for judge in (pgpool_live, pgpool_ready):
            verdict = judge(pod.run_dir, watch.address, {"PATH": "/nowhere"})
            assert verdict.good
            assert verdict.reason.endswith(
                "is not on PATH; it belongs to pgpool; pgpool's own socket accepts connections"
            )
        pgpool.kill_group()
        assert not pgpool_live(pod.run_dir, watch.address, {"PATH": "/nowhere"}).good


def test_no_page_tells_a_secret(pod: Pod) -> None:
    with watched(pod) as (watch, _):
        watch.scrape()
        told = "".join(watch.get(path)[1] for path in ("/metrics", "/status", "/pgpool/livez", "/pgpool/readyz"))
        assert "pgpool2_up 1.0" in told
        for secret in (PCP_PASSWORD, CHECK_PASSWORD, APP_PASSWORD):
            assert secret not in told
