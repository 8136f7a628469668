"""What rendering and booting cost.

The program measured is the installed wheel, as in the image: an editable install starts slower.
"""

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.measure import Command, Times, interleaved
from bench.report import ms, paragraph, verdict
from bench.stage import Stage
from support.pgpool_process import Pgpool
from support.ports import free_port
from support.postgres import PostgresServer

SHELL_ENTRYPOINT = Path(__file__).with_name("shell_entrypoint.sh")

GOAL_SECONDS, GOAL_MEBIBYTES = 0.15, 50.0
GOAL_SECONDS_BY_USERS = {1_000: 0.5, 10_000: 3.0}
FORKS = 50  # a sample: a thousand of them would take most of the benchmark's time

RENDER, SHELL, PASS, AES = (
    "`pgpool-entrypoint render`",
    "a shell entrypoint",
    "`python -c pass`",
    "`python -c` that imports AES from cryptography",
)
IMPORT, PGPOOL = "`python -c 'import entrypoint.__main__'`", "`pgpool --version`"
CHECK_ROLE = "sr_check"


class InstalledPgpool(Pgpool):
    """Booted by the installed wheel's program instead of the checkout's."""

    def __init__(self, stage: Stage, environment: Mapping[str, str], log_path: Path) -> None:
        super().__init__(environment, pgpool_bin=stage.pgpool_bin, log_path=log_path)
        self._command = [str(stage.wheel / "pgpool-entrypoint")]


def start(stage: Stage, rounds: int) -> Iterator[str]:
    """The cold start with the work of a usual pod."""
    users = made_up_users(2)
    subjects = {
        RENDER: render(stage, users),
        SHELL: shell(stage, users),
        PASS: interpret(stage, "pass"),
        AES: interpret(stage, "import cryptography.hazmat.primitives.ciphers"),
        IMPORT: interpret(stage, "import entrypoint.__main__"),
        PGPOOL: Command([stage.pgpool_bin / "pgpool", "--version"], stage.path),
    }
    times = interleaved(subjects, rounds)
    peak = max(subjects[RENDER].peak_mebibytes() for _ in range(3))
    rendered = times[RENDER].median
    yield f"\n## Render 3 backends and 2 users with AES\n\nA cold process, {rounds} runs of each, in turns.\n"
    yield "| | median | 90th percentile | fastest | render takes |\n|---|---|---|---|---|"
    for name, taken in times.items():
        ratio = "" if name == RENDER else f"{rendered / taken.median:.1f} ×"
        yield f"| {name} | {ms(taken.median)} | {ms(taken.p90)} | {ms(taken.best)} | {ratio} |"
    yield (
        "\nThe shell entrypoint (tests/bench/shell_entrypoint.sh) writes the same backends and users, checks nothing, "
        "and passes\npasswords on command lines. Render runs pgpool twice: for its version, and to parse the result.\n"
    )
    yield f"- time: {verdict(rendered, GOAL_SECONDS, 's', 2)}"
    yield f"- memory at its peak: {verdict(peak, GOAL_MEBIBYTES, 'MiB', 0)}"


def many_users(stage: Stage) -> Iterator[str]:
    """How the time grows with the users."""
    counts = (2, *GOAL_SECONDS_BY_USERS)
    times = interleaved({str(count): render(stage, made_up_users(count)) for count in counts}, 7)
    forks = interleaved({"forks": shell(stage, made_up_users(FORKS)), "none": shell(stage, {})}, 3)
    one_fork = (forks["forks"].median - forks["none"].median) / FORKS
    base = times["2"].median
    yield "\n## Many users\n\nThe whole program, as above. 7 runs of each, in turns.\n"
    yield "| users | median | fastest | above 2 users | per user | pg_enc, one process a user |"
    yield "|---|---|---|---|---|---|"
    for count in counts:
        taken = times[str(count)]
        more = taken.median - base
        growth = f"{ms(more)} | {more / (count - 2) * 1e6:.0f} µs" if count > 2 else "|"
        yield f"| {count:,} | {ms(taken.median)} | {ms(taken.best)} | {growth} | {one_fork * count:.2f} s |"
    small, large = (times[str(count)].median - base for count in GOAL_SECONDS_BY_USERS)
    yield f"\nThe last column is reckoned from {FORKS} processes, {ms(one_fork)} each, which is kind to it.\n"
    for count, goal in GOAL_SECONDS_BY_USERS.items():
        yield f"- {count:,} users: {verdict(times[str(count)].median, goal, 's', 2)}"
    yield f"- growth: 10 × the users take {large / small:.1f} × the time above the start; 10 is linear"


