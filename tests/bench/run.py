"""`make bench`: what rendering and booting cost, each beside something else that ran in the same minute.

The program measured is the installed wheel, as in the image: an editable install starts slower.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import distribution, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.measure import Command, Times, interleaved
from support import programs
from support.pgpool_process import REPOSITORY, Pgpool
from support.ports import free_port
from support.postgres import PostgresServer

SHELL_ENTRYPOINT = Path(__file__).with_name("shell_entrypoint.sh")
MEMORY = Path("/dev/shm")
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"

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


@dataclass(frozen=True)
class Stage:
    """Where everything is: the installed wheel, the programs, and a directory in memory, as in a pod."""

    environment_dir: Path
    memory: Path
    pgpool_bin: Path
    postgres_bin: Path

    @property
    def python(self) -> Path:
        return self.environment_dir / "bin/python"

    @property
    def program(self) -> Path:
        return self.environment_dir / "bin/pgpool-entrypoint"

    @property
    def path(self) -> dict[str, str]:
        return {"PATH": f"{self.pgpool_bin}:{SYSTEM_PATH}"}

    def render(self, users: Mapping[str, str]) -> Command:
        """Render 3 backends and these users with AES, into a directory that is empty each time."""
        directory = Path(tempfile.mkdtemp(prefix="users-", dir=self.memory))
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
            [self.program, "render", "--to", target],
            self.path | settings,
            before=lambda: shutil.rmtree(target, ignore_errors=True),
        )

    def shell(self, users: Mapping[str, str]) -> Command:
        """The same work, as a shell script does it."""
        target = Path(tempfile.mkdtemp(prefix="shell-", dir=self.memory))
        settings = {
            f"PGPOOL_PARAMS_BACKEND_{name}{node}": value
            for node in range(3)
            for name, value in (("HOSTNAME", f"10.0.0.{node + 1}"), ("PORT", "5432"), ("WEIGHT", "1"))
        }
        for number, (role, password) in enumerate(users.items()):
            settings |= {f"U{number}_USERNAME": role, f"U{number}_PASSWORD": password}
        return Command([SHELL_ENTRYPOINT, target], self.path | settings)

    def interpret(self, code: str) -> Command:
        return Command([self.python, "-c", code], self.path)


class InstalledPgpool(Pgpool):
    """Booted by the installed wheel's program instead of the checkout's."""

    def __init__(self, stage: Stage, environment: Mapping[str, str], log_path: Path) -> None:
        super().__init__(environment, pgpool_bin=stage.pgpool_bin, log_path=log_path)
        self._command = [str(stage.program)]


def main() -> None:
    options = arguments()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        parent = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK) else home
        memory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="b-", dir=parent)))
        stage = Stage(install_wheel(home), memory, options.pgpool_bin, options.postgres_bin)
        parts = [list(part) for part in (start(stage, options.rounds), many_users(stage), boot(stage, home))]
    report = "\n".join([head(options), *(line for part in parts for line in part)]) + "\n"
    sys.stdout.write(report)


def install_wheel(home: Path) -> Path:
    """A virtual environment with the wheel of this checkout, which sees the dependencies of the running one."""
    wheels, environment = home / "wheels", home / "venv"
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels], cwd=REPOSITORY)
    venv.create(environment, symlinks=True)
    # A .pth file found by way of another one is not read: the checkout's editable install stays out of sight.
    [packages] = (environment / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{distribution('cryptography').locate_file('')}\n")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        environment / "bin/python",
    ]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-cache-dir", *wheels.glob("*.whl")], cwd=home)
    return environment


def start(stage: Stage, rounds: int) -> Iterator[str]:
    """The cold start with the work of a usual pod."""
    users = made_up_users(2)
    subjects = {
        RENDER: stage.render(users),
        SHELL: stage.shell(users),
        PASS: stage.interpret("pass"),
        AES: stage.interpret("import cryptography.hazmat.primitives.ciphers"),
        IMPORT: stage.interpret("import entrypoint.__main__"),
        PGPOOL: Command([stage.pgpool_bin / "pgpool", "--version"], stage.path),
    }
    times = interleaved(subjects, rounds)
    peak = max(subjects[RENDER].peak_mebibytes() for _ in range(3))
    render = times[RENDER].median
    yield f"\n## Render 3 backends and 2 users with AES\n\nA cold process, {rounds} runs of each, in turns.\n"
    yield "| | median | 90th percentile | fastest | render takes |\n|---|---|---|---|---|"
    for name, taken in times.items():
        ratio = "" if name == RENDER else f"{render / taken.median:.1f} ×"
        yield f"| {name} | {ms(taken.median)} | {ms(taken.p90)} | {ms(taken.best)} | {ratio} |"
    yield (
        "\nThe shell entrypoint (tests/bench/shell_entrypoint.sh) writes the same backends and users, checks nothing, "
        "and passes\npasswords on command lines. Render runs pgpool twice: for its version, and to parse the result.\n"
    )
    yield f"- time: {verdict(render, GOAL_SECONDS, 's', 2)}"
    yield f"- memory at its peak: {verdict(peak, GOAL_MEBIBYTES, 'MiB', 0)}"


def many_users(stage: Stage) -> Iterator[str]:
    """How the time grows with the users."""
    counts = (2, *GOAL_SECONDS_BY_USERS)
    times = interleaved({str(count): stage.render(made_up_users(count)) for count in counts}, 7)
    forks = interleaved({"forks": stage.shell(made_up_users(FORKS)), "none": stage.shell({})}, 3)
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


def boot(stage: Stage, home: Path, rounds: int = 5) -> Iterator[str]:
    """From the entrypoint's first instruction to a query answered by PostgreSQL, through pgpool."""
    users = {"app": "the application's password", CHECK_ROLE: "the check role's password"}
    directory = stage.memory / "boot-users"
    directory.mkdir()
    settings = {"unix_socket_directories": ""}
    seconds = []
    with PostgresServer(home / "postgres", stage.postgres_bin, settings=settings) as server:
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
            with InstalledPgpool(stage, environment, home / f"pgpool-{number}.log") as pgpool:
                pgpool.wait_until_login("app", users["app"])
                seconds.append(time.perf_counter() - begin)
    times = Times(seconds)
    yield "\n## Boot to the first login\n"
    yield textwrap.fill(
        f"From the start of the entrypoint to a query that PostgreSQL has answered through pgpool, with SCRAM on both "
        f"sides: median {ms(times.median)}, fastest {ms(times.best)} ({rounds} boots, tried every 20 ms). For "
        "information: there is no goal.",
        120,
    )


