"""What image/patches changes in pgpool, on the build under test: a primary, its standby, and only pgpool."""

import os
import re
import select
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple, Protocol, TypeVar

import psycopg
import pytest
from psycopg import pq

from entrypoint.publish import publish
from entrypoint.render import MARKER, render
from sidecar.desired import read_desired
from sidecar.generation import marker
from sidecar.pcp import Pcp, PcpError
from sidecar.table import TableReader
from support import proc
from support.certificates import Authority
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import SUPERUSER, SUPERUSER_PASSWORD, PostgresServer

T = TypeVar("T")

STANDBY, PRIMARY, UNDEFINED = 0, 1, 127
"""Node ids. The standby comes first: without a primary, it is what an unpatched pgpool sends writes to."""

# 12 and 13 only make pgpool faster: tests/bench.
PROVED = "01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27"
READ_ONLY = "in a read-only transaction"
NO_PRIMARY = "set new primary node: -1"
SEARCHES = "waiting for finding a primary node"


@pytest.fixture(scope="module", autouse=True)
def _patched(pgpool_bin: Path) -> None:
    """A pgpool without the patches is one that was asked for."""
    answer = subprocess.run([pgpool_bin / "pgpool", "--version"], capture_output=True, text=True, check=True)
    build_info = pgpool_bin.parent / "BUILD-INFO"
    if build_info.exists() and "patches none" in build_info.read_text().splitlines():
        pytest.skip("built with PGPOOL_PATCHES=none")
    assert f"patches: {PROVED}" in answer.stdout + answer.stderr, "build it with image/build-pgpool"


class Servers(NamedTuple):
    """What is behind pgpool; a test may stop them."""

    standby: PostgresServer
    primary: PostgresServer


@pytest.fixture(scope="module")
def both(postgres_bin: Path, postgres_template: Path) -> Iterator[Servers]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")))
        primary = PostgresServer(directory / "primary", postgres_bin, template=postgres_template)
        stack.enter_context(primary)
        primary.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
        primary.create_role(APP_ROLE, APP_PASSWORD)
        primary.create_database("app", owner=APP_ROLE)
        standby = PostgresServer(directory / "standby", postgres_bin)
        standby.directory.mkdir()
        source = f"host={primary.host} port={primary.port} user={SUPERUSER}"
        subprocess.run(
            [postgres_bin / "pg_basebackup", "-D", standby.data, "-R", "-c", "fast", "--no-sync", "-d", source],
            env={"PGPASSWORD": SUPERUSER_PASSWORD, "PATH": "/usr/bin:/bin"},
            check=True,
        )
        stack.enter_context(standby)
        primary.sql("CREATE TABLE written (by int)", dbname="app")
        primary.sql("GRANT ALL ON written TO app", dbname="app")
        yield Servers(standby, primary)


@pytest.fixture
def servers(both: Servers) -> Servers:
    """Both run, whatever the test before has done."""
    for server in both:
        try:
            server.sql("SELECT 1")
        except psycopg.OperationalError:
            server.stop()
            server.start()
    wait_until(lambda: streams(both), timeout=30, failure=lambda: both.standby.log)
    return both


def streams(servers: Servers) -> bool:
    return bool(servers.primary.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))


