"""What the observer says of real servers: primaries, standbys, and those that are in trouble."""

import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from entrypoint.backends import Backend
from entrypoint.secret import Secret
from sidecar.cluster import Observer
from sidecar.member import Reach, Sql
from sidecar.standing import Credentials, Standing
from support import proc
from support.certificates import Authority
from support.deadline import wait_until
from support.pod import CHECK_PASSWORD, CHECK_ROLE
from support.ports import free_port
from support.postgres import HBA, NewServer, PostgresServer

REPLICATOR, REPLICATOR_PASSWORD = "replicator", "the 100% replicator's password"
OTHER_PASSWORD = "another % password"
SOON = 1.5
"""Seconds within which everything is to be noticed: a question's second, and a quarter until it is asked."""


def credentials(role: str = CHECK_ROLE, password: str = CHECK_PASSWORD) -> Credentials:
    return role, Secret(password), "postgres"


def backend(server: PostgresServer, name: str = "node-1") -> Backend:
    return Backend(name=name, host=server.host, port=server.port)


@pytest.fixture
def server(new_server: NewServer) -> PostgresServer:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    return server


@pytest.fixture
def standby(server: PostgresServer, postgres_bin: Path) -> Iterator[PostgresServer]:
    """Streams from `server`, as `node-2`."""
    server.create_role(REPLICATOR, REPLICATOR_PASSWORD)
    server.sql(f"ALTER ROLE {REPLICATOR} REPLICATION")
    with tempfile.TemporaryDirectory(prefix="pg-") as name:
        standby = PostgresServer(Path(name), postgres_bin)
        standby.directory.joinpath("passfile").write_text(f"*:*:*:*:{REPLICATOR_PASSWORD}\n")
        standby.directory.joinpath("passfile").chmod(0o600)
        upstream = f"host={server.host} port={server.port} user={REPLICATOR} passfile={name}/passfile"
        command: list[str | Path] = [postgres_bin / "pg_basebackup", "-d", upstream, "-D", standby.data]
        subprocess.run([*command, "--checkpoint=fast", "--no-sync"], check=True, capture_output=True)
        (standby.data / "standby.signal").touch()
        (standby.data / "postgresql.auto.conf").write_text(
            f"primary_conninfo = '{upstream} application_name=node-2'\nwal_retrieve_retry_interval = '100ms'\n"
        )
        with standby:
            yield standby


@dataclass
class Watched:
    """An observer at work, and what it said."""

    observer: Observer
    woken: list[float] = field(default_factory=list)

    def sql(self, node: int = 0) -> Sql | None:
        return self.observer.members()[node].sql

    def wait(self, condition: Callable[[Sql], bool], node: int = 0, *, timeout: float = SOON) -> Sql:
        return wait_until(
            lambda: said if (said := self.sql(node)) and condition(said) else None,
            timeout=timeout,
            failure=lambda: str(self.observer.members()),
        )

    def wait_for(self, reach: Reach, node: int = 0, *, timeout: float = SOON) -> Sql:
        return self.wait(lambda said: said.reach is reach, node, timeout=timeout)

    def wait_for_questions(self, count: int, node: int = 0) -> None:
        """Until so many more have been answered."""
        seen: list[float] = []

        def enough(said: Sql) -> bool:
            seen.append(said.asked)
            return len(set(seen)) > count

        self.wait(enough, node, timeout=count + 5)


@contextmanager
def watching(
    *backends: Backend, login: Callable[[], Credentials | None] = credentials, patroni: Sequence[str] = ()
) -> Iterator[Watched]:
    woken: list[float] = []
    failures: list[Exception] = []
    observer = Observer(backends, login, patroni, wake=lambda: woken.append(time.monotonic()), failed=failures.append)
    watched = Watched(observer, woken)
    observer.start()
    try:
        yield watched
    finally:
        observer.stop()
    assert not failures


