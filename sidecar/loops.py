"""The threads of a running sidecar, and what wakes, beats and ends them."""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.probe import Verdict
from entrypoint.publish import GENERATIONS
from sidecar.events import Events
from sidecar.metrics import Metrics
from sidecar.rotation import Rotation
from sidecar.watcher import Watcher, never_updated

_BEAT_SECONDS = 60.0
"""A step has its beat with every login, each of which is over in seconds: without one for so long, it hangs."""
_STOP_SECONDS = 0.5
_PAUSE_SECONDS = 0.05


@dataclass(slots=True)
class Pulse:
    """When a loop last showed that it lives."""

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
        return Verdict(age <= patience, f"the rotation loop showed life {age:.0f} s ago")


class Loops:
    """Runs the rotation in one thread and its watcher in another until `stop` is set."""

    def __init__(
        self, rotation: Rotation, pulse: Pulse, *, run_dir: Path, reread: float, events: Events, metrics: Metrics
    ) -> None:
        self.stop = threading.Event()
        self._rotation = rotation
        self._pulse = pulse
        self._run_dir = run_dir
        self._reread = reread
        self._events = events
        self._metrics = metrics
        self._wake = threading.Event()
        self._watcher = Watcher(self._hint, self.stop, log=lambda line: events.warning("watch.mode", reason=line))
        self._errors = 0
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._watcher.run, self._rotate)]

    def start(self) -> None:
        """Start both threads. They are no obstacle to the end of the process."""
        for thread in self._threads:
            thread.start()

    def live(self) -> Verdict:
        """Whether the loop beats."""
        return self._pulse.verdict(_BEAT_SECONDS + self._reread)

    def ready(self) -> Verdict:
        """Whether there was a good state yet; a bad Secret never turns it back, for that would empty the Service."""
        status = self._rotation.status
        return Verdict(status.settled, status.reason or status.state.value)

    def _hint(self) -> None:
        self._metrics.watch_events.inc()
        self._wake.set()

    def _rotate(self) -> None:
        places: frozenset[Path] = frozenset()
        while not self.stop.is_set():
            self._wake.clear()
            try:
                self._rotation.step()
            except Exception as error:  # noqa: BLE001  # whatever it is, pgpool is served better by another try
                self._events.error("rotation.bug", error=type(error).__name__, reason=str(error))
                self.stop.wait(1.0)
            self._pulse.beat()
            self._account()
            if self._rotation.places != places:
                places = self._rotation.places
                self._warn_of_stuck(places)
            self._watcher.look_at(directories(places) | {self._run_dir / GENERATIONS})
            self._wake.wait(min(self._reread, max(self._rotation.due_seconds(), _PAUSE_SECONDS)))

    def end(self) -> None:
        """Stop both threads, and wait a moment for a step to end; one that does not is safe to leave anywhere."""
        self.stop.set()
        self._wake.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _account(self) -> None:
        self._metrics.watching(self._watcher.mode)
        if new := self._watcher.errors - self._errors:
            self._metrics.watch_errors.inc(new)
            self._errors += new

    def _warn_of_stuck(self, places: Iterable[Path]) -> None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return
        for file in never_updated((place for place in places if place.is_file()), mounts):
            self._events.warning(
                "watch.never_updated",
                file=str(file),
                reason="it is mounted by subPath, which never follows its Secret: mount the Secret's directory",
            )


def directories(places: Iterable[Path]) -> frozenset[Path]:
    """What to watch in order to hear of changes to these files and directories.

    A directory's parent, too: one that is removed and made again is another one.
    """
    return frozenset(place if place.is_dir() else place.parent for place in places)
