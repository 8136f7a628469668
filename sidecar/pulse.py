"""What a loop shows of itself to whoever asks whether it lives."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from entrypoint.probe import Verdict

BEAT_SECONDS = 60.0
"""A step has its beat with every login, each of which is over in seconds: without one for so long, it hangs."""


@dataclass(slots=True)
class Pulse:
    """When a loop last showed that it lives."""

    name: str
    clock: Callable[[], float] = time.monotonic
    _last: float = field(init=False)

    def __post_init__(self) -> None:
        self.beat()

    def beat(self) -> None:
        """Show it."""
        self._last = self.clock()

    def verdict(self, patience: float) -> Verdict:
        """Whether it beat within `patience` seconds."""
        age = self.clock() - self._last
        return Verdict(age <= patience, f"the {self.name} loop showed life {age:.0f} s ago")