def head(options: argparse.Namespace) -> str:
    """When, where and with what, and how to do it again."""
    machine = f"{len(os.sched_getaffinity(0))} cores, {processor()}, load {os.getloadavg()[0]:.1f} at the end"
    named = {
        "pgpool-entrypoint": version("pgpool-entrypoint"),
        "pgpool": programs.version(options.pgpool_bin / "pgpool"),
        "PostgreSQL": programs.version(options.postgres_bin / "postgres"),
        "Python": platform.python_version(),
        "cryptography": version("cryptography"),
    }
    return "\n".join(
        [
            "# Benchmarks",
            "",
            "<!-- Written by `make bench >docs/benchmarks.md`; edits here are lost. -->",
            "",
            textwrap.fill(
                "Measured with the installed wheel, files in memory as in a pod. Other machines have other numbers, "
                "and busy ones have worse: the ratios to what was run in the same minute tell more.",
                120,
            ),
            "",
            f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}",
            f"- {', '.join(f'{name} {number}' for name, number in named.items())}",
            "- `make bench >docs/benchmarks.md`",
        ]
    )


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def made_up_users(count: int) -> dict[str, str]:
    """Roles with passwords of a usual length; one is the check role, which must be there."""
    roles = [CHECK_ROLE, *(f"role_{number:05}" for number in range(1, count))]
    return {role: f"{number:05}-password-of-24-bytes" for number, role in enumerate(roles[:count])}


def run(command: Sequence[str | Path], *, cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"bench: {' '.join(map(str, command))}\n{result.stdout}{result.stderr}")


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def verdict(value: float, goal: float, unit: str, digits: int) -> str:
    met = "met" if value <= goal else "MISSED"
    return f"{value:.{digits}f} {unit}; the goal of {goal:g} {unit} is {met}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure rendering and booting.")
    parser.add_argument("--rounds", type=int, default=25, metavar="N", help="runs of the cold start (default: 25)")
    return programs.parse_with_programs(parser)


if __name__ == "__main__":
    main()