def test_primary_and_standby_say_what_they_are_and_who_streams(server: PostgresServer, standby: PostgresServer) -> None:
    with watching(backend(server), backend(standby, "node-2")) as watched:
        primary = watched.wait(lambda said: said.streaming == frozenset({"node-2"}), timeout=10)
        other = watched.wait(lambda said: said.receiving is True, 1, timeout=10)
        first, second = watched.observer.members()
    assert (primary.in_recovery, primary.timeline, primary.receiving) == (False, 1, None)
    assert (other.in_recovery, other.timeline, other.streaming) == (True, 1, None)
    assert [(each.node_id, each.name, each.rest) for each in (first, second)] == [
        (0, "node-1", None),
        (1, "node-2", None),
    ]


def test_a_promotion_is_noticed_with_its_timeline(server: PostgresServer, standby: PostgresServer) -> None:
    with watching(backend(server), backend(standby, "node-2")) as watched:
        watched.wait(lambda said: said.receiving is True, 1, timeout=10)
        watched.woken.clear()
        standby.sql("SELECT pg_promote()")
        promoted = watched.wait(lambda said: said.in_recovery is False, 1)
        assert (promoted.timeline, promoted.streaming) == (2, frozenset())
        assert watched.wait(lambda said: said.streaming == frozenset()).timeline == 1, "nobody stopped it"
        assert watched.woken


def test_a_standby_whose_primary_is_away_receives_nothing(server: PostgresServer, standby: PostgresServer) -> None:
    with watching(backend(server), backend(standby, "node-2")) as watched:
        watched.wait(lambda said: said.receiving is True, 1, timeout=10)
        server.stop()
        assert watched.wait(lambda said: said.receiving is False, 1).in_recovery
        server.start()
        watched.wait(lambda said: said.receiving is True, 1, timeout=10)


def test_a_role_that_may_not_know_does_not_take_that_for_nobody(
    server: PostgresServer, standby: PostgresServer
) -> None:
    server.sql(f"REVOKE pg_monitor FROM {CHECK_ROLE}")
    with watching(backend(server), backend(standby, "node-2")) as watched:
        primary = watched.wait_for(Reach.ANSWERED)
        other = watched.wait(lambda said: said.reach is Reach.ANSWERED and said.receiving is None, 1, timeout=10)
    assert (primary.in_recovery, primary.timeline, primary.streaming) == (False, 1, None)
    assert (other.in_recovery, other.timeline, other.receiving) == (True, 1, None)


def test_a_crash_and_a_restart_are_noticed_at_once(server: PostgresServer) -> None:
    with watching(backend(server)) as watched:
        watched.wait_for(Reach.ANSWERED)
        server.stop("immediate")
        refused = watched.wait_for(Reach.REFUSED, timeout=0.9)
        assert (refused.in_recovery, refused.timeline, refused.streaming) == (None, None, None)
        watched.wait_for_questions(3)
        assert watched.wait_for(Reach.REFUSED).since == refused.since
        server.start()
        watched.wait_for(Reach.ANSWERED)


def test_a_frozen_server_is_noticed_and_delays_no_other(server: PostgresServer, new_server: NewServer) -> None:
    healthy = new_server()
    healthy.create_role(CHECK_ROLE, CHECK_PASSWORD)
    with watching(backend(server), backend(healthy, "node-2")) as watched:
        watched.wait_for(Reach.ANSWERED)
        watched.wait_for(Reach.ANSWERED, 1)
        with proc.frozen(server.pid, *proc.children(server.pid)):
            silent = watched.wait_for(Reach.SILENT)
            began = time.monotonic()
            watched.wait_for_questions(5, 1)
            assert time.monotonic() - began < 3
            # Neither does a login that hangs.
            watched.wait(lambda said: said.asked > silent.asked, timeout=3)
            assert watched.wait_for(Reach.SILENT).since == silent.since
        watched.wait_for(Reach.ANSWERED)
        assert server.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgpool-sidecar'") == [(1,)]


