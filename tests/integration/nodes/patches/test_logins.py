"""Logins, when a node is gone, silent, slow, full or going."""

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from time import monotonic

import psycopg
import pytest

from support import proc
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE
from support.postgres import PostgresServer
from support.two_nodes import PRIMARY, STANDBY, Servers, Start, at_once, is_held, lets_in


def test_a_login_finds_its_pooled_connections_cut_and_goes_on_at_once(start: Start, servers: Servers) -> None:
    stage = start(num_init_children="1")
    latencies = []
    for _ in range(3):
        stage.connect().close()
        servers.primary.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'app'")
        begin = monotonic()
        stage.connect().close()
        latencies.append(monotonic() - begin)

    assert stage.pgpool.log.count("retry to create new connection pool") == 3
    assert min(latencies) < 0.9, latencies  # 1 s and more, unpatched


def test_a_login_does_without_a_standby_that_is_gone_and_detaches_it(start: Start, servers: Servers) -> None:
    stage = start()
    servers.standby.stop()

    stage.write()

    wait_until(lambda: stage.status(STANDBY) == "down", timeout=10, failure=lambda: stage.pgpool.log)


def test_a_login_waits_for_a_silent_standby_no_longer_than_connect_timeout(start: Start, servers: Servers) -> None:
    stage = start(connect_timeout="500")
    kept = stage.connect()
    servers.standby.stop()
    with silent(servers.standby):
        at_once(stage.write).result(timeout=30)  # over two minutes, unpatched

    kept.execute("INSERT INTO written VALUES (3)")
    wait_until(lambda: stage.status(STANDBY) == "down", timeout=10, failure=lambda: stage.pgpool.log)


@contextmanager
def silent(server: PostgresServer) -> Iterator[None]:
    """Something in the place of a server that is stopped, which drops what arrives."""
    with ExitStack() as stack:
        hole = stack.enter_context(socket.create_server((server.host, server.port), backlog=0))
        for _ in range(3):  # a listener whose queue is full drops what else arrives
            client = stack.enter_context(socket.socket())
            client.settimeout(0)
            client.connect_ex(hole.getsockname())
        yield


def test_a_login_leaves_a_silent_primary_when_that_is_detached(start: Start, servers: Servers) -> None:
    stage = start(num_init_children="1", connect_timeout="500")
    servers.primary.stop("immediate")
    with silent(servers.primary):
        write = at_once(stage.write)
        assert is_held(write), stage.pgpool.log
        stage.until_told(stage.pcp.detach, PRIMARY)
        wait([write], timeout=6.5)  # the kernel has tried again after 1, 3 and 7 s; it will after 15 and 31
        assert not write.done(), stage.pgpool.log
    servers.primary.start()

    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=5)


@pytest.mark.parametrize("tls", [False, True])
def test_a_login_leaves_a_primary_that_does_not_answer_when_that_is_detached(
    start: Start, servers: Servers, *, tls: bool
) -> None:
    stage = start(num_init_children="1", tls=tls)
    with proc.frozen(servers.primary.pid):
        write = at_once(stage.write)
        assert is_held(write), stage.pgpool.log
        stage.until_told(stage.pcp.detach, PRIMARY)
        assert is_held(write), stage.pgpool.log
    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=20)


def test_a_login_waits_for_a_primary_that_does_not_answer_for_30_s(start: Start, servers: Servers) -> None:
    stage = start()
    with proc.frozen(servers.primary.pid):
        begin = monotonic()
        with pytest.raises(psycopg.OperationalError, match="does not answer"):
            at_once(stage.write).result(timeout=45)
        assert monotonic() - begin > 25
    stage.write()


def test_a_login_on_pooled_connections_ends_with_the_primary_that_does_not_answer(
    start: Start, servers: Servers
) -> None:
    stage = start(num_init_children="1")
    log_in = partial(
        stage.pgpool.connect, APP_ROLE, APP_PASSWORD, "app", connect_timeout=60, application_name="n8n"
    )  # the name is told to all nodes
    log_in().close()
    [[pid]] = servers.primary.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'")
    with proc.frozen(pid):
        login = at_once(log_in)
        assert is_held(login), stage.pgpool.log

        stage.until_told(stage.pcp.detach, PRIMARY)

        with pytest.raises(psycopg.OperationalError):
            login.result(timeout=10)


@contextmanager
def silent_after_agreeing_to_tls(server: PostgresServer) -> Iterator[None]:
    """In place of a server, what says yes to TLS and then nothing at all."""
    over = threading.Event()
    server.stop()
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((server.host, server.port)))
        listener.settimeout(0.1)

        def agree() -> None:
            while not over.is_set():
                with suppress(TimeoutError):
                    client, _ = listener.accept()
                    stack.enter_context(client).sendall(b"S")

        agreeing = at_once(agree)
        try:
            yield
        finally:
            over.set()
            agreeing.result(timeout=10)
    server.start()


def test_a_login_waits_for_the_handshake_of_a_standby_no_longer_than_10_s(start: Start, servers: Servers) -> None:
    stage = start(tls=True)
    with silent_after_agreeing_to_tls(servers.standby):
        at_once(stage.write).result(timeout=40)