class Stage:
    """A pgpool in front of both, told what to do by PCP."""

    def __init__(self, pod: Pod, pgpool: Pgpool, pcp: Pcp, table: TableReader) -> None:
        self.pod, self.pgpool, self.pcp, self.table = pod, pgpool, pcp, table
        self.sessions: list[psycopg.Connection] = []

    def connect(self) -> psycopg.Connection:
        """A session, for whoever closes it, or until the test's end."""
        session = self.pgpool.connect(APP_ROLE, APP_PASSWORD, "app", connect_timeout=60)
        self.sessions.append(session)
        return session

    def close(self) -> None:
        self.table.close()
        for session in self.sessions:
            session.close()

    def write(self) -> None:
        """Log in and write."""
        with self.connect() as session:
            session.execute("INSERT INTO written VALUES (1)")

    def write_named(self) -> None:
        """The same with an application_name, which a login on connections from the pool tells all nodes."""
        named = self.pgpool.connect(APP_ROLE, APP_PASSWORD, "app", connect_timeout=60, application_name="n8n")
        with named as session:
            session.execute("INSERT INTO written VALUES (7)")

    def until_told(self, command: Callable[[int], None], node_id: int) -> None:
        """Run a PCP command; PCP is away for a moment after each failover."""

        def told() -> bool:
            try:
                command(node_id)
            except PcpError as error:
                if not error.away:
                    raise
                return False
            return True

        wait_until(told, timeout=30, failure=lambda: self.pgpool.log)

    def look_again(self) -> None:
        """Have pgpool look for the primary, by a node that it does not know."""
        looked = self.pgpool.log.count("Failback done")
        with suppress(PcpError):  # refused when it was never attached
            self.pcp.detach(UNDEFINED)
        self.until_told(self.pcp.attach, UNDEFINED)
        self.wait_for_lines("Failback done", looked + 1)

    def status(self, node_id: int) -> str | None:
        try:
            return self.pcp.nodes()[node_id].status_name
        except PcpError as error:
            if not error.away:
                raise
            return None

    def wait_for_lines(self, text: str, count: int) -> list[datetime]:
        """When pgpool logged a text, so many times at least."""

        def times() -> list[datetime]:
            lines = re.findall(rf"^([-0-9]+ [:.0-9]+): .*{re.escape(text)}", self.pgpool.log, re.MULTILINE)
            return [datetime.fromisoformat(line) for line in lines] if len(lines) >= count else []

        return wait_until(times, timeout=30, failure=lambda: f"{text!r} {count} times:\n{self.pgpool.log}")

    def lose_primary(self, servers: Servers) -> None:
        """Crash the primary, and have pgpool notice by a login."""
        servers.primary.stop("immediate")
        with suppress(psycopg.OperationalError):
            self.pgpool.connect(APP_ROLE, APP_PASSWORD, "app", connect_timeout=2)
        self.pgpool.wait_until_logged(f"shutdown host {servers.primary.host}({servers.primary.port})")


class Start(Protocol):
    """Starts a pgpool with parameters of pgpool.conf; with TLS on both sides, or with the primary as node 0."""

    def __call__(self, *, tls: bool = False, primary_first: bool = False, **parameters: str) -> Stage: ...


@pytest.fixture
def start(servers: Servers, new_pod: NewPod) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(*, tls: bool = False, primary_first: bool = False, **parameters: str) -> Stage:
            pod = new_pod(servers.primary)
            if tls:
                pod.environment["PGPOOL_TLS_DIR"] = str(Authority().issue().write(pod.directory / "tls"))
            nodes = zip(("standby", "primary"), servers, strict=True)
            backends = [f"{name}={node.host}:{node.port}" for name, node in nodes]
            pod.environment["PGPOOL_BACKENDS"] = ",".join(reversed(backends) if primary_first else backends)
            parameters = {"num_init_children": "4", **parameters}
            pod.environment |= {f"PGPOOL_PARAMS_{name.upper()}": value for name, value in parameters.items()}
            pgpool = stack.enter_context(pod.pgpool())
            pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
            stage = Stage(pod, pgpool, pod.pcp(), TableReader(pod.pcp_address))
            stack.callback(stage.close)
            return stage

        yield begin


def at_once(function: Callable[[], T]) -> Future[T]:
    """A call in a thread of its own, which need not end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def is_held(call: Future[T]) -> bool:
    """Whether a call does not come back within the time in which pgpool answers many times."""
    return not wait([call], timeout=1.5).done


def test_the_primary_is_looked_for_many_times_within_a_few_seconds(start: Start, servers: Servers) -> None:
    stage = start(log_min_messages="debug1")
    stage.lose_primary(servers)

    rounds = stage.wait_for_lines("find_primary_node: standby node is", 12)

    assert (rounds[-1] - rounds[1]).total_seconds() < 5  # one at the start; then one each second, unpatched


def searching(server: PostgresServer) -> set[int]:
    """The server processes that answer the check role's sessions."""
    rows = server.sql(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'sr_check' AND query LIKE '%pg_is_in_recovery%'"
    )
    return {int(str(pid)) for (pid,) in rows}


