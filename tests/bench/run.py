"""`make bench`: what the programs cost, each beside something else that ran in the same minute.

The report goes to standard output, progress to standard error. A part that fails says so in its place, and the rest is
measured nevertheless.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.booting import boot, many_users, start
from bench.misfortune import schedules
from bench.poolers import find_pgbouncer, poolers
from bench.report import paragraph, progress
from bench.resting import resting
from bench.rotation import to_the_proof, under_load
from bench.stage import Stage
from support import programs

MEMORY = Path("/dev/shm")
ENTRYPOINT, ROTATION, POOLERS = "entrypoint", "rotation", "poolers"

Part = Callable[[Stage], Iterator[str]]


def main() -> int:
    options = arguments()
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        home = Path(directory)
        parent = MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK) else home
        with tempfile.TemporaryDirectory(prefix="b-", dir=parent) as memory:
            stage = Stage(home, Path(memory), options.pgpool_bin, options.postgres_bin)
            lines, failed = measure(stage, parts(options))
    sys.stdout.write("\n".join([head(options), *lines]) + "\n")
    return 1 if failed else 0


def parts(options: argparse.Namespace) -> Mapping[str, Part]:
    """What is to be measured, by names for whoever waits."""
    entrypoint: dict[str, Part] = {
        "the cold start": lambda stage: start(stage, options.rounds),
        "many users": many_users,
        "boot to the first login": boot,
    }
    rotation: dict[str, Part] = {
        "rotations": lambda stage: to_the_proof(stage, options.rotations),
        "rotations under load": lambda stage: under_load(stage, options.rotations),
        "a sidecar at rest": lambda stage: resting(stage, options.rest),
        "random misfortune": lambda stage: schedules(stage, options.schedules),
    }
    beside: dict[str, Part] = {"beside PgBouncer": lambda stage: poolers(stage, options.pgbouncer, options.logins)}
    return {
        **(entrypoint if options.only in {None, ENTRYPOINT} else {}),
        **(rotation if options.only in {None, ROTATION} else {}),
        **(beside if options.only in {None, POOLERS} else {}),
    }


def measure(stage: Stage, parts: Mapping[str, Part]) -> tuple[list[str], list[str]]:
    """The report's lines, and the names of the parts that failed."""
    lines: list[str] = []
    failed: list[str] = []
    for name, part in parts.items():
        progress(name)
        begin = time.monotonic()
        try:
            for line in part(stage):
                lines.append(line)  # noqa: PERF402  # what came before an error stays
        except Exception as error:  # noqa: BLE001  # what the other parts measured is not to be lost
            traceback.print_exc()
            failed.append(name)
            words = str(error).partition("\n")[0]
            lines.append(f"\n**Not measured to the end: {type(error).__name__}: {words}**")
        progress(f"{name}: {time.monotonic() - begin:.0f} s")
    return lines, failed


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
            paragraph(
                "Files are in memory as in a pod. The entrypoint is the installed wheel's; the sidecar, which starts "
                "only once, runs from the checkout. Other machines have other numbers, and busy ones have worse: the "
                "ratios to what was run in the same minute tell more. p50 is the median; 99 of 100 do not exceed p99."
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure rendering, booting, rotating; pgpool beside PgBouncer.")
    parser.add_argument("--only", choices=(ENTRYPOINT, ROTATION, POOLERS), help="one part (default: all)")
    parser.add_argument(
        "--pgbouncer", type=Path, default=find_pgbouncer(), metavar="FILE", help="the program (default: what is there)"
    )
    for option, default, what in (
        ("rounds", 25, "runs of the cold start"),
        ("rotations", 100, "rotations, once at rest and once under load"),
        ("rest", 60, "seconds that a sidecar at rest is watched"),
        ("schedules", 1_000, "schedules of faults"),
        ("logins", 300, "logins through each pooler"),
    ):
        parser.add_argument(f"--{option}", type=int, default=default, metavar="N", help=f"{what} (default: {default})")
    return programs.parse_with_programs(parser)


if __name__ == "__main__":
    sys.exit(main())
