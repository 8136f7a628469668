"""The prober's own process: `python -m support.probe_client JOURNAL`, with its orders as a line of JSON on stdin.

It ends with stdin, so that it cannot outlive whoever started it.
"""

import gc
import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

import psycopg
from psycopg import sql

from support.probe_log import COPY, LOGIN, PREPARED, STEADY, TRANSACTION, Ack, Failure, Intent, Journal, Skip

RETRY_PAUSE = 0.05
"""Seconds between a failed attempt to connect and the next one."""
STALE = 1.0
"""Operations that are late by more than so many seconds are skipped, but for the one that was held."""
LAST_WORDS = 1.0
"""Seconds for what is under way when the process is to end."""
BETWEEN_ROWS = 0.05
"""Seconds between the rows of a transaction or a COPY."""
LONG_ROWS = 4
"""Rows of a transaction or a COPY."""

Where = tuple[str | None, str | None]
"""Timeline and node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """How many workers there are of each kind, and how often each has something to do (seconds)."""

    steady: int = 4
    """Workers that keep their session."""
    steady_interval: float = 0.05
    logins: int = 1
    """Workers that connect anew for each row."""
    login_interval: float = 0.2
    transactions: int = 0
    """Workers that write several rows in a transaction, slowly."""
    prepared: int = 0
    """Workers whose session holds a named prepared statement."""
    copies: int = 0
    """Workers that COPY several rows, slowly."""
    long_interval: float = 0.5
    """For these three."""

    @property
    def size(self) -> int:
        return self.steady + self.logins + self.transactions + self.prepared + self.copies


class Statements(NamedTuple):
    """Encoded once: doing it for each row is most of what a prober costs."""

    insert: bytes
    copy: bytes

    @classmethod
    def of(cls, table: sql.Composable) -> Self:
        insert = sql.SQL("INSERT INTO {} (worker, seq) VALUES (%s, %s) RETURNING timeline, node").format(table)
        copy = sql.SQL("COPY {} (worker, seq) FROM STDIN").format(table)
        return cls(insert.as_bytes(), copy.as_bytes())


TWO_ANSWERS = "COPY cannot be mixed with other operations"
"""What psycopg makes of more than one (psycopg/_cursor_base.py)."""

Write = Callable[[Statements, psycopg.Connection, str, int], Where]
"""Writes the rows of one operation, as the worker of that name, numbered from there on."""


def insert(
    statements: Statements, connection: psycopg.Connection, worker: str, seq: int, *, prepare: bool = False
) -> Where:
    row = connection.execute(statements.insert, (worker, seq), prepare=prepare).fetchone()
    assert row is not None
    return row[0], row[1]


def insert_in_transaction(statements: Statements, connection: psycopg.Connection, worker: str, first: int) -> Where:
    where: Where = None, None
    with connection.transaction():
        for seq in range(first, first + LONG_ROWS):
            where = insert(statements, connection, worker, seq)
            time.sleep(BETWEEN_ROWS)
    return where


def copy(statements: Statements, connection: psycopg.Connection, worker: str, first: int) -> Where:
    with connection.cursor() as cursor, cursor.copy(statements.copy) as rows:
        for seq in range(first, first + LONG_ROWS):
            rows.write(f"{worker}\t{seq}\n")  # write_row() would keep it back until there is more
            time.sleep(BETWEEN_ROWS)
    return None, None


class Means(NamedTuple):
    """What all workers share."""

    conninfo: str
    statements: Statements
    journal: Journal


class Worker:
    """One client with a schedule of its own, which nothing delays."""

    def __init__(self, name: str, means: Means, write: Write, *, rows: int, keeps: bool) -> None:
        """`keeps` its session, and waits for a new one when that is lost; else each operation has its own."""
        self.name = name
        self._conninfo, self._statements, self._journal = means
        self._write, self._rows, self._keeps = write, rows, keeps
        self._connection: psycopg.Connection | None = None
        self._session = 0
        self._worked = False
        self._let_in: float | None = None
        self._seq = 0

    def run(self, first: float, interval: float, stop: threading.Event) -> None:
        """Do what is due, from `first` on, until `stop`."""
        due = first
        while not stop.wait(max(0.0, due - time.monotonic())):
            self._operate(due, stop)
            due += interval
            missed = math.ceil((time.monotonic() - STALE - due) / interval)
            if missed > 0:
                due += missed * interval
                self._journal.write(Skip(time.monotonic(), self.name, missed))

    def _operate(self, due: float, stop: threading.Event) -> None:
        connection = self._connect(due)
        while connection is None:
            if not self._keeps or stop.wait(RETRY_PAUSE):
                return
            connection = self._connect(due)
        seqs = range(self._seq, self._seq + self._rows)
        self._seq += self._rows
        now = time.monotonic()
        self._journal.write(*(Intent(now, self.name, seq) for seq in seqs))
        try:
            where = self._write(self._statements, connection, self.name, seqs[0])
        except psycopg.InternalError as error:  # its own, of two errors where one is due: the server's, and pgpool's
            if not error.sqlstate:
                connection.close()
            self._fail(due, error, error.sqlstate or "two answers")
        except ValueError as error:  # the same, at the end of COPY
            connection.close()
            self._fail(due, error, "two answers")
        except psycopg.ProgrammingError as error:
            if mixed := TWO_ANSWERS in str(error):  # the same, at its beginning
                connection.close()
            self._fail(due, error, "two answers" if mixed else reason(error, connecting=False))
        except psycopg.Error as error:
            self._fail(due, error, reason(error, connecting=False))
        else:
            now = time.monotonic()
            self._journal.write(*(Ack(now, self.name, seq, due, *where) for seq in seqs))
            self._worked = True
        if not self._keeps or connection.closed:
            connection.close()
            self._connection = None

    def _connect(self, due: float) -> psycopg.Connection | None:
        """The session there is, or a new one; None if that fails."""
        if self._connection is None:
            self._session += 1
            self._worked = False
            self._let_in = None
            try:
                self._connection = psycopg.connect(self._conninfo, autocommit=True, prepare_threshold=None)
            except psycopg.Error as error:
                self._fail(due, error, reason(error, connecting=True))
            else:
                self._let_in = time.monotonic()
        return self._connection

    def _fail(self, due: float, error: Exception, why: str) -> None:
        words = " ".join(str(error).split())
        now = time.monotonic()
        self._journal.write(Failure(now, self.name, due, self._session, self._worked, why, words, self._let_in))


def reason(error: psycopg.Error, *, connecting: bool) -> str:
    """SQLSTATE, or what libpq's words come to; a mistake of our own is raised again."""
    words = str(error)
    if error.sqlstate:
        return error.sqlstate
    if not isinstance(error, psycopg.OperationalError):
        raise error
    if isinstance(error, psycopg.errors.ConnectionTimeout) or "timeout expired" in words:
        return "timeout"
    if not connecting or ("closed the connection" in words and "FATAL" not in words):
        return "eof"
    return "connect"


