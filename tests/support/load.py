"""Clients at work: sessions that stay, and logins that come and go."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import psycopg

from support.deadline import wait_until
from support.pgpool_process import Pgpool

PAUSE = 0.01


@dataclass
class Tally:
    """What one kind of client did; an error is its time (time.time()) and its words."""

    done: int = 0
    errors: list[tuple[float, str]] = field(default_factory=list)
    longest: float = 0.0
    """Seconds that one operation took at most."""


class Load:
    """Runs from `with` to its end.

    Sessions log in once, and then run one statement after the other. The others log in, run one statement and leave,
    again and again, each time with the credentials of that moment.
    """

    def __init__(
        self, pgpool: Pgpool, credentials: Callable[[], tuple[str, str]], dbname: str, *, sessions: int, logins: int
    ) -> None:
        """Start nothing yet; `credentials` gives role and password."""
        self.statements, self.logins = Tally(), Tally()
        self._pgpool = pgpool
        self._credentials = credentials
        self._dbname = dbname
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._ended = [0] * logins
        """How many logins each of their threads has behind it."""
        self._threads = [threading.Thread(target=self._stay, daemon=True) for _ in range(sessions)]
        self._threads += [
            threading.Thread(target=self._come_and_go, args=(number,), daemon=True) for number in range(logins)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for_turnover(self, timeout: float) -> None:
        """Until each login that was under way has ended: the next ones have the credentials of now."""
        before = list(self._ended)
        wait_until(
            lambda: all(now > then for now, then in zip(self._ended, before, strict=True)),
            timeout=timeout,
            failure=lambda: f"{self._ended} logins, {before} before",
        )

    @property
    def errors(self) -> list[tuple[float, str]]:
        return [*self.statements.errors, *self.logins.errors]

    def _stay(self) -> None:
        connection: psycopg.Connection | None = None
        while not self._stop.wait(PAUSE):
            begin = time.monotonic()
            try:
                if connection is None or connection.closed:
                    connection = self._connect()
                connection.execute("SELECT 1")
                self._count(self.statements, begin)
            except psycopg.Error as error:
                self._count(self.statements, begin, error)
        if connection is not None:
            connection.close()

    def _come_and_go(self, number: int) -> None:
        while not self._stop.wait(PAUSE):
            begin = time.monotonic()
            try:
                with self._connect() as connection:
                    connection.execute("SELECT 1")
                self._count(self.logins, begin)
            except psycopg.Error as error:
                self._count(self.logins, begin, error)
            self._ended[number] += 1

    def _connect(self) -> psycopg.Connection:
        return self._pgpool.connect(*self._credentials(), self._dbname)

    def _count(self, tally: Tally, begin: float, error: psycopg.Error | None = None) -> None:
        with self._lock:
            tally.longest = max(tally.longest, time.monotonic() - begin)
            if error is None:
                tally.done += 1
            else:
                tally.errors.append((time.time(), " ".join(str(error).split())))