def test_the_primary_is_looked_for_by_the_same_connections_until_they_end(start: Start, servers: Servers) -> None:
    stage = start(health_check_period="0", sr_check_period="0")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged("find_primary_node: standby node is")
    [asked] = wait_until(lambda: searching(servers.standby), timeout=10, failure=lambda: stage.pgpool.log)
    sleep(1)
    assert searching(servers.standby) == {asked}

    os.kill(asked, signal.SIGTERM)

    wait_until(lambda: searching(servers.standby) - {asked}, timeout=10, failure=lambda: stage.pgpool.log)


def test_a_search_goes_on_when_a_node_falls_silent(start: Start, servers: Servers) -> None:
    stage = start(health_check_period="0", sr_check_period="0", connect_timeout="1000")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged("find_primary_node: standby node is")
    [asked] = wait_until(lambda: searching(servers.standby), timeout=10, failure=lambda: stage.pgpool.log)
    with proc.frozen(asked):
        wait_until(lambda: searching(servers.standby) - {asked}, timeout=20, failure=lambda: stage.pgpool.log)


def test_a_statement_does_not_wait_longer_than_a_failover(start: Start) -> None:
    stage = start()
    slowest: list[float] = []
    with stage.connect() as session:
        for _ in range(3):
            looking = at_once(stage.look_again)
            latencies = []
            while not looking.done():
                begin = monotonic()
                session.execute("SELECT 1")
                latencies.append(monotonic() - begin)
            looking.result()
            slowest.append(max(latencies))

    assert min(slowest) < 0.8, slowest  # at least one sleep of 1 s, unpatched


def test_a_search_ends_with_the_attach_of_the_primary_that_pgpool_had_given_up(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="600")
    stage.lose_primary(servers)
    write = at_once(stage.write)
    servers.primary.start()

    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=30)
    assert "failed to find primary node" not in stage.pgpool.log


def test_the_attach_that_ends_a_search_ends_no_child_that_was_started_for_it(start: Start, servers: Servers) -> None:
    stage = start(primary_first=True, search_primary_node_timeout="600", log_min_messages="debug1")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(SEARCHES)
    children = proc.children(stage.pgpool.pid)
    write = at_once(stage.write)
    servers.primary.start()

    stage.until_told(stage.pcp.attach, 0)

    write.result(timeout=30)
    ended = {int(pid) for pid in re.findall(r"kill process with PID:(\d+)", stage.pgpool.log)}
    assert ended
    assert ended <= set(children)


def test_a_search_goes_on_when_a_node_is_attached_that_is_there_already(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="600", log_min_messages="debug1")
    stage.lose_primary(servers)

    stage.until_told(stage.pcp.attach, STANDBY)

    stage.wait_for_lines("received failback request for node_id: 0", 1)
    rounds = stage.pgpool.log.count("find_primary_node: standby node is")
    stage.wait_for_lines("find_primary_node: standby node is", rounds + 5)
    assert NO_PRIMARY not in stage.pgpool.log


def test_new_clients_are_held_while_there_is_no_primary_and_served_when_there_is(
    start: Start, servers: Servers
) -> None:
    stage = start(search_primary_node_timeout="1")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(NO_PRIMARY)
    writes = [at_once(stage.write) for _ in range(3)]

    assert all(is_held(write) for write in writes), stage.pgpool.log
    wait_until(lambda: stage.status(PRIMARY) == "down", timeout=10, failure=lambda: stage.pgpool.log)  # PCP is not held
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)

    for write in writes:
        write.result(timeout=30)


def test_clients_who_come_during_a_search_in_vain_are_held_after_it(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="1")
    stage.lose_primary(servers)
    writes = [at_once(stage.write) for _ in range(3)]
    stage.pgpool.wait_until_logged(NO_PRIMARY)

    assert all(is_held(write) for write in writes), stage.pgpool.log
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)

    for write in writes:
        write.result(timeout=30)


def test_new_clients_are_held_while_all_nodes_are_down(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="1")
    servers.standby.stop("immediate")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(NO_PRIMARY)
    write = at_once(stage.write)

    assert is_held(write), stage.pgpool.log
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=30)