def boot(stage: Stage, rounds: int = 5) -> Iterator[str]:
    """From the entrypoint's first instruction to a query answered by PostgreSQL, through pgpool."""
    users = {"app": "the application's password", CHECK_ROLE: "the check role's password"}
    directory = stage.memory / "boot-users"
    directory.mkdir()
    settings = {"unix_socket_directories": ""}
    seconds = []
    with PostgresServer(stage.home / "postgres", stage.postgres_bin, settings=settings) as server:
        for role, password in users.items():
            server.create_role(role, password, monitor=role == CHECK_ROLE)
            (directory / role).write_text(password)
        key = stage.memory / "boot.key"
        key.write_text("a key of the benchmark\n")
        key.chmod(0o600)
        for number in range(rounds):
            run_dir = stage.memory / f"r{number}"
            run_dir.mkdir()
            environment = {
                "PGPOOL_BACKENDS": f"postgres-1=127.0.0.1:{server.port}",
                "PGPOOL_USERS_DIR": str(directory),
                "PGPOOLKEYFILE": str(key),
                "PGPOOL_RUN_DIR": str(run_dir),
                "PGPOOL_PARAMS_LISTEN_ADDRESSES": "127.0.0.1",
                "PGPOOL_PARAMS_PORT": str(free_port()),
                "PGPOOL_PARAMS_PCP_PORT": str(free_port()),
            }
            begin = time.perf_counter()
            with InstalledPgpool(stage, environment, stage.home / f"pgpool-{number}.log") as pgpool:
                pgpool.wait_until_login("app", users["app"])
                seconds.append(time.perf_counter() - begin)
    times = Times(seconds)
    yield "\n## Boot to the first login\n"
    yield paragraph(
        f"From the start of the entrypoint to a query that PostgreSQL has answered through pgpool, with SCRAM on both "
        f"sides: median {ms(times.median)}, fastest {ms(times.best)} ({rounds} boots, tried every 20 ms). For "
        "information: there is no goal."
    )


def render(stage: Stage, users: Mapping[str, str]) -> Command:
    """Render 3 backends and these users with AES, into a directory that is empty each time."""
    directory = Path(tempfile.mkdtemp(prefix="users-", dir=stage.memory))
    for role, password in users.items():
        (directory / role).write_text(password)
    key = directory.with_suffix(".key")
    key.write_text("a key of the benchmark\n")
    key.chmod(0o600)
    target = directory.with_suffix(".rendered")
    settings = {
        "PGPOOL_BACKENDS": "postgres-1=10.0.0.1,postgres-2=10.0.0.2,postgres-3=10.0.0.3",
        "PGPOOL_USERS_DIR": str(directory),
        "PGPOOLKEYFILE": str(key),
    }
    return Command(
        [stage.wheel / "pgpool-entrypoint", "render", "--to", target],
        stage.path | settings,
        before=lambda: shutil.rmtree(target, ignore_errors=True),
    )


def shell(stage: Stage, users: Mapping[str, str]) -> Command:
    """The same work, as a shell script does it."""
    target = Path(tempfile.mkdtemp(prefix="shell-", dir=stage.memory))
    settings = {
        f"PGPOOL_PARAMS_BACKEND_{name}{node}": value
        for node in range(3)
        for name, value in (("HOSTNAME", f"10.0.0.{node + 1}"), ("PORT", "5432"), ("WEIGHT", "1"))
    }
    for number, (role, password) in enumerate(users.items()):
        settings |= {f"U{number}_USERNAME": role, f"U{number}_PASSWORD": password}
    return Command([SHELL_ENTRYPOINT, target], stage.path | settings)


def interpret(stage: Stage, code: str) -> Command:
    return Command([stage.wheel / "python", "-c", code], stage.path)


def made_up_users(count: int) -> dict[str, str]:
    """Roles with passwords of a usual length; one is the check role, which must be there."""
    roles = [CHECK_ROLE, *(f"role_{number:05}" for number in range(1, count))]
    return {role: f"{number:05}-password-of-24-bytes" for number, role in enumerate(roles[:count])}
