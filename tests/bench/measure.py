"""Running programs for their time and memory, turn by turn, so that a busy moment hits all of them alike.

And what /proc says of one that runs.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A process counts the memory of the one it was forked from as its own, so the fork is done by a small one: a bare
# interpreter, which ends by printing the peak in KiB.
PEAK = """
import os, sys
_, status, usage = os.wait4(os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ), 0)
sys.stdout.write(str(usage.ru_maxrss))
sys.exit(os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Command:
    """One thing to run to its end; it must succeed, and `before` is not measured."""

    arguments: Sequence[str | Path]
    environment: Mapping[str, str]
    before: Callable[[], object] | None = None

    def seconds(self) -> float:
        if self.before:
            self.before()
        begin = time.perf_counter()
        self._run(self.arguments)
        return time.perf_counter() - begin

    def peak_mebibytes(self) -> float:
        if self.before:
            self.before()
        bare = [sys.executable, "-I", "-S", "-c", PEAK]
        return int(self._run([*bare, *self.arguments]).split()[-1]) / 1024

    def _run(self, arguments: Sequence[str | Path]) -> str:
        result = subprocess.run(
            arguments,
            env=self.environment,
            cwd="/",  # Python would import from the current directory
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if result.returncode:
            words = " ".join(map(str, arguments))
            raise RuntimeError(f"{words} ended with {result.returncode}:\n{result.stdout}{result.stderr}")
        return result.stdout


@dataclass(frozen=True)
class Times:
    """Wall-clock seconds of several runs of one thing."""

    seconds: Sequence[float]

    @property
    def best(self) -> float:
        return min(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def p90(self) -> float:
        return self.percentile(90)

    @property
    def worst(self) -> float:
        return max(self.seconds)

    def percentile(self, percent: int) -> float:
        """The smallest that so many percent do not exceed (nearest rank)."""
        return sorted(self.seconds)[max(0, -(-percent * len(self.seconds) // 100) - 1)]


def interleaved(subjects: Mapping[str, Command], rounds: int) -> dict[str, Times]:
    """Run each once a round, beginning with another one each time; a first round warms caches and does not count."""
    names = list(subjects)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            seconds = subjects[name].seconds()
            if turn >= 0:
                taken[name].append(seconds)
    return {name: Times(seconds) for name, seconds in taken.items()}


def cpu_seconds(pid: int) -> float:
    """Processor time of a running process, and of its children that have ended and been waited for (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def resident_mebibytes(pid: int) -> tuple[float, float]:
    """Memory of a running process: now, and at its peak."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kibibytes = {name: value.split()[0] for name, _, value in (line.partition(":") for line in lines) if value.split()}
    return int(kibibytes["VmRSS"]) / 1024, int(kibibytes["VmHWM"]) / 1024


def proportional_mebibytes(pid: int) -> float:
    """Memory of a running process, what it shares counted in equal parts: to be summed over processes (proc(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (kibibytes,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(kibibytes) / 1024