def test_a_login_waits_for_a_standby_that_does_not_answer_no_longer_than_connect_timeout(
    start: Start, servers: Servers
) -> None:
    stage = start(connect_timeout="500")
    with proc.frozen(servers.standby.pid):
        at_once(stage.write).result(timeout=20)  # for ever, unpatched

    wait_until(lambda: stage.status(STANDBY) == "down", timeout=10, failure=lambda: stage.pgpool.log)


def test_a_login_does_not_detach_a_standby_that_is_slow_to_let_it_in(start: Start, servers: Servers) -> None:
    stage = start(connect_timeout="500")
    locks = "SELECT 1 FROM pg_locks WHERE relation = 'pg_database'::regclass AND mode = 'AccessExclusiveLock'"
    with servers.standby.connect() as watcher, servers.primary.connect() as admin, admin.transaction():
        admin.execute("LOCK pg_database IN ACCESS EXCLUSIVE MODE")
        admin.execute("SELECT pg_switch_wal()")  # the lock is sent at once
        wait_until(lambda: watcher.execute(locks).fetchall(), timeout=10, failure=lambda: servers.standby.log)
        write = at_once(stage.write)
        assert is_held(write), stage.pgpool.log

    write.result(timeout=30)
    assert stage.status(STANDBY) == "up"


def test_a_login_goes_on_without_a_standby_that_is_detached_before_it_answers(start: Start, servers: Servers) -> None:
    stage = start(num_init_children="1")

    def pooled() -> list[int]:
        rows = servers.standby.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app' AND state = 'idle'")
        return [int(str(pid)) for (pid,) in rows]

    stage.write_named()
    wait_until(lambda: bool(pooled()), timeout=10, failure=lambda: stage.pgpool.log)
    [pid] = pooled()
    with proc.frozen(pid):
        write = at_once(stage.write_named)
        assert is_held(write), stage.pgpool.log

        stage.until_told(stage.pcp.detach, STANDBY)

        write.result(timeout=20)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_login_whose_connection_from_the_pool_ends_connects_anew(
    start: Start, servers: Servers, how: signal.Signals
) -> None:
    stage = start(num_init_children="1")
    stage.write_named()
    query = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'"
    [(pid,)] = servers.primary.sql(query)
    with proc.frozen(int(str(pid))):
        write = at_once(stage.write_named)
        assert is_held(write), stage.pgpool.log
        os.kill(int(str(pid)), how)

    write.result(timeout=20)

    assert servers.primary.sql(query) != [(pid,)]


def test_a_login_that_a_failover_overtakes_trusts_no_connection_from_the_pool(start: Start, servers: Servers) -> None:
    stage = start(primary_first=True, num_init_children="1")
    stage.write_named()
    query = "SELECT pid FROM pg_stat_activity WHERE usename = 'app'"
    [(pid,)], [(pid_of_standby,)] = servers.primary.sql(query), servers.standby.sql(query)
    with proc.frozen(int(str(pid_of_standby))):
        write = at_once(stage.write_named)
        assert is_held(write), stage.pgpool.log
        servers.primary.sql("SELECT pg_terminate_backend(%s)", [pid])
        stage.until_told(stage.pcp.detach, 0)
        stage.pgpool.wait_until_logged(f"shutdown host {servers.primary.host}({servers.primary.port})")

    assert is_held(write), stage.pgpool.log
    stage.until_told(stage.pcp.attach, 0)

    write.result(timeout=30)


@pytest.mark.parametrize("tls", [False, True])
def test_a_login_goes_on_without_a_standby_that_shuts_down(start: Start, servers: Servers, *, tls: bool) -> None:
    stage = start(tls=tls)
    session = stage.connect()
    os.kill(servers.standby.pid, signal.SIGTERM)
    wait_until(lambda: not lets_in(servers.standby), timeout=10, failure=lambda: servers.standby.log)

    stage.write()

    session.execute("INSERT INTO written VALUES (1)")
    assert not lets_in(servers.standby)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize(
    ("change", "back", "words"),
    [
        (
            "ALTER ROLE app CONNECTION LIMIT 0",
            "ALTER ROLE app CONNECTION LIMIT -1",
            'too many connections for role "app"',
        ),
        ("ALTER ROLE app NOLOGIN", "ALTER ROLE app LOGIN", 'role "app" is not permitted to log in'),
        (
            "REVOKE CONNECT ON DATABASE app FROM app, PUBLIC",
            "GRANT CONNECT ON DATABASE app TO app, PUBLIC",
            'permission denied for database "app"',
        ),
        ("ALTER DATABASE app RENAME TO other", "ALTER DATABASE other RENAME TO app", 'database "app" does not exist'),
    ],
)
def test_a_login_is_told_why_the_primary_refuses_the_session(
    start: Start, servers: Servers, change: str, back: str, words: str, *, tls: bool
) -> None:
    stage = start(max_pool="1", tls=tls)
    servers.primary.sql(change)
    try:
        with pytest.raises(psycopg.OperationalError, match=words):
            stage.connect()
    finally:
        servers.primary.sql(back)


@pytest.mark.parametrize("tls", [False, True])
def test_a_login_goes_on_without_a_standby_that_has_no_connection_left(
    start: Start, servers: Servers, *, tls: bool
) -> None:
    stage = start(tls=tls)
    with ExitStack() as others:

        def take_all() -> None:
            while True:
                others.enter_context(servers.standby.connect(APP_ROLE, APP_PASSWORD))

        with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
            take_all()
        stage.write()
    assert stage.status(STANDBY) == "up"
