"""The latest answer to a slow question: one thread asks, everybody shares the answer, nobody waits for long."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """An answer, and what it is worth."""

    value: T
    age: float
    """Seconds since it was asked for: more than a few, when newer answers do not come, or asking for them fails."""


class Latest(Generic[T]):
    """Asks only when somebody wants to know, one question at a time, and not more often than every `fresh` seconds.

    `ask` runs in a thread of its own and must end by itself; it must not raise, for then nothing is learnt.
    """

    def __init__(self, ask: Callable[[], T], *, fresh: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask = ask
        self._fresh = fresh
        self._clock = clock
        self._changed = threading.Condition()
        self._asking = False
        self._answer: tuple[T, float] | None = None

    def get(self, patience: float) -> Seen[T] | None:
        """The latest answer, waiting at most `patience` seconds for a new one; None when there never was any."""
        with self._changed:
            if not self._asking and not self._is_fresh():
                threading.Thread(target=self._run, args=(self._clock(),), daemon=True).start()
                self._asking = True
            self._changed.wait_for(lambda: not self._asking, patience)
            if self._answer is None:
                return None
            value, asked = self._answer
            return Seen(value, self._clock() - asked)

    def _is_fresh(self) -> bool:
        return self._answer is not None and self._clock() - self._answer[1] < self._fresh

    def _run(self, asked: float) -> None:
        try:
            value = self._ask()
            with self._changed:
                self._answer = value, asked
        finally:
            with self._changed:
                self._asking = False
                self._changed.notify_all()