def hire(crew: Crew, means: Means) -> list[tuple[Worker, float, float]]:
    """The workers, each with its first operation, in seconds from the beginning, and its interval."""
    kinds: list[tuple[str, int, float, Write, int]] = [
        (STEADY, crew.steady, crew.steady_interval, insert, 1),
        (LOGIN, crew.logins, crew.login_interval, insert, 1),
        (TRANSACTION, crew.transactions, crew.long_interval, insert_in_transaction, LONG_ROWS),
        (PREPARED, crew.prepared, crew.long_interval, partial(insert, prepare=True), 1),
        (COPY, crew.copies, crew.long_interval, copy, LONG_ROWS),
    ]
    return [
        (
            Worker(f"{kind}-{number}", means, write, rows=rows, keeps=kind != LOGIN),
            interval * number / count,
            interval,
        )
        for kind, count, interval, write, rows in kinds
        for number in range(count)
    ]


def end(problem: threading.ExceptHookArgs) -> None:
    """No worker is missed in silence."""
    threading.__excepthook__(problem)
    os._exit(1)


def main() -> None:
    threading.excepthook = end
    conninfo, table, crew = json.loads(sys.stdin.readline())
    means = Means(conninfo, Statements.of(sql.Identifier(table)), Journal(Path(sys.argv[1])))
    stop = threading.Event()
    begin = time.monotonic()
    threads = [
        threading.Thread(target=worker.run, args=(begin + first, interval, stop), daemon=True)
        for worker, first, interval in hire(Crew(**crew), means)
    ]
    gc.freeze()
    gc.disable()  # so that no pause is of our own making; nothing here makes cycles worth collecting
    for thread in threads:
        thread.start()
    sys.stdin.read()
    stop.set()
    deadline = time.monotonic() + LAST_WORDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    os._exit(0)  # whoever is still held is not waited for


if __name__ == "__main__":
    main()
