"""Reads settings and Secrets from the outside: files, and directories of files as one revision.

A Secret volume changes under our eyes: the kubelet writes a new timestamped directory and swaps the
symlink `..data` to it by one rename (its AtomicWriter). A `Reader` pins the directory behind `..data`
by descriptor and remembers what it looked at; `consistently` repeats the whole reading when any of it
changed meanwhile. So a user name never meets the password of another revision.
"""

import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from entrypoint.errors import ConfigurationError, Problem
from entrypoint.secret import may_hold_password

MAX_FILE_BYTES = 1_048_576
"""A Kubernetes Secret holds at most 1 MiB, so a longer file is none."""

_CHUNK_BYTES = 16_384
_ATTEMPTS = 25
_PAUSE_SECONDS = 0.02

T = TypeVar("T")


class SourceError(Exception):
    """A file or directory cannot be read; says why and never quotes content."""

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path} {what}")
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Raw:
    """A setting as found: its text, where that was found, and whether it may be shown."""

    value: str = field(repr=False)
    origin: str
    secret: bool = False

    def shown(self) -> str:
        """The text for people: a secret is only said to be there."""
        return "(secret)" if self.secret else self.value

    def quoted(self, what: str) -> str:
        """`what` is wrong with it, with the text in front unless that may be a secret.

        What comes from a file is not repeated: it may be the wrong file.
        """
        unseen = self.secret or self.origin.startswith("/") or may_hold_password(self.value)
        return what if unseen else f"{self.value!r} {what}"


@dataclass(frozen=True, slots=True)
class Directory:
    """One directory at one moment. Names that begin with a dot are left out."""

    path: Path
    files: Mapping[str, bytes] = field(repr=False)
    directories: Mapping[str, "Directory"] = field(default_factory=dict)
    faults: tuple[SourceError, ...] = ()
    """What is there, but could not be read, in the sub-directories too."""


