"""What a prober writes down: one line an event, each handed to the kernel before the next thing happens.

Times are seconds of the monotonic clock (time.monotonic()), which all processes of a machine share.
"""

import json
import os
from pathlib import Path
from typing import NamedTuple

STEADY, LOGIN, TRANSACTION, PREPARED, COPY = "steady", "login", "transaction", "prepared", "copy"
"""Kinds of workers; a worker is called after its kind, such as `steady-0`."""


def kind_of(worker: str) -> str:
    return worker.rpartition("-")[0]


class Intent(NamedTuple):
    """A row is about to be sent."""

    at: float
    worker: str
    seq: int


class Ack(NamedTuple):
    """A row has been acknowledged."""

    at: float
    worker: str
    seq: int
    due: float
    """When its operation was scheduled: what a client waited counts from here."""
    timeline: str | None
    """PostgreSQL's, in hexadecimal; None where the statement could not say (COPY)."""
    node: str | None
    """Address and port of the server that took it."""


class Failure(NamedTuple):
    """An operation, or an attempt to connect for it, has failed."""

    at: float
    worker: str
    due: float
    session: int
    """Number of the worker's session, or of its attempt to get one."""
    busy: bool
    """Whether that session had worked before; else it is the failure of a new connection."""
    reason: str
    """SQLSTATE; without one `timeout`, `eof` or `connect`."""
    words: str
    """The message, on one line."""
    let_in: float | None = None
    """When its login was through; None if that is what failed."""


class Skip(NamedTuple):
    """So many operations were dropped from the schedule because they were too late."""

    at: float
    worker: str
    operations: int


Record = Intent | Ack | Failure | Skip
KINDS: dict[str, type[Record]] = {each.__name__: each for each in (Intent, Ack, Failure, Skip)}


class Journal:
    """Appends to a file, from any thread; a process that is killed loses nothing that it has written."""

    def __init__(self, path: Path) -> None:
        """Open, or create, the file."""
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *records: Record) -> None:
        lines = (json.dumps([type(record).__name__, *record]) + "\n" for record in records)
        os.write(self._file, "".join(lines).encode())


class JournalReader:
    """Follows a file that may still be written."""

    def __init__(self, path: Path) -> None:
        """The file need not exist yet."""
        self._path = path
        self._read = 0
        self._records: list[Record] = []

    def records(self) -> list[Record]:
        """All whole lines so far; half a line is what a killed writer leaves."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._read)
                text, end, _ = file.read().rpartition(b"\n")
            self._read += len(text) + len(end)
            for line in text.splitlines():
                kind, *fields = json.loads(line)
                self._records.append(KINDS[kind](*fields))
        return self._records
