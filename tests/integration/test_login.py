"""What a login says about a password: PostgreSQL's own refusals, and pgpool's."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from entrypoint.backends import Backend
from entrypoint.secret import Secret
from sidecar.libpq import error_in
from sidecar.login import Answer, Attempt, Outcome, Servers, ServerSays, combine
from sidecar.through_pgpool import through_pgpool
from support import silent_name_server
from support.certificates import Authority
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.ports import free_port
from support.postgres import HBA, NewServer, PostgresServer

ACCEPTED, REJECTED, UNKNOWN = Outcome.ACCEPTED, Outcome.REJECTED, Outcome.UNKNOWN
PRIMARY, STANDBY, SOMEBODY, NO, SILENT = (
    Answer.PRIMARY,
    Answer.STANDBY,
    Answer.SOMEBODY,
    Answer.REJECTED,
    Answer.UNKNOWN,
)
PASSWORD, WRONG = "a role's 100% own password", "another % password"


@pytest.mark.parametrize(
    ("answers", "remembered", "outcome"),
    [
        ([PRIMARY], None, ACCEPTED),
        ([NO, PRIMARY], None, ACCEPTED),
        ([NO, PRIMARY], 0, ACCEPTED),  # there was a switchover
        ([SILENT, STANDBY, PRIMARY], 0, ACCEPTED),
        ([NO], None, REJECTED),
        ([NO, NO, NO], None, REJECTED),
        ([NO, SILENT], 0, REJECTED),
        ([NO, STANDBY], 0, REJECTED),
        ([STANDBY, NO], None, REJECTED),
        ([STANDBY, NO, SILENT], None, REJECTED),
        ([NO, SILENT], None, UNKNOWN),
        ([NO, SILENT], 1, UNKNOWN),
        ([STANDBY], None, UNKNOWN),
        ([STANDBY, STANDBY], 0, UNKNOWN),
        ([STANDBY, SILENT], 1, UNKNOWN),
        ([SILENT, SILENT], None, UNKNOWN),
        ([], None, UNKNOWN),
        ([SOMEBODY], None, ACCEPTED),
        ([SOMEBODY, STANDBY], None, ACCEPTED),
        ([SOMEBODY, SILENT], 0, ACCEPTED),
        ([SOMEBODY, SILENT], None, UNKNOWN),
        ([SOMEBODY, NO], None, REJECTED),
    ],
)
def test_the_servers_answers_are_weighed_as_the_primarys(
    answers: Sequence[Answer], remembered: int | None, outcome: Outcome
) -> None:
    said = [ServerSays(f"node-{number}", answer) for number, answer in enumerate(answers)]
    assert combine(said, None if remembered is None else f"node-{remembered}").outcome is outcome


def test_an_error_is_found_behind_other_messages() -> None:
    stream = b"R\0\0\0\x08\0\0\0\0" + b"E\0\0\0\x1aC3D000\0Mno\0Dbecause\0\0" + b"Z\0\0\0\x05I"
    assert error_in(stream) == ("3D000", "no", "because")
    assert error_in(stream[:9]) is None
    assert error_in(b"N") is None


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def server(new_server: NewServer) -> PostgresServer:
    server = new_server()
    server.create_role(APP_ROLE, APP_PASSWORD)
    return server


def backend(server: PostgresServer, name: str = "node-1") -> Backend:
    return Backend(name=name, host=server.host, port=server.port)


def attempt(server: PostgresServer, role: str, password: str, database: str = "postgres") -> Attempt:
    return Servers([backend(server)], database, seconds=5).attempt(role, Secret(password))


def test_a_servers_own_reasons_are_told_apart(server: PostgresServer) -> None:
    roles: dict[str, tuple[str, Outcome, str]] = {
        "fine": ("LOGIN", ACCEPTED, "accepted by the primary"),
        "nologin": ("NOLOGIN", REJECTED, "28000: the role may not log in"),
        "expired": ("LOGIN VALID UNTIL '2001-01-01'", REJECTED, "28P01: wrong password"),
        "limited": ("LOGIN CONNECTION LIMIT 0", ACCEPTED, "53300: too many connections"),
    }
    for name, (options, outcome, reason) in roles.items():
        server.sql(f"CREATE ROLE {name} {options} PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
        said = attempt(server, name, PASSWORD)
        assert (said.outcome, reason in said.reason) == (outcome, True), said
        assert PASSWORD not in said.reason
    for name in ("fine", "nobody at all", "limited"):
        assert attempt(server, name, WRONG).outcome is REJECTED


def test_a_role_at_its_connection_limit_proves_its_password(server: PostgresServer) -> None:
    server.sql(f"ALTER ROLE {APP_ROLE} CONNECTION LIMIT 1")
    with psycopg.connect(host=server.host, port=server.port, user=APP_ROLE, password=APP_PASSWORD, dbname="postgres"):
        said = attempt(server, APP_ROLE, APP_PASSWORD)
        assert (said.outcome, "53300: too many connections" in said.reason) == (ACCEPTED, True), said
        assert attempt(server, APP_ROLE, WRONG).outcome is REJECTED


def test_a_database_that_cannot_be_entered_is_replaced_by_another(server: PostgresServer) -> None:
    assert attempt(server, APP_ROLE, APP_PASSWORD, "no such").outcome is ACCEPTED
    assert attempt(server, APP_ROLE, WRONG, "no such").outcome is REJECTED
    server.sql("REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
    assert attempt(server, APP_ROLE, APP_PASSWORD).reason == "node-1: accepted by the primary"
    server.sql("REVOKE CONNECT ON DATABASE template1 FROM PUBLIC")
    said = attempt(server, APP_ROLE, APP_PASSWORD)
    assert said.outcome is ACCEPTED, "the password was right"
    assert "42501: no right to connect to the database" in said.reason
    assert attempt(server, APP_ROLE, WRONG).outcome is REJECTED


@pytest.mark.parametrize(
    ("rules", "outcome", "reason"),
    [
        ("host all app all reject", UNKNOWN, "28000: pg_hba.conf does not let the role in"),
        ("host postgres,template1 app all reject", ACCEPTED, "accepted by the primary"),
        ("hostnossl all app all reject", UNKNOWN, "28000: pg_hba.conf does not let the role in"),
        ("host all app all trust", UNKNOWN, "does not ask for SCRAM"),
        ("host all app all password", UNKNOWN, "does not ask for SCRAM"),
    ],
)
def test_pg_hba_conf_says_nothing_about_a_password(
    server: PostgresServer, rules: str, outcome: Outcome, reason: str
) -> None:
    server.create_database(APP_ROLE)
    (server.data / "pg_hba.conf").write_text(f"{rules}\n{HBA}")
    server.sql("SELECT pg_reload_conf()")
    wait_until(
        lambda: reason in attempt(server, APP_ROLE, APP_PASSWORD).reason,
        timeout=5,
        failure=lambda: str(attempt(server, APP_ROLE, APP_PASSWORD)),
    )
    assert attempt(server, APP_ROLE, APP_PASSWORD).outcome is outcome


def test_a_server_that_insists_on_tls_gets_it(authority: Authority, new_server: NewServer) -> None:
    server = new_server()
    server.create_role(APP_ROLE, APP_PASSWORD)
    authority.issue(valid_for=timedelta(days=15)).write(server.directory / "tls")
    (server.directory / "tls/tls.key").chmod(0o600)
    server.sql(f"ALTER SYSTEM SET ssl_cert_file = '{server.directory}/tls/tls.crt'")
    server.sql(f"ALTER SYSTEM SET ssl_key_file = '{server.directory}/tls/tls.key'")
    server.sql("ALTER SYSTEM SET ssl = on")
    (server.data / "pg_hba.conf").write_text(f"hostnossl all app all reject\n{HBA}")
    server.restart()
    assert attempt(server, APP_ROLE, APP_PASSWORD).reason == "node-1: accepted by the primary"
    assert attempt(server, APP_ROLE, WRONG).outcome is REJECTED


def test_a_server_that_is_stopped_or_starts_up_says_nothing(server: PostgresServer) -> None:
    server.stop()
    assert attempt(server, APP_ROLE, APP_PASSWORD) == Attempt(UNKNOWN, "node-1: no answer (not reachable)")

    # A standby without consistent data, like one that has just been cloned, stays in this state.
    (server.data / "standby.signal").touch()
    (server.data / "postgresql.auto.conf").write_text("hot_standby = off\n")
    with starting(server):
        wait_until(
            lambda: "57P03" in attempt(server, APP_ROLE, APP_PASSWORD).reason, timeout=10, failure=lambda: server.log
        )
        assert attempt(server, APP_ROLE, WRONG).outcome is UNKNOWN


def test_a_standby_is_told_from_a_primary(server: PostgresServer) -> None:
    server.stop()
    (server.data / "standby.signal").touch()
    server.start()
    assert attempt(server, APP_ROLE, APP_PASSWORD) == Attempt(UNKNOWN, "node-1: accepted by a standby")


def test_the_primary_of_last_time_is_asked_first_and_alone(server: PostgresServer) -> None:
    with black_hole() as hole:
        servers = Servers([hole, backend(server, "node-2")], "postgres", seconds=1)
        assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).outcome is ACCEPTED
        began = time.monotonic()
        assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).reason == "node-2: accepted by the primary"
        assert time.monotonic() - began < 1, "the other one was asked, too"
        assert servers.attempt(APP_ROLE, Secret(WRONG)).outcome is REJECTED


def test_while_another_server_is_away_the_known_primary_still_rejects(server: PostgresServer) -> None:
    away = Backend(name="node-1", host="127.0.0.1", port=free_port())
    servers = Servers([away, backend(server, "node-2")], "postgres")
    assert servers.attempt(APP_ROLE, Secret(WRONG)).outcome is UNKNOWN, "the other one may be the primary"
    assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).outcome is ACCEPTED
    assert servers.attempt(APP_ROLE, Secret(WRONG)).outcome is REJECTED


def test_the_only_server_that_is_no_standby_rejects_as_the_primary(
    server: PostgresServer, new_server: NewServer
) -> None:
    standby = new_server()
    standby.create_role(APP_ROLE, APP_PASSWORD)
    standby.stop()
    (standby.data / "standby.signal").touch()
    standby.start()
    servers = Servers([backend(server, "node-1"), backend(standby, "node-2")], "postgres")
    server.stop()
    assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).outcome is UNKNOWN
    server.start()
    standby.stop()
    assert servers.attempt(APP_ROLE, Secret(WRONG)).outcome is REJECTED


def test_a_primary_that_has_become_a_standby_is_believed_no_longer(
    server: PostgresServer, new_server: NewServer
) -> None:
    former = new_server()
    former.create_role(APP_ROLE, APP_PASSWORD)
    servers = Servers([backend(former, "node-1"), backend(server, "node-2")], "postgres")
    assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).reason == "node-1: accepted by the primary"
    former.stop()
    (former.data / "standby.signal").touch()
    former.start()
    server.stop()
    assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).outcome is UNKNOWN
    assert servers.attempt(APP_ROLE, Secret(WRONG)).outcome is UNKNOWN


def test_a_server_that_never_answers_is_left_in_time() -> None:
    with black_hole() as hole:
        began = time.monotonic()
        said = Servers([hole], "postgres", seconds=0.5).attempt(APP_ROLE, Secret(APP_PASSWORD))
    assert said == Attempt(UNKNOWN, "node-1: no answer (no answer in time)")
    assert 0.4 < time.monotonic() - began < 1.5


def test_a_server_is_found_by_its_name(server: PostgresServer) -> None:
    named = Backend(name="node-1", host="localhost", port=server.port)
    said = Servers([named], "postgres").attempt(APP_ROLE, Secret(APP_PASSWORD))
    assert said == Attempt(ACCEPTED, "node-1: accepted by the primary")


def test_a_name_server_that_never_answers_stops_nobody_else(tmp_path: Path) -> None:
    """libpq would look the name up itself, for ten seconds, and keep all other threads from running meanwhile."""
    root = Path(__file__).parents[2]
    result = subprocess.run(
        silent_name_server.command(tmp_path),
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["outcome"], found["reason"]) == (UNKNOWN.name, "node-1: no answer (the host's name is not found)")
    assert 0.9 < found["seconds"] < 2, found
    assert found["pause"] < 0.5, found


def test_no_server_is_told_a_password_in_clear_text() -> None:
    asks_for_it = b"R" + (8).to_bytes(4) + (3).to_bytes(4)
    with server_that_says(asks_for_it) as (asks, heard):
        said = Servers([asks], "postgres", seconds=5).attempt(APP_ROLE, Secret(APP_PASSWORD))
    assert said == Attempt(UNKNOWN, "node-1: no answer (does not ask for SCRAM)")
    (said_to_it,) = filter(None, heard)  # somebody looked first whether there is anybody
    assert APP_ROLE.encode() in said_to_it
    assert APP_PASSWORD.encode() not in said_to_it


@pytest.fixture
def behind(new_server: NewServer) -> PostgresServer:
    """A server for pgpool that the test may spoil."""
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    server.create_role(APP_ROLE, APP_PASSWORD)
    return server


@pytest.fixture
def pool(behind: PostgresServer, new_pod: NewPod) -> Iterator[tuple[Pod, Pgpool]]:
    pod = new_pod(behind)
    # No check and no search in the background: what a login meets is to be the login's own doing.
    pod.environment |= {
        "PGPOOL_PARAMS_NUM_INIT_CHILDREN": "2",
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD": "0",
        "PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT": "1",
    }
    pod.write_user("limited", PASSWORD)
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        yield pod, pgpool


def log_in(
    pod: Pod, role: str, password: str, databases: Sequence[str] = ("postgres",), *, seconds: float = 5
) -> Attempt:
    return through_pgpool(pod.run_dir, pod.port, role, Secret(password), databases, seconds=seconds)


def test_only_pgpools_own_refusal_of_a_password_is_a_rejection(
    behind: PostgresServer, pool: tuple[Pod, Pgpool]
) -> None:
    pod, pgpool = pool
    assert log_in(pod, APP_ROLE, APP_PASSWORD) == Attempt(ACCEPTED, "logged in through pgpool")
    assert log_in(pod, APP_ROLE, WRONG) == Attempt(REJECTED, "pgpool has another password")
    assert log_in(pod, "nobody at all", WRONG) == Attempt(REJECTED, "pgpool has no entry in pool_passwd")

    behind.create_role("limited", PASSWORD)
    behind.sql("ALTER ROLE limited CONNECTION LIMIT 0")
    assert log_in(pod, "limited", PASSWORD) == NO_SESSION
    behind.alter_password(APP_ROLE, WRONG)
    assert log_in(pod, APP_ROLE, APP_PASSWORD) == Attempt(UNKNOWN, "PostgreSQL refuses the password that pgpool has")
    assert log_in(pod, APP_ROLE, WRONG) == Attempt(REJECTED, "pgpool has another password")
    behind.alter_password(APP_ROLE, APP_PASSWORD)

    with pgpool.connect(APP_ROLE, APP_PASSWORD), pgpool.connect(APP_ROLE, APP_PASSWORD):
        assert log_in(pod, APP_ROLE, APP_PASSWORD, seconds=0.5) == Attempt(UNKNOWN, "no answer in time")
    behind.stop()
    assert log_in(pod, APP_ROLE, WRONG).outcome is not ACCEPTED
    # Without patch 04 it is refused at once: "pgpool has no node that is up".
    wait_until(
        lambda: log_in(pod, APP_ROLE, APP_PASSWORD, seconds=0.5).outcome is UNKNOWN,
        timeout=10,
        failure=lambda: str(log_in(pod, APP_ROLE, APP_PASSWORD)),
    )
    pgpool.stop()
    assert log_in(pod, APP_ROLE, APP_PASSWORD) == Attempt(UNKNOWN, "not reachable")


NO_SESSION = Attempt(ACCEPTED, "the password is accepted, but PostgreSQL refuses the session")


def test_a_role_without_the_right_to_connect_to_postgres_is_proved_in_a_database_of_its_own(
    behind: PostgresServer, pool: tuple[Pod, Pgpool]
) -> None:
    pod, _ = pool
    behind.sql("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
    servers = Servers([backend(behind)], "postgres", seconds=5)
    to_try = servers.databases(APP_ROLE)
    assert to_try == ("postgres", APP_ROLE, "template1")
    assert log_in(pod, APP_ROLE, APP_PASSWORD, to_try) == NO_SESSION
    assert log_in(pod, APP_ROLE, WRONG, to_try) == Attempt(REJECTED, "pgpool has another password")
    assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).outcome is ACCEPTED
    assert servers.databases(APP_ROLE) == to_try, "it got in nowhere"

    behind.create_database(APP_ROLE)
    assert log_in(pod, APP_ROLE, APP_PASSWORD, to_try).reason == "logged in through pgpool"
    assert log_in(pod, APP_ROLE, WRONG, to_try) == Attempt(REJECTED, "pgpool has another password")
    assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).reason == "node-1: accepted by the primary"
    assert servers.databases(APP_ROLE) == (APP_ROLE,)
    assert log_in(pod, APP_ROLE, APP_PASSWORD, servers.databases(APP_ROLE)).outcome is ACCEPTED


def test_a_session_that_postgresql_refuses_comes_after_its_consent_to_the_password(
    behind: PostgresServer, pool: tuple[Pod, Pgpool]
) -> None:
    pod, _ = pool
    behind.sql("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
    assert log_in(pod, APP_ROLE, APP_PASSWORD) == NO_SESSION
    behind.alter_password(APP_ROLE, WRONG)
    said = Attempt(UNKNOWN, "PostgreSQL refuses the password that pgpool has")
    assert log_in(pod, APP_ROLE, APP_PASSWORD) == said
    assert log_in(pod, APP_ROLE, APP_PASSWORD, ("postgres", APP_ROLE, "template1")) == said


def test_a_role_that_pg_hba_conf_lets_into_its_own_database_only_is_proved_there(
    behind: PostgresServer, pool: tuple[Pod, Pgpool]
) -> None:
    pod, _ = pool
    behind.create_database(APP_ROLE)
    (behind.data / "pg_hba.conf").write_text(
        f"host {APP_ROLE} {APP_ROLE} all scram-sha-256\nhost all {APP_ROLE} all reject\n{HBA}"
    )
    behind.sql("SELECT pg_reload_conf()")
    servers = Servers([backend(behind)], "postgres", seconds=5)
    wait_until(lambda: log_in(pod, APP_ROLE, APP_PASSWORD).outcome is UNKNOWN, timeout=5, failure=lambda: behind.log)
    assert log_in(pod, APP_ROLE, APP_PASSWORD, servers.databases(APP_ROLE)).outcome is ACCEPTED
    assert servers.attempt(APP_ROLE, Secret(APP_PASSWORD)).outcome is ACCEPTED
    assert servers.databases(APP_ROLE) == (APP_ROLE,)
    assert servers.attempt(APP_ROLE, Secret(WRONG)).outcome is REJECTED


def test_where_a_role_gets_in_one_refusal_of_its_password_is_enough(
    behind: PostgresServer, pool: tuple[Pod, Pgpool]
) -> None:
    """Somebody counts them."""
    pod, _ = pool
    servers = Servers([backend(behind)], "postgres", seconds=5)
    servers.attempt(APP_ROLE, Secret(APP_PASSWORD))
    behind.alter_password(APP_ROLE, WRONG)
    log_in(pod, APP_ROLE, APP_PASSWORD, servers.databases(APP_ROLE))
    assert behind.log.count("password authentication failed") == 1


def test_pool_hba_conf_may_let_a_role_into_its_own_database_only(behind: PostgresServer, new_pod: NewPod) -> None:
    behind.create_database(APP_ROLE)
    pod = new_pod(behind)
    rules = f"all sr_check scram-sha-256\nlocal {APP_ROLE} {APP_ROLE} scram-sha-256\n"
    pod.environment["PGPOOL_HBA_FILE"] = str(pod.write("hba", f"local {rules}"))
    with pod.pgpool() as pgpool:
        pgpool.wait_until_logged("successfully started")
        to_try = ("postgres", APP_ROLE, "template1")
        assert log_in(pod, APP_ROLE, APP_PASSWORD, to_try).outcome is ACCEPTED
        assert log_in(pod, APP_ROLE, WRONG, to_try) == Attempt(REJECTED, "pgpool has another password")
        said = log_in(pod, APP_ROLE, APP_PASSWORD, ("postgres", "template1"))
        assert said == Attempt(UNKNOWN, "pool_hba.conf does not let the role in")


@pytest.mark.parametrize("tls", [False, True])
def test_without_a_rule_for_the_socket_the_login_is_over_tcp(pod: Pod, authority: Authority, tls: bool) -> None:  # noqa: FBT001  # a parameter of the test
    pod.environment["PGPOOL_HBA_FILE"] = str(
        pod.write("hba", f"{'hostssl' if tls else 'host'} all all 127.0.0.0/8 scram-sha-256\n")
    )
    if tls:
        pod.environment["PGPOOL_TLS_DIR"] = str(
            authority.issue(valid_for=timedelta(days=15)).write(pod.directory / "tls")
        )
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        assert log_in(pod, APP_ROLE, APP_PASSWORD).outcome is ACCEPTED
        assert log_in(pod, APP_ROLE, WRONG) == Attempt(REJECTED, "pgpool has another password")
        assert log_in(pod, "nobody at all", WRONG) == Attempt(REJECTED, "pgpool has no entry in pool_passwd")


@contextmanager
def black_hole() -> Iterator[Backend]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield Backend(name="node-1", host="127.0.0.1", port=listener.getsockname()[1])


@contextmanager
def server_that_says(answer: bytes) -> Iterator[tuple[Backend, list[bytes]]]:
    """A server that answers every login so; with all that was said to it by each client, once that has gone."""
    heard: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        while True:
            try:
                client, _address = listener.accept()
            except OSError:
                return
            with client, client.makefile("rb") as words:
                heard.append(words.read1())
                client.sendall(answer)
                heard[-1] += words.read()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield Backend(name="node-1", host="127.0.0.1", port=listener.getsockname()[1]), heard
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@contextmanager
def starting(server: PostgresServer) -> Iterator[None]:
    """The server's process, not waited for: it is not to become ready."""
    command: list[str | Path] = [server.bin_dir / "postgres", "-D", server.data, "-p", str(server.port)]
    command += ["-c", f"listen_addresses={server.host}", "-c", f"unix_socket_directories={server.directory}"]
    with server.log_path.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGQUIT)
        process.wait(10)