class Reader:
    """Reads files and directories, and can tell afterwards whether they stood still."""

    def __init__(self) -> None:
        self._seen: dict[Path, object] = {}
        self._raced = False

    @property
    def places(self) -> frozenset[Path]:
        """Every path that was looked at; what is behind `..data` counts as its directory."""
        return frozenset(self._seen)

    def file(self, path: Path) -> bytes:
        """The content of one file. Raises SourceError when it is not to be had."""
        self._look_at(path)
        try:
            return _read(str(path), None)
        except (OSError, ValueError) as error:
            raise _explained(path, error) from None

    def directory(self, path: Path, *, depth: int = 0) -> Directory:
        """The files of a directory, and of `depth` levels of sub-directories.

        Raises SourceError when it cannot be opened; what in it cannot be read is in the result's `faults`.
        """
        self._look_at(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            raise _explained(path, error) from None
        try:
            return self._directory(path, descriptor, depth)
        except OSError as error:
            raise _explained(path, error) from None
        finally:
            os.close(descriptor)

    def changed(self) -> bool:
        """Whether anything read has changed since, or was caught in the middle of a change."""
        return self._raced or any(_identity(path) != before for path, before in self._seen.items())

    def _look_at(self, path: Path) -> None:
        # The first look counts: with the second, two looks at different revisions would pass for one.
        self._seen.setdefault(path, _identity(path))

    def _directory(self, path: Path, descriptor: int, depth: int) -> Directory:
        try:
            revision = os.open("..data", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
        except OSError:
            revision = None
        try:
            files: dict[str, bytes] = {}
            directories: dict[str, Directory] = {}
            faults: list[SourceError] = []
            for name, parent in sorted(_entries(descriptor, revision).items()):
                if parent != revision:
                    self._look_at(path / name)
                try:
                    if not stat.S_ISDIR(os.stat(name, dir_fd=parent).st_mode):
                        files[name] = _read(name, parent)
                    elif depth:
                        directories[name] = self._subdirectory(path / name, name, parent, depth - 1)
                        faults += directories[name].faults
                except OSError as error:
                    # Listed a moment ago: removed, or not yet given its mode, by a writer at work.
                    self._raced = self._raced or isinstance(error, FileNotFoundError | PermissionError)
                    faults.append(_explained(path / name, error))
            return Directory(path, files, directories, tuple(faults))
        finally:
            if revision is not None:
                os.close(revision)

    def _subdirectory(self, path: Path, name: str, parent: int, depth: int) -> Directory:
        descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
        try:
            return self._directory(path, descriptor, depth)
        finally:
            os.close(descriptor)


def consistently(read: Callable[[Reader], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
    """Run `read` until everything it looked at stood still from its first to its last look.

    Raises what `read` raises once nothing is in motion, and ConfigurationError when half a second
    of trying was not enough.
    """
    for attempt in range(1, _ATTEMPTS + 1):
        reader = Reader()
        try:
            result = read(reader)
        except ConfigurationError:
            if attempt == _ATTEMPTS or not reader.changed():
                raise
        else:
            if not reader.changed():
                return result
        sleep(_PAUSE_SECONDS)
    raise ConfigurationError(
        [
            Problem(
                "Secrets",
                "files",
                f"they kept changing during {_ATTEMPTS} attempts to read them at one moment",
                "find out what rewrites the mounted files all the time",
            )
        ]
    )


def text(content: bytes) -> str:
    """Decode a file's content, without the one newline that editors and `echo` put at its end.

    Raises UnicodeDecodeError when it is not UTF-8.
    """
    return content.decode().removesuffix("\n")


def _entries(descriptor: int, revision: int | None) -> dict[str, int]:
    """Visible names, each with the descriptor of the directory to read it from.

    With `..data`, the keys come from the pinned revision. Beside them stand things that are no key:
    another Secret mounted below this one. Symlinks there belong to some revision, maybe not ours.
    """
    with os.scandir(descriptor) as entries:
        own = {entry.name for entry in entries if revision is None or not entry.is_symlink()}
    found = dict.fromkeys(own, descriptor)
    if revision is not None:
        found |= dict.fromkeys(os.listdir(revision), revision)  # noqa: PTH208  # a descriptor has no Path
    return {name: parent for name, parent in found.items() if not name.startswith(".")}


def _read(name: str, parent: int | None) -> bytes:
    # Without O_NONBLOCK, opening a FIFO would wait for a writer for ever.
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=parent)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("is not a regular file")
        content = b""
        while chunk := os.read(descriptor, _CHUNK_BYTES):
            content += chunk
            if len(content) > MAX_FILE_BYTES:
                raise OSError(f"is longer than {MAX_FILE_BYTES} bytes")
        return content
    finally:
        os.close(descriptor)


def _identity(path: Path) -> object:
    """What changes when a path's content does: for a Secret volume, where `..data` points.

    Asked twice for every file of each reading, so without further Path objects.
    """
    try:
        return os.readlink(f"{path}/..data")  # noqa: PTH115  # see above
    except (OSError, ValueError):
        pass
    try:
        status = os.stat(path)  # noqa: PTH116  # see above
    except (OSError, ValueError) as error:
        return str(error)
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _explained(path: Path, error: OSError | ValueError) -> SourceError:
    match error:
        case ValueError():
            return SourceError(path, "is no path: it contains a NUL character", "write the path anew")
        case FileNotFoundError():
            return SourceError(path, "does not exist", "check the path and the volume mounts")
        case PermissionError():
            return SourceError(
                path,
                f"is not readable for user id {os.geteuid()}",
                "check defaultMode of the volume, and fsGroup of the pod",
            )
        case NotADirectoryError():
            return SourceError(path, "is not a directory", "give the directory, not a file in it")
        case _:
            return SourceError(path, error.strerror or str(error), "give a regular file of a Secret")