def test_clients_are_held_when_pgpool_starts_before_there_is_a_primary(start: Start, servers: Servers) -> None:
    stage = start()
    stage.pgpool.stop()
    servers.primary.stop("immediate")
    stage.pgpool.start()
    stage.wait_for_lines(SEARCHES, 2)
    write = at_once(stage.write)

    assert is_held(write), stage.pgpool.log
    servers.primary.start()

    write.result(timeout=30)


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


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_pgpool_stops_while_it_holds_clients(start: Start, servers: Servers, how: str) -> None:
    stage = start(search_primary_node_timeout="1")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(NO_PRIMARY)
    write = at_once(stage.write)
    assert is_held(write), stage.pgpool.log

    stage.pgpool.stop(signal.Signals[how], timeout=20)

    with pytest.raises(psycopg.OperationalError):
        write.result(timeout=10)


def test_in_another_mode_nobody_waits_for_a_primary(start: Start, servers: Servers) -> None:
    servers.primary.stop("immediate")

    stage = start(backend_clustering_mode="raw")

    assert stage.pgpool.can_log_in(APP_ROLE, APP_PASSWORD, "app")


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


def test_pgpool_goes_on_at_once_after_a_failover(start: Start) -> None:
    stage = start()
    for command in (stage.pcp.detach, stage.pcp.attach) * 2:
        restarts = stage.pgpool.log.count("fork a new PCP child")
        stage.until_told(command, STANDBY)
        stage.wait_for_lines("fork a new PCP child", restarts + 1)

    ended = stage.wait_for_lines("done. ", 4)
    restarted = stage.wait_for_lines("restart request received in pcp child process", 4)
    pauses = [(after - before).total_seconds() for before, after in zip(ended, restarted, strict=True)]
    assert min(pauses) < 0.9, pauses  # 1 s and more, unpatched


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_sessions_survive_the_end_of_a_standby(start: Start, servers: Servers, mode: str) -> None:
    stage = start()
    sessions = [stage.connect() for _ in range(3)]

    servers.standby.stop(mode)

    for session in sessions:
        at_once(partial(session.execute, "INSERT INTO written VALUES (4)")).result(timeout=20)


def test_the_table_is_read_without_a_line_in_the_log(start: Start) -> None:
    stage = start()
    before = stage.pgpool.log

    for _ in range(3):
        assert [row.status for row in stage.table.read()] == ["up", "up"]

    assert "status_changed_time" not in stage.pgpool.log.removeprefix(before)  # a line for each node, unpatched


