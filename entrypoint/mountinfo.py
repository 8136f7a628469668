"""What /proc/self/mountinfo tells (proc_pid_mountinfo(5))."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath


@dataclass(frozen=True, slots=True)
class Mount:
    """One mount."""

    root: PurePath
    """What of its file system is mounted."""
    point: PurePath
    kind: str
    """Of the file system, such as `tmpfs`."""


def read_mounts(text: str) -> Iterator[Mount]:
    """The mounts in their order: a later one at the same point hides the earlier one."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        _, _, _, root, point, *_ = before.split(" ")
        yield Mount(_path(root), _path(point), after.split(" ")[0])


def _path(field: str) -> PurePath:
    r"""The kernel writes blanks, newlines and backslashes as `\040` and the like."""
    return PurePath(re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field))
