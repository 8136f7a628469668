"""Sessions, and the processes that serve them, when nodes, connections or passwords change."""

import os
import signal
from concurrent.futures import wait
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic

import psycopg
import pytest

from entrypoint.publish import publish
from entrypoint.render import MARKER, render
from sidecar.desired import read_desired
from sidecar.generation import marker
from support import proc
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE
from support.postgres import PostgresServer
from support.two_nodes import NO_PRIMARY, SEARCHES, STANDBY, Servers, Start, at_once, copy, is_held, lets_in

READ_ONLY = "in a read-only transaction"


def server_process(server: PostgresServer) -> int:
    """Of the application's only session."""
    [(pid,)] = server.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'")
    return int(str(pid))


def test_a_session_that_is_left_without_a_primary_writes_nowhere(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="1")
    refused = servers.standby.log.count(READ_ONLY)
    servers.primary.sql("ALTER ROLE sr_check NOLOGIN")  # pgpool takes the primary for none, though it is there
    try:
        session = stage.connect()
        stage.look_again()
        stage.pgpool.wait_until_logged(NO_PRIMARY)
        write = at_once(lambda: session.execute("INSERT INTO written VALUES (2)"))
        assert is_held(write), stage.pgpool.log
    finally:
        servers.primary.sql("ALTER ROLE sr_check LOGIN")
    stage.look_again()

    write.result(timeout=30)
    assert servers.standby.log.count(READ_ONLY) == refused


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_sessions_survive_the_end_of_a_standby(start: Start, servers: Servers, mode: str) -> None:
    stage = start()
    sessions = [stage.connect() for _ in range(3)]

    servers.standby.stop(mode)

    for session in sessions:
        at_once(partial(session.execute, "INSERT INTO written VALUES (4)")).result(timeout=20)


