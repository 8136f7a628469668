"""Reading Secrets while those who write them work as fast as they can, each in its own way.

A writer is a process of its own, so that it runs beside the reader and not in turns with it. This file is its program.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from entrypoint.sources import Reader, SourceError
from support.deadline import wait_until
from support.secret_volume import SecretVolume

USERNAME, PASSWORD = "username", "password"


def payload(revision: int) -> dict[str, bytes]:
    return {USERNAME: b"app user %d" % revision, PASSWORD: b"pass %d 100%%" % revision}


def note(revision: int) -> dict[str, bytes]:
    return {"note": b"100% odd"} if revision % 2 else {}


# --- the writers ----------------------------------------------------------------------------------------------------


def kubelet(path: Path, revisions: Iterator[int]) -> None:
    volume = SecretVolume(path)
    for revision in revisions:
        volume.write(payload(revision))


def older_kubelet(path: Path, revisions: Iterator[int]) -> None:
    """A third key comes and goes, so that its link in the mounted directory does too."""
    volume = SecretVolume(path, links_first=True)
    for revision in revisions:
        volume.write(payload(revision) | note(revision))


def vault_agent(path: Path, revisions: Iterator[int]) -> None:
    """One file after the other, each by a rename from a temporary name in the same directory."""
    for revision in revisions:
        for name, content in payload(revision).items():
            temporary = path / f"{revision}.tmp"
            temporary.write_bytes(content)
            temporary.rename(path / name)


def in_place(path: Path, revisions: Iterator[int]) -> None:
    """As a shell's `>` does: the file is empty for a moment.

    Before Linux 6.13, two changes within a tick of the clock (up to 10 ms) may leave the same time of change.
    """
    for revision in revisions:
        (path / PASSWORD).write_bytes(payload(revision)[PASSWORD])
        time.sleep(0.01)


Writer = Callable[[Path, Iterator[int]], None]
WRITERS: dict[str, Writer] = {writer.__name__: writer for writer in (kubelet, older_kubelet, vault_agent, in_place)}


@contextmanager
def at_work(writer: Writer, path: Path) -> Iterator[None]:
    path.mkdir()
    writer(path, iter([0]))
    program = [sys.executable, __file__, writer.__name__, str(path)]
    with subprocess.Popen(program, env={"PYTHONPATH": str(Path(__file__).parents[1])}) as process:
        try:
            wait_until(
                lambda: Reader().directory(path).files.get(PASSWORD) != payload(0)[PASSWORD],
                timeout=20,
                failure=lambda: f"{writer.__name__} writes nothing",
            )
            yield
            assert process.poll() is None, "the writer died, so the rest was read in peace"
        finally:
            process.kill()


# --- the readers ----------------------------------------------------------------------------------------------------

Files = Mapping[str, bytes]


def the_directory(reader: Reader, path: Path) -> Files:
    """As the users directory is read."""
    directory = reader.directory(path)
    if directory.faults:
        raise directory.faults[0]
    return directory.files


def each_file(reader: Reader, path: Path) -> Files:
    """As settings are read that name a file, through the links which people see."""
    return {name: reader.file(path / name) for name in (USERNAME, PASSWORD)}


@dataclass
class Readings:
    """Reads again and again. What did not stand still meanwhile does not count: `consistently` repeats it."""

    path: Path
    read: Callable[[Reader, Path], Files] = the_directory
    raced: int = 0

    def consistent(self, number: int) -> Iterator[Files]:
        """So many readings that count. An error in one of those is raised."""
        while number:
            reader = Reader()
            result: Files | SourceError
            try:
                result = self.read(reader, self.path)
            except SourceError as error:
                result = error
            if reader.changed():
                self.raced += 1
            elif isinstance(result, SourceError):
                raise result
            else:
                number -= 1
                yield result


def revision_of(value: bytes) -> int:
    return int(value.removeprefix(b"app user ").removeprefix(b"pass ").removesuffix(b" 100%"))


@pytest.mark.parametrize(
    ("writer", "read", "number"),
    [(kubelet, the_directory, 60_000), (kubelet, each_file, 30_000), (older_kubelet, the_directory, 10_000)],
)
def test_a_secret_volume_is_never_read_torn_or_missing(
    tmp_path: Path, writer: Writer, read: Callable[[Reader, Path], Files], number: int
) -> None:
    readings = Readings(tmp_path / "app", read)
    seen = set()
    with at_work(writer, readings.path):
        for files in readings.consistent(number):
            revision = revision_of(files[PASSWORD])
            assert files == payload(revision) | (note(revision) if writer is older_kubelet else {})
            seen.add(revision)
    assert len(seen) > 100, f"too few updates to prove anything: {readings}"
    assert readings.raced > 100, f"too few collisions to prove anything: {readings}"


def test_files_renamed_into_place_one_by_one_are_each_whole(tmp_path: Path) -> None:
    """Two renames are no transaction. Two revisions may meet in one reading, as they did meet on the disk.

    So a role and its password that are rotated together belong into one Secret volume.
    """
    readings = Readings(tmp_path / "app")
    ahead = set()
    with at_work(vault_agent, readings.path):
        for files in readings.consistent(4_000):
            username, password = revision_of(files[USERNAME]), revision_of(files[PASSWORD])
            assert files[USERNAME] == payload(username)[USERNAME]
            assert files[PASSWORD] == payload(password)[PASSWORD]
            ahead.add(username - password)
    assert ahead <= {0, 1}
    assert readings.raced > 100, f"too few collisions to prove anything: {readings}"


def test_a_file_written_in_place_is_whole_or_empty_and_never_stays_empty(tmp_path: Path) -> None:
    """It stands empty for a moment, and a reading that falls into that moment cannot know better.

    Promised is that it is nothing between two revisions, goes never back to an older one, and is whole when it is
    read again. An empty password is refused by who reads it, so what was read before stays in use until then.
    """
    readings = Readings(tmp_path / "app")
    latest = 0
    empty_since: float | None = None
    with at_work(in_place, readings.path):
        for files in readings.consistent(10_000):
            password = files[PASSWORD]
            if not password:
                empty_since = empty_since or time.monotonic()
                assert time.monotonic() < empty_since + 2, "it stays empty"
                continue
            empty_since = None
            revision = revision_of(password)
            assert password == payload(revision)[PASSWORD]
            assert revision >= latest
            latest = revision
    assert latest > 50, "too few updates to prove anything"


if __name__ == "__main__":
    WRITERS[sys.argv[1]](Path(sys.argv[2]), count(1))
