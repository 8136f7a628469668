"""Waiting for a condition, never for a length of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

INTERVAL = 0.02


class DeadlineExpiredError(AssertionError):
    """A condition did not come true in time; the message holds whatever explains why."""


def wait_until(condition: Callable[[], T | None], *, timeout: float, failure: Callable[[], str]) -> T:
    """Return the condition's first true value, or fail with what `failure` has to say at that time."""
    deadline = time.monotonic() + timeout
    while True:
        if value := condition():
            return value
        if time.monotonic() >= deadline:
            raise DeadlineExpiredError(f"not true after {timeout:g} s: {failure()}")
        time.sleep(INTERVAL)