def test_an_administrator_who_ends_our_session_changes_nothing(server: PostgresServer) -> None:
    with watching(backend(server)) as watched:
        first = watched.wait_for(Reach.ANSWERED)
        watched.wait_for_questions(5)  # a login a second
        watched.woken.clear()
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgpool-sidecar'"
        assert server.sql(query) == [(True,)]
        watched.wait_for_questions(3)
        assert watched.wait_for(Reach.ANSWERED).since == first.since
        assert not watched.woken


def test_one_session_stands_on_each_server_and_ends_with_the_observer(server: PostgresServer) -> None:
    query = "SELECT usename, count(*) FROM pg_stat_activity WHERE application_name = 'pgpool-sidecar' GROUP BY usename"
    with watching(backend(server)) as watched:
        watched.wait_for(Reach.ANSWERED)
        watched.wait_for_questions(5)
        assert server.sql(query) == [(CHECK_ROLE, 1)]
        began = time.monotonic()
    assert time.monotonic() - began < 0.5
    wait_until(lambda: server.sql(query) == [], timeout=5, failure=lambda: str(server.sql(query)))


def test_a_rotated_password_disturbs_no_session_and_is_used_for_the_next_one(server: PostgresServer) -> None:
    given = [credentials()]
    with watching(backend(server), login=lambda: given[-1]) as watched:
        first = watched.wait_for(Reach.ANSWERED)
        server.alter_password(CHECK_ROLE, OTHER_PASSWORD)
        watched.wait_for_questions(3)
        assert watched.wait_for(Reach.ANSWERED).since == first.since
        server.restart()
        assert watched.wait_for(Reach.UNTOLD, timeout=5).reason == "28P01: wrong password"
        given.append(credentials(password=OTHER_PASSWORD))
        watched.wait_for(Reach.ANSWERED, timeout=3)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def asker(server: PostgresServer, clock: Clock, login: Callable[[], Credentials | None] = credentials) -> Standing:
    return Standing(backend(server), login, seconds=5.0, again=0.25, clock=clock)


def test_a_password_that_is_refused_is_tried_ever_more_rarely(server: PostgresServer) -> None:
    clock = Clock()
    given = credentials(password=OTHER_PASSWORD)
    standing = asker(server, clock, lambda: given)
    for _ in range(4 * 600):
        said = standing.ask()
        assert (said.reach, said.reason) == (Reach.UNTOLD, "28P01: wrong password")
        assert said.asked > clock.now - 1.0, "whether it is there is asked all the same"
        clock.now += 0.25
    assert 10 <= server.log.count("password authentication failed") < 60, "in ten minutes"
    given = credentials()
    clock.now += 1.0
    assert standing.ask().reach is Reach.ANSWERED, "others are tried at once"
    standing.close()


def test_a_server_that_is_lost_while_it_refuses_us_is_not_taken_for_there(server: PostgresServer) -> None:
    clock = Clock()
    standing = asker(server, clock, lambda: credentials(password=OTHER_PASSWORD))
    for _ in range(100):
        standing.ask()
        clock.now += 1.0
    server.stop()
    assert standing.ask().reach is Reach.REFUSED


def test_logins_are_tried_once_a_second_at_most(server: PostgresServer) -> None:
    clock = Clock()
    standing = asker(server, clock)
    server.sql(f"ALTER ROLE {CHECK_ROLE} CONNECTION LIMIT 0")
    for _ in range(41):
        said = standing.ask()
        assert (said.reach, said.reason) == (Reach.UNTOLD, "53300: too many connections")
        clock.now += 0.25
    assert server.log.count("too many connections for role") == 11
    server.sql(f"ALTER ROLE {CHECK_ROLE} CONNECTION LIMIT -1")
    clock.now += 1.0
    assert standing.ask().reach is Reach.ANSWERED
    standing.close()


