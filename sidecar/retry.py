"""When to try again: full jitter, so that many pods do not knock at the same moments."""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import uniform

FIRST_SECONDS = 1.0
LONGEST_SECONDS = 60.0


@dataclass(slots=True)
class Backoff:
    """Delays that double from one second to a minute, each drawn between nothing and that."""

    draw: Callable[[float, float], float] = uniform
    _failures: int = field(default=0, init=False)

    def next(self) -> float:
        """Seconds to wait before the next attempt."""
        longest = min(FIRST_SECONDS * 2.0 ** min(self._failures, 16), LONGEST_SECONDS)
        self._failures += 1
        return self.draw(0.0, longest)

    def reset(self) -> None:
        """Something new is to be tried: begin again."""
        self._failures = 0
