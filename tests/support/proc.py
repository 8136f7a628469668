"""The process table as /proc shows it, and searches for secrets that have escaped into it."""

import os
import signal
import subprocess
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

# A process that ended while it was being looked at is a process that is not there.
GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True)
class Stat:
    """The fields of /proc/PID/stat that say what a process belongs to."""

    state: str
    parent: int
    group: int
    session: int


def stat(pid: int) -> Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
    except GONE:
        return None
    # The command name stands in parentheses and may itself contain any of them.
    state, parent, group, session = text.rpartition(")")[2].split()[:4]
    return Stat(state, int(parent), int(group), int(session))


def members(leader: int) -> list[int]:
    """All living processes (zombies are dead) in the process group or session that `leader` started."""
    found = []
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        facts = stat(int(entry.name))
        if facts and facts.state not in "ZX" and leader in {facts.group, facts.session}:
            found.append(int(entry.name))
    return sorted(found)


def children(parent: int) -> list[int]:
    pids = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return sorted(pid for pid in pids if (facts := stat(pid)) and facts.parent == parent)


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    """Processes that do not run, and whose sockets live, unless they are killed meanwhile."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with suppress(*GONE):
                os.kill(pid, signal.SIGCONT)


def cmdline(pid: int) -> bytes:
    """The command line with its NUL separators; empty for a process that is gone."""
    return _contents(pid, "cmdline")


def environ(pid: int) -> bytes:
    """The environment the process was started with; empty for a process that is gone."""
    return _contents(pid, "environ")


def open_files(pid: int) -> dict[int, str]:
    """File descriptor → what it refers to, as `/proc/PID/fd` spells it."""
    try:
        entries = list((PROC / str(pid) / "fd").iterdir())
    except GONE:
        return {}
    files = {}
    for entry in entries:
        try:
            files[int(entry.name)] = str(entry.readlink())
        except GONE:
            continue
    return files


def describe(pids: Iterable[int]) -> str:
    """One line a process, for failure messages."""
    commands = {pid: cmdline(pid).replace(b"\0", b" ").decode(errors="replace") for pid in pids}
    return "\n".join(f"{pid}: {command}" for pid, command in commands.items())


def find_in_processes(pids: Iterable[int], needle: bytes) -> list[str]:
    """Where `needle` can be seen from outside: `PID cmdline`, `PID environ`."""
    assert needle, "an empty needle is everywhere"
    return [
        f"{pid} {name}"
        for pid in pids
        for name, contents in (("cmdline", cmdline(pid)), ("environ", environ(pid)))
        if needle in contents
    ]


def scan_files(directory: Path, needle: bytes) -> list[Path]:
    """The regular files anywhere under `directory` that contain `needle`, symbolic links not followed."""
    assert needle, "an empty needle is everywhere"
    return sorted(
        path
        for path in directory.rglob("*")
        if path.is_file() and not path.is_symlink() and needle in path.read_bytes()
    )


def shared_memory(creators: Collection[int]) -> list[int]:
    """Identifiers of the System V shared memory segments which these processes created."""
    header, *rows = (PROC / "sysvipc/shm").read_text().splitlines()
    names = header.split()
    segment, creator = names.index("shmid"), names.index("cpid")
    return [int(fields[segment]) for row in rows if int((fields := row.split())[creator]) in creators]


def remove_shared_memory(segments: Iterable[int]) -> None:
    for segment in segments:
        subprocess.run(["ipcrm", "--shmem-id", str(segment)], check=True)


def _contents(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except GONE:
        return b""