def test_a_session_goes_on_without_a_standby_that_is_detached_before_it_answers(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    rows = servers.standby.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'")
    [pid] = [int(str(pid)) for (pid,) in rows]
    with proc.frozen(pid):
        write = at_once(lambda: session.execute("INSERT INTO written VALUES (%s)", [5]))
        assert is_held(write), stage.pgpool.log

        stage.until_told(stage.pcp.detach, STANDBY)

        write.result(timeout=20)
        session.execute("INSERT INTO written VALUES (6)")


def test_a_session_goes_on_without_a_standby_that_says_good_bye_for_an_answer(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    rows = servers.standby.sql("SELECT pid FROM pg_stat_activity WHERE usename = 'app'")
    [pid] = [int(str(pid)) for (pid,) in rows]
    with proc.frozen(pid):
        write = at_once(lambda: session.execute("INSERT INTO written VALUES (%s)", [5]))
        assert is_held(write), stage.pgpool.log

        os.kill(pid, signal.SIGTERM)

    write.result(timeout=20)
    session.execute("INSERT INTO written VALUES (6)")


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


def test_the_login_that_finds_the_primary_gone_is_held(start: Start, servers: Servers) -> None:
    stage = start()
    servers.primary.stop("immediate")

    write = at_once(stage.write)

    stage.pgpool.wait_until_logged(f"shutdown host {servers.primary.host}({servers.primary.port})")
    assert is_held(write), stage.pgpool.log
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)
    write.result(timeout=30)


def test_a_login_that_a_failover_overtakes_is_refused_after_30_s(start: Start, servers: Servers) -> None:
    stage = start(primary_first=True, search_primary_node_timeout="600")
    login = pq.PGconn.connect_start(stage.pgpool.conninfo(APP_ROLE, APP_PASSWORD, "app").encode())

    def is_accepted() -> bool:
        return any(
            proc.cmdline(pid).startswith(b"pgpool: accept connection") for pid in proc.children(stage.pgpool.pid)
        )

    wait_until(is_accepted, timeout=10, failure=lambda: stage.pgpool.log)
    stage.lose_primary(servers)
    stage.wait_for_lines(SEARCHES, 2)
    begin = monotonic()

    refusal = at_once(partial(come_to_an_end, login)).result(timeout=90)

    assert "no primary node is known" in refusal, stage.pgpool.log
    assert 25 < monotonic() - begin < 45


def come_to_an_end(login: pq.abc.PGconn) -> str:
    """Go on with a login that libpq has begun, and tell how that ends."""
    while (status := login.connect_poll()) not in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
        reading = status == pq.PollingStatus.READING
        select.select([login.socket] if reading else [], [] if reading else [login.socket], [])
    return login.error_message.decode()


def test_a_login_that_the_primary_refuses_while_it_shuts_down_is_held(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    os.kill(servers.primary.pid, signal.SIGTERM)  # it lets nobody in, and waits for this session
    wait_until(lambda: not lets_in(servers.primary), timeout=10, failure=lambda: servers.primary.log)

    write = at_once(stage.write)

    assert is_held(write), stage.pgpool.log
    session.execute("INSERT INTO written VALUES (1)")
    servers.primary.restart()
    with suppress(PcpError):  # nobody needed to notice
        stage.until_told(stage.pcp.attach, PRIMARY)
    write.result(timeout=30)


def test_a_login_that_the_primary_ends_after_letting_it_in_is_tried_again(start: Start, servers: Servers) -> None:
    stage = start()

    def starting() -> int | None:
        titles = {pid: proc.cmdline(pid) for pid in proc.children(servers.primary.pid)}
        return next((pid for pid, title in titles.items() if re.match(rb"postgres: app app .* startup", title)), None)

    with servers.primary.connect() as admin, admin.transaction():
        admin.execute(
            "LOCK pg_database IN ACCESS EXCLUSIVE MODE"
        )  # the password is accepted, the database not yet found
        write = at_once(stage.write)
        pid = wait_until(starting, timeout=10, failure=lambda: stage.pgpool.log)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: proc.stat(pid) is None, timeout=10, failure=lambda: servers.primary.log)

    write.result(timeout=30)
    assert "lets nobody in at this moment" in stage.pgpool.log


def test_a_login_whose_primary_hangs_up_before_a_word_is_tried_again(start: Start, servers: Servers) -> None:
    stage = start(tls=True, connect_timeout="20000")
    with proc.frozen(servers.standby.pid):  # it has connections to both, and speaks to the standby first
        os.kill(servers.primary.pid, signal.SIGSTOP)
        write = at_once(stage.write)
        assert is_held(write), stage.pgpool.log
        os.kill(servers.primary.pid, signal.SIGKILL)
    servers.primary.restart("immediate")
    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=30)


def test_a_login_goes_on_without_a_standby_that_shuts_down(start: Start, servers: Servers) -> None:
    stage = start()
    session = stage.connect()
    os.kill(servers.standby.pid, signal.SIGTERM)
    wait_until(lambda: not lets_in(servers.standby), timeout=10, failure=lambda: servers.standby.log)

    stage.write()

    session.execute("INSERT INTO written VALUES (1)")
    assert not lets_in(servers.standby)


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
    start: Start, servers: Servers, change: str, back: str, words: str
) -> None:
    stage = start(max_pool="1")
    servers.primary.sql(change)
    try:
        with pytest.raises(psycopg.OperationalError, match=words):
            stage.connect()
    finally:
        servers.primary.sql(back)


def test_a_login_goes_on_without_a_standby_that_has_no_connection_left(start: Start, servers: Servers) -> None:
    stage = start()
    with ExitStack() as others:

        def take_all() -> None:
            while True:
                others.enter_context(servers.standby.connect(APP_ROLE, APP_PASSWORD))

        with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
            take_all()
        stage.write()
    assert stage.status(STANDBY) == "up"


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


def lets_in(server: PostgresServer) -> bool:
    try:
        server.sql("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


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
