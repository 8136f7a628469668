"""The prober tells what happened to clients of a real PostgreSQL."""

import time
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from support import proc
from support.deadline import wait_until
from support.postgres import NewServer, PostgresServer
from support.probe_client import Crew
from support.probe_log import Ack, Failure, Intent
from support.prober import Prober, through_pgpool, to_the_nodes

ROLE, PASSWORD = "a prober", "the prober's % password"
ALL_KINDS = Crew(transactions=1, prepared=1, copies=1)


@pytest.fixture
def server(new_server: NewServer) -> PostgresServer:
    server = new_server()
    server.create_role(ROLE, PASSWORD)
    return server


def prober_of(server: PostgresServer, directory: Path, crew: Crew | None = None, **parameters: str) -> Prober:
    login = {"user": ROLE, "password": PASSWORD, "dbname": "postgres", **parameters}
    return Prober("x", through_pgpool((server.host, server.port), **login), directory, server.connect, crew)


def wait_for_rows(prober: Prober, count: int) -> None:
    """Wait until so many more rows have been acknowledged."""
    goal = prober.report().operations + count
    wait_until(lambda: prober.report().operations >= goal, timeout=10, failure=lambda: str(prober.report()))


def test_nothing_is_seen_where_nothing_happens(server: PostgresServer, tmp_path: Path) -> None:
    with prober_of(server, tmp_path, ALL_KINDS) as prober:
        wait_for_rows(prober, 300)
    seen = prober.report()
    assert (seen.errors, seen.skipped, len(seen.nodes), seen.timelines) == ({}, 0, 1, ("00000001",))
    assert seen.nodes == (f"{server.host}:{server.port}",)
    assert seen.gap < 0.3
    audit = prober.audit()
    assert (audit.lost, audit.phantom, audit.duplicate) == ((), (), ())
    assert {record.worker for record in prober.records} == {
        *(f"steady-{number}" for number in range(4)),
        "login-0",
        "transaction-0",
        "prepared-0",
        "copy-0",
    }


def test_a_restart_is_a_gap_of_the_time_the_server_was_away(server: PostgresServer, tmp_path: Path) -> None:
    with prober_of(server, tmp_path) as prober:
        begin = time.monotonic()
        server.stop()
        stopped = time.monotonic()
        wait_until(lambda: time.monotonic() > stopped + 1.0, timeout=2, failure=str)
        down = time.monotonic() - stopped
        server.start()
        prober.wait_until_acknowledged(stopped, timeout=10)
        prober.wait_until_acknowledged(stopped, kind="login", timeout=10)
        end = time.monotonic()
        seen = prober.report(begin, end)
        assert down < seen.gap < end - begin + 0.05
        assert down < seen.slowest
        assert down < seen.login_gap
    assert seen.errors["57P01"] == 4  # one for each session
    assert (seen.busy_errors, seen.worst_session) == (4, 1)
    assert seen.new_errors >= 10
    assert set(seen.errors) <= {"57P01", "connect", "eof", "57P03"}
    assert prober.audit().lost == ()


def test_a_held_login_is_no_error(server: PostgresServer, tmp_path: Path) -> None:
    with prober_of(server, tmp_path) as prober:
        begin = time.monotonic()
        with proc.frozen(server.pid):
            stopped = time.monotonic()
            # Sessions go on without the postmaster, logins do not.
            wait_until(lambda: prober.report(begin).login_gap > 1.5, timeout=5, failure=str)
        prober.wait_until_acknowledged(time.monotonic(), kind="login", timeout=10)
        seen = prober.report(begin)
    assert seen.errors == {}
    assert seen.slowest_login > 1.3
    assert seen.gap < 1.0
    assert 0 < seen.skipped < 10
    assert stopped > begin


def test_a_read_only_server_is_told_by_its_sqlstate_for_as_long_as_it_was(
    server: PostgresServer, tmp_path: Path
) -> None:
    with prober_of(server, tmp_path) as prober:
        begin = time.monotonic()
        read_only(server, "on")
        wait_until(lambda: prober.report(begin).read_only_seconds > 0.5, timeout=10, failure=str)
        read_only(server, "off")
        prober.wait_until_acknowledged(time.monotonic(), timeout=10)
        seen = prober.report(begin)
    assert set(seen.errors) == {"25006"}
    assert seen.read_only_errors == seen.busy_errors + seen.new_errors
    assert seen.worst_session >= 5  # their sessions live
    assert 0.5 < seen.read_only_seconds < seen.gap + 0.5


def read_only(server: PostgresServer, value: str) -> None:
    with closing(server.connect()) as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(sql.SQL("ALTER SYSTEM SET default_transaction_read_only = {}").format(sql.Literal(value)))
        admin.execute("SELECT pg_reload_conf()")