def test_a_session_goes_on_without_a_standby_that_is_detached_before_it_answers(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    pid = server_process(servers.standby)
    with proc.frozen(pid):
        write = at_once(lambda: session.execute("INSERT INTO written VALUES (%s)", [5]))
        assert is_held(write), stage.pgpool.log

        stage.until_told(stage.pcp.detach, STANDBY)

        write.result(timeout=20)
        session.execute("INSERT INTO written VALUES (6)")


def test_a_session_goes_on_without_a_standby_that_says_good_bye_for_an_answer(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    pid = server_process(servers.standby)
    with proc.frozen(pid):
        write = at_once(lambda: session.execute("INSERT INTO written VALUES (%s)", [5]))
        assert is_held(write), stage.pgpool.log

        os.kill(pid, signal.SIGTERM)

    write.result(timeout=20)
    session.execute("INSERT INTO written VALUES (6)")


def test_a_server_process_that_is_killed_ends_no_more_than_postgresql_does(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    [pid] = session.execute("SELECT pg_backend_pid()").fetchone() or []
    os.kill(pid, signal.SIGSTOP)  # so that what comes is not read, and the connection is reset
    statement = at_once(lambda: session.execute("INSERT INTO written VALUES (1)"))
    assert is_held(statement)

    os.kill(pid, signal.SIGKILL)  # PostgreSQL now restarts all its processes

    with pytest.raises(psycopg.OperationalError):
        statement.result(timeout=30)
    stage.write()
    assert "Starting degeneration" not in stage.pgpool.log


def test_a_session_that_postgresql_ends_is_told_so(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    for number in range(2):
        session.execute("INSERT INTO written VALUES (%s)", [number])

    ended = servers.primary.sql(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE usename = 'app' AND query LIKE 'INSERT INTO written%'"
    )
    assert ended == [(True,)]

    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("INSERT INTO written VALUES (%s)", [3])
    stage.write()
    assert "segmentation fault" not in stage.pgpool.log


def test_a_session_whose_primary_says_good_bye_when_a_standby_has_answered_is_told_so(
    start: Start, servers: Servers
) -> None:
    slow_commit = """
        CREATE TABLE slow (by int);
        GRANT ALL ON slow TO app;
        CREATE FUNCTION sleep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN NULL; END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION sleep()
    """
    servers.primary.sql(slow_commit, dbname="app")
    stage = start()
    session = stage.connect()
    write = at_once(lambda: session.execute("INSERT INTO slow VALUES (%s)", [1]))
    assert is_held(write), stage.pgpool.log

    servers.primary.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO slow%'")

    with pytest.raises(psycopg.errors.AdminShutdown):
        write.result(timeout=20)


def test_an_error_with_the_sqlstate_of_a_farewell_ends_no_session(start: Start) -> None:
    session = start().connect()

    with pytest.raises(psycopg.errors.AdminShutdown):
        session.execute("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '57P01'; END $$")

    session.execute("INSERT INTO written VALUES (8)")


def test_no_transaction_of_a_former_primary_is_committed_by_the_next_one(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    session.execute("BEGIN")
    session.execute("INSERT INTO written VALUES (9)")
    servers.standby.sql("SELECT pg_promote()")
    try:
        stage.look_again()
        stage.pgpool.wait_until_logged(f"set new primary node: {STANDBY}")

        with pytest.raises(psycopg.OperationalError):
            session.execute("COMMIT")
    finally:
        servers.standby.stop()
        copy(servers.primary, servers.standby)
        servers.standby.start()


def test_pooled_connections_are_closed_after_a_session_went_on_without_a_standby(
    start: Start, servers: Servers
) -> None:
    stage = start(num_init_children="1")
    with stage.connect() as session:
        session.execute("INSERT INTO written VALUES (1)")
        servers.standby.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'")
        session.execute("INSERT INTO written VALUES (2)")
    stage.write()  # by the pooled connections, one of which is of no use

    stage.pgpool.connect(APP_ROLE, APP_PASSWORD, "postgres").close()  # there is room for one database only

    assert "segmentation fault" not in stage.pgpool.log


def test_pooled_connections_expire_of_which_a_standby_had_refused_one(start: Start, servers: Servers) -> None:
    stage = start(primary_first=True, num_init_children="1", connection_life_time="4")
    with servers.standby.connect():
        os.kill(servers.standby.pid, signal.SIGTERM)  # it lets nobody in, and waits for this session
        wait_until(lambda: not lets_in(servers.standby), timeout=10, failure=lambda: servers.standby.log)
        stage.write()
    servers.standby.restart()
    servers.primary.sql("ALTER ROLE sr_check NOLOGIN")  # it will not be found
    try:
        searching = at_once(stage.look_again)
        stage.wait_for_lines(SEARCHES, 2)
        write = at_once(stage.write)  # the process waits for the end of the search, and looks at the standby anew
        wait([write], timeout=5)
    finally:
        servers.primary.sql("ALTER ROLE sr_check LOGIN")

    write.result(timeout=20)
    searching.result(timeout=20)
    assert "segmentation fault" not in stage.pgpool.log


def test_a_child_that_is_ended_as_soon_as_it_is_born_takes_nothing_along(start: Start) -> None:
    stage = start(num_init_children="64")
    main = stage.pgpool.pid
    children = Path(f"/proc/{main}/task/{main}/children")

    def living() -> set[int]:
        return set(map(int, children.read_text().split()))

    known = living()
    idle = [pid for pid in known if b"wait for connection request" in proc.cmdline(pid)]
    for pid in idle[:60]:
        os.kill(pid, signal.SIGKILL)
        until = monotonic() + 10
        while not (born := living() - known):  # no pause: it has its own signal handlers after 0.3 ms
            assert monotonic() < until, stage.pgpool.log
        known |= born
        for child in born:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGQUIT)

    stage.write()
    assert "failed to lock semaphore" not in stage.pgpool.log


def test_a_process_in_a_session_learns_passwords_by_a_reload(start: Start, servers: Servers) -> None:
    new = "the next % password"
    stage = start(num_init_children="1")
    session = stage.connect()
    try:
        servers.primary.alter_password(APP_ROLE, new)
        stage.pod.write_user(APP_ROLE, new)
        tree = render(read_desired(stage.pod.run_dir, {}, datetime.now(UTC)).resolved.model)
        publish(tree, stage.pod.run_dir)
        stage.pcp.reload()
        wait_until(lambda: stage.pcp.parameters()[MARKER] == marker(tree), timeout=30, failure=lambda: stage.pgpool.log)
        until = monotonic() + 0.5
        while monotonic() < until:  # pgpool heeds the reload after one of them
            session.execute("SELECT 1")
        session.close()

        stage.pgpool.connect(APP_ROLE, new, "app").close()
    finally:
        servers.primary.alter_password(APP_ROLE, APP_PASSWORD)


def test_a_reload_without_pool_passwd_ends_no_session(start: Start) -> None:
    stage = start(num_init_children="1")
    session = stage.connect()
    passwords = next(stage.pod.run_dir.rglob("pool_passwd"))
    passwords.chmod(0o000)
    try:
        stage.pcp.reload()
        until = monotonic() + 2
        while monotonic() < until and "the former one stays in use" not in stage.pgpool.log:
            session.execute("SELECT 1")
    finally:
        passwords.chmod(0o600)
    session.execute("SELECT 1")
    assert "the former one stays in use" in stage.pgpool.log
    session.close()
    stage.write()