def test_without_a_password_nobody_knocks(server: PostgresServer) -> None:
    clock = Clock()
    known: list[Credentials] = []
    standing = asker(server, clock, lambda: known[0] if known else None)
    assert (standing.ask().reach, standing.ask().reason) == (Reach.UNTOLD, "the password is not known")
    known.append(credentials())
    clock.now += 1.0
    assert standing.ask().reach is Reach.ANSWERED
    standing.close()


def test_a_dropped_role_makes_way_for_the_one_that_is_given_now(server: PostgresServer) -> None:
    clock = Clock()
    given = credentials("check a", "100% of a")
    server.create_role(*("check a", "100% of a"))
    standing = asker(server, clock, lambda: given)
    assert standing.ask().reach is Reach.ANSWERED
    given = credentials()
    server.sql('DROP ROLE "check a"')
    clock.now += 1.0
    assert standing.ask().reach is Reach.ANSWERED
    standing.close()


@pytest.mark.parametrize("rule", ["host all all all trust", "host all all all password"])
def test_no_server_is_told_the_password(server: PostgresServer, rule: str) -> None:
    (server.data / "pg_hba.conf").write_text(f"{rule}\n")
    server.restart()
    said = asker(server, Clock()).ask()
    assert (said.reach, said.reason) == (Reach.UNTOLD, "does not ask for SCRAM")


def test_a_server_that_insists_on_tls_gets_it_from_then_on(server: PostgresServer) -> None:
    files = Authority().issue(valid_for=timedelta(days=15)).write(server.directory / "tls")
    server.sql(f"ALTER SYSTEM SET ssl_cert_file = '{files}/tls.crt'")
    server.sql(f"ALTER SYSTEM SET ssl_key_file = '{files}/tls.key'")
    server.sql("ALTER SYSTEM SET ssl = on")
    (server.data / "pg_hba.conf").write_text(f"hostnossl all {CHECK_ROLE} all reject\n{HBA}")
    server.restart()
    clock = Clock()
    standing = asker(server, clock)
    assert standing.ask().reach is Reach.ANSWERED
    query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgpool-sidecar'"
    server.sql(query)
    clock.now += 1.0
    assert standing.ask().reach is Reach.ANSWERED
    assert server.log.count("pg_hba.conf rejects") == 1, "asked without TLS once"

    # Then it insists no longer, and cannot.
    (server.data / "pg_hba.conf").write_text(HBA)
    server.sql("ALTER SYSTEM SET ssl = off")
    server.restart()
    clock.now += 1.0
    standing.ask()
    clock.now += 1.0
    assert standing.ask().reach is Reach.ANSWERED
    standing.close()


def test_a_server_that_starts_up_refuses(server: PostgresServer) -> None:
    server.stop()
    # A standby without consistent data, like one that has just been cloned, stays in this state.
    (server.data / "standby.signal").touch()
    (server.data / "postgresql.auto.conf").write_text("hot_standby = off\n")
    command: list[str | Path] = [server.bin_dir / "postgres", "-D", server.data, "-p", str(server.port)]
    command += ["-c", f"listen_addresses={server.host}", "-c", f"unix_socket_directories={server.directory}"]
    with ExitStack() as stack:
        log = stack.enter_context(server.log_path.open("ab"))
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        stack.callback(process.wait, 10)
        stack.callback(process.send_signal, signal.SIGQUIT)
        standing = asker(server, Clock())
        wait_until(lambda: "57P03" in standing.ask().reason, timeout=10, failure=lambda: server.log)
        assert standing.ask().reach is Reach.REFUSED


def test_secrets_stay_where_they_are(server: PostgresServer) -> None:
    with watching(backend(server), login=lambda: credentials(password=OTHER_PASSWORD)) as watched:
        watched.wait_for(Reach.UNTOLD)
        assert OTHER_PASSWORD not in repr(watched.observer.members())


def test_a_port_without_a_server_refuses_and_wakes_once() -> None:
    with watching(Backend(name="node-1", host="127.0.0.1", port=free_port())) as watched:
        watched.wait_for(Reach.REFUSED)
        watched.wait_for_questions(4)
        assert len(watched.woken) == 1