def test_every_kind_of_session_recovers_from_its_end_with_one_error(server: PostgresServer, tmp_path: Path) -> None:
    with prober_of(server, tmp_path, ALL_KINDS) as prober:
        begin = time.monotonic()
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [ROLE])
        end = time.monotonic()
        for kind in ("steady", "transaction", "prepared", "copy"):
            prober.wait_until_acknowledged(end, kind=kind, timeout=10)
        seen = prober.report(begin)
    assert (seen.worst_session, seen.worst_worker) == (1, 1)
    assert 7 <= seen.errors["57P01"] <= 8
    assert seen.busy_errors == 7
    audit = prober.audit()
    assert (audit.lost, audit.phantom, audit.duplicate) == ((), (), ())


def test_a_transaction_that_is_cut_acknowledges_nothing(server: PostgresServer, tmp_path: Path) -> None:
    with prober_of(server, tmp_path, Crew(steady=0, logins=0, transactions=1, copies=1)) as prober:
        began = len([record for record in prober.records if isinstance(record, Intent)])
        wait_until(
            lambda: len([record for record in prober.records if isinstance(record, Intent)]) > began,
            timeout=5,
            failure=str,
        )
        server.stop("immediate")
        server.start()
        moment = time.monotonic()
        for kind in ("transaction", "copy"):
            prober.wait_until_acknowledged(moment, kind=kind, timeout=10)
    assert any(isinstance(record, Failure) and record.busy for record in prober.records)
    assert prober.audit().lost == ()


def test_libpq_finds_the_node_that_takes_writes(new_server: NewServer, server: PostgresServer, tmp_path: Path) -> None:
    other = new_server({"default_transaction_read_only": "on"})
    with closing(other.connect()) as admin:
        admin.execute("SET default_transaction_read_only = off")
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(PASSWORD)))
    addresses = [(each.host, each.port) for each in (other, server)]
    conninfo = to_the_nodes(addresses, user=ROLE, password=PASSWORD, dbname="postgres")
    with Prober("floor", conninfo, tmp_path, server.connect) as prober:
        wait_for_rows(prober, 50)
        server.stop()
        wait_until(lambda: prober.report().new_errors > 0, timeout=10, failure=lambda: str(prober.report()))
    seen = prober.report()
    assert seen.nodes == (f"{server.host}:{server.port}",)
    assert seen.read_only_errors == 0


def test_rows_that_vanish_are_lost_and_strange_ones_are_found(server: PostgresServer, tmp_path: Path) -> None:
    with prober_of(server, tmp_path) as prober:
        wait_for_rows(prober, 20)
        assert prober.audit().lost == ()  # while it writes
        with closing(server.connect()) as admin:
            admin.execute(sql.SQL("DELETE FROM {} WHERE worker = 'steady-1' AND seq = 0").format(prober.table))
            admin.execute(sql.SQL("INSERT INTO {} (worker, seq) VALUES ('steady-2', 0)").format(prober.table))
            admin.execute(sql.SQL("INSERT INTO {} (worker, seq) VALUES ('steady-9', 7)").format(prober.table))
    audit = prober.audit()
    assert (audit.lost, audit.phantom) == ((("steady-1", 0),), (("steady-9", 7),))
    assert audit.duplicate == (("steady-2", 0),)


def test_a_killed_prober_loses_nothing_of_what_it_knew(server: PostgresServer, tmp_path: Path) -> None:
    prober = prober_of(server, tmp_path)
    with prober:
        wait_for_rows(prober, 20)
        prober.kill()
    sent = {(record.worker, record.seq) for record in prober.records if isinstance(record, Intent)}
    acknowledged = {(record.worker, record.seq) for record in prober.records if isinstance(record, Ack)}
    assert len(acknowledged) >= 20
    assert len(sent - acknowledged) <= 5  # one for each worker: what was under way
    audit = prober.audit()
    assert (audit.lost, audit.phantom) == ((), ())


def test_it_ends_with_whoever_started_it(server: PostgresServer, tmp_path: Path) -> None:
    prober = prober_of(server, tmp_path)
    with prober:
        pid = prober.pid
        with proc.frozen(server.pid):  # a worker that hangs keeps nobody
            wait_until(lambda: prober.report().login_gap > 0.5, timeout=5, failure=str)
            prober.stop()
    assert proc.stat(pid) is None


def test_the_password_is_nowhere_to_be_seen(server: PostgresServer, tmp_path: Path) -> None:
    with prober_of(server, tmp_path) as prober:
        wait_for_rows(prober, 5)
        server.alter_password(ROLE, "another % password")
        wait_until(lambda: prober.report().new_errors > 0, timeout=10, failure=lambda: str(prober.report()))
        assert proc.find_in_processes([prober.pid], PASSWORD.encode()) == []
    assert set(prober.report().errors) == {"connect"}
    assert proc.scan_files(tmp_path, PASSWORD.encode()) == []
    with pytest.raises(psycopg.OperationalError):
        server.connect(ROLE, PASSWORD)


def test_a_mistake_of_its_own_is_no_finding(server: PostgresServer, tmp_path: Path) -> None:
    prober = Prober(
        "a % that psycopg takes for a parameter",
        through_pgpool((server.host, server.port), user=ROLE, password=PASSWORD, dbname="postgres"),
        tmp_path,
        server.connect,
    )
    with pytest.raises(AssertionError, match="placeholder"), prober:
        pass
