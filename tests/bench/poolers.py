"""The same small job through pgpool and through PgBouncer, side by side: what a pooler costs its clients."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg

from bench.measure import Times, proportional_mebibytes
from bench.report import paragraph
from bench.stage import SYSTEM_PATH, Stage
from support import programs
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, Pod
from support.ports import free_port
from support.postgres import PostgresServer

SESSIONS = 32
STATEMENTS_BY_LOGIN = 20
PATIENCE = 30.0
DIRECT, BOUNCER, PGPOOL = "PostgreSQL itself", "PgBouncer", "pgpool"

Connect = Callable[[], psycopg.Connection]


def find_pgbouncer() -> Path | None:
    """The program; Debian has it in a directory that is not on everybody's PATH."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', SYSTEM_PATH)}:/usr/sbin")
    return Path(found) if found else None


def poolers(stage: Stage, pgbouncer: Path | None, logins: int) -> Iterator[str]:
    """Logins, statements and memory."""
    yield "\n## Beside PgBouncer\n"
    if pgbouncer is None:
        yield "Not measured: there is no pgbouncer (Debian's package of that name, or `--pgbouncer FILE`)."
        return
    yield paragraph(
        f"PgBouncer {programs.version(pgbouncer)} with pool_mode session, the one that pgpool has, and pgpool with "
        f"{SESSIONS} children, before one PostgreSQL; SCRAM on both sides, server connections are reused. Taken in "
        f"turns: {logins} logins, each with one statement, and {STATEMENTS_BY_LOGIN} times as many statements (`SELECT "
        f"1`) in sessions that stay. Memory is that of all its processes (PSS, shared memory included): at rest, and "
        f"with {SESSIONS} sessions that have run a statement. pgpool's sidecar is not in it."
    )
    with ExitStack() as stack:
        server = stack.enter_context(postgres(stage))
        bouncer = stack.enter_context(running_pgbouncer(stage, pgbouncer, server.port))
        pod = Pod(stage.memory / "poolers", pgpool_bin=stage.pgpool_bin, postgres_port=server.port)
        pod.write_user(CHECK_ROLE, CHECK_PASSWORD)
        pod.write_user(APP_ROLE, APP_PASSWORD)
        pod.encrypt()
        pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = str(SESSIONS)
        pgpool = stack.enter_context(pod.pgpool())
        subjects = {DIRECT: to(server.port), BOUNCER: to(bouncer[0]), PGPOOL: to(pod.port)}
        wait_until(
            lambda: all(map(answers, subjects.values())),
            timeout=PATIENCE,
            failure=lambda: f"pgpool's log:\n{pgpool.log}",
        )
        pids: dict[str, Callable[[], list[int]]] = {BOUNCER: lambda: [bouncer[1]], PGPOOL: lambda: pgpool.pids}
        resting = {name: memory(of) for name, of in pids.items()}
        in_turns(subjects, 5)
        login, statement = in_turns(subjects, logins)
        full = {name: memory_when_full(subjects[name], of) for name, of in pids.items()}
    yield "\n| through | login, p50 | p99 | statement, p50 | p99 | memory at rest | with sessions |"
    yield "|---|---|---|---|---|---|---|"
    for name in subjects:
        numbers = f"{told(login[name])} | {told(statement[name])}"
        mebibytes = f"{resting[name]:.1f} MiB | {full[name]:.1f} MiB" if name in pids else "|"
        yield f"| {name} | {numbers} | {mebibytes} |"


def told(times: Times) -> str:
    return f"{times.median * 1000:.2f} ms | {times.percentile(99) * 1000:.2f} ms"


def in_turns(subjects: Mapping[str, Connect], rounds: int) -> tuple[dict[str, Times], dict[str, Times]]:
    """Seconds of logins and of statements; each round begins with another subject."""
    logins: dict[str, list[float]] = {name: [] for name in subjects}
    statements: dict[str, list[float]] = {name: [] for name in subjects}
    names = list(subjects)
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(connect()) for name, connect in subjects.items()}
        for turn in range(rounds):
            start = turn % len(names)
            for name in names[start:] + names[:start]:
                begin = time.perf_counter()
                with subjects[name]() as connection:
                    connection.execute("SELECT 1")
                logins[name].append(time.perf_counter() - begin)
                for _ in range(STATEMENTS_BY_LOGIN):
                    begin = time.perf_counter()
                    sessions[name].execute("SELECT 1")
                    statements[name].append(time.perf_counter() - begin)
    return {name: Times(logins[name]) for name in names}, {name: Times(statements[name]) for name in names}


def memory(pids: Callable[[], list[int]]) -> float:
    return sum(proportional_mebibytes(pid) for pid in pids())


def memory_when_full(connect: Connect, pids: Callable[[], list[int]]) -> float:
    with ExitStack() as stack:
        for _ in range(SESSIONS):
            stack.enter_context(connect()).execute("SELECT 1")
        return memory(pids)


def to(port: int) -> Connect:
    def connect() -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=port,
            user=APP_ROLE,
            password=APP_PASSWORD,
            dbname="postgres",
            sslmode="disable",
            connect_timeout=10,
            autocommit=True,
            prepare_threshold=None,
        )

    return connect


def answers(connect: Connect) -> bool:
    with suppress(psycopg.OperationalError), connect() as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)
    return False


@contextmanager
def postgres(stage: Stage) -> Iterator[PostgresServer]:
    settings = {"max_connections": "200", "unix_socket_directories": ""}
    (stage.memory / "poolers").mkdir()
    with PostgresServer(stage.home / "poolers", stage.postgres_bin, settings=settings) as server:
        server.create_role(APP_ROLE, APP_PASSWORD)
        server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
        yield server


@contextmanager
def running_pgbouncer(stage: Stage, program: Path, postgres_port: int) -> Iterator[tuple[int, int]]:
    """Its port and process."""
    directory = stage.memory / "pgbouncer"
    directory.mkdir(mode=0o700)
    users = directory / "users"
    users.write_text(f'"{APP_ROLE}" "{APP_PASSWORD}"\n')
    port = free_port()
    ini = directory / "pgbouncer.ini"
    ini.write_text(
        f"[databases]\n* = host=127.0.0.1 port={postgres_port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
        f"pool_mode = session\ndefault_pool_size = {SESSIONS}\nmax_client_conn = {2 * SESSIONS}\n"
    )
    with (stage.home / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen([program, "-q", ini], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/")
    try:
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(PATIENCE)
