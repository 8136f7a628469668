"""The threads of a running sidecar, and what wakes, beats and ends them."""

import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from entrypoint.inputs import read_inputs
from entrypoint.probe import Verdict
from entrypoint.publish import GENERATIONS
from sidecar.events import without_values
from sidecar.pulse import BEAT_SECONDS, Pulse
from sidecar.status import Status
from sidecar.surroundings import Surroundings
from sidecar.watcher import Watcher, never_updated

MOUNTS = Path("/proc/self/mountinfo")
_STOP_SECONDS = 0.5
_PAUSE_SECONDS = 0.05
_AFTER_FAILURE_SECONDS = 1.0


class Body(Protocol):
    """The part of sidecar.rotation.Rotation that is needed here."""

    @property
    def status(self) -> Status: ...  # noqa: D102  # as there

    @property
    def places(self) -> frozenset[Path]: ...  # noqa: D102  # as there

    def step(self) -> Status: ...  # noqa: D102  # as there

    def due_seconds(self) -> float: ...  # noqa: D102  # as there


class Loops:
    """Runs the rotation in one thread and its watcher in another until `stop` is set."""

    def __init__(self, rotation: Body, pulse: Pulse, around: Surroundings, *, mounts: Path = MOUNTS) -> None:
        """Start nothing yet.

        Args:
            rotation: what to run.
            pulse: beaten after each step, and by whatever the step does.
            around: the same surroundings that `rotation` has.
            mounts: what the kernel says of our mounts.
        """
        self.stop = threading.Event()
        self._rotation = rotation
        self._pulse = pulse
        self._around = around
        self._mounts = mounts
        self._wake = threading.Event()
        self._watcher = Watcher(
            self._wake.set, self.stop, log=lambda why: around.events.warning("watch.mode", reason=why)
        )
        # While nothing that it watches is there, the watcher looks up only once a second.
        self._watcher.look_at(frozenset({around.run_dir / GENERATIONS}))
        self._watches = True
        self._counted = {"events": 0, "errors": 0}
        self._told: set[str] = set()
        self._places: frozenset[Path] = frozenset()
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._watch, self._rotate)]

    def start(self) -> None:
        """Start both threads. They are no obstacle to the end of the process."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop both threads, and wait a moment for a step to end; one that does not is safe to leave anywhere."""
        self.stop.set()
        self._wake.set()
        deadline = time.monotonic() + _STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def live(self) -> Verdict:
        """Whether the loop beats."""
        return self._pulse.verdict(BEAT_SECONDS + self._around.options.reread)

    def ready(self) -> Verdict:
        """Whether logins proved a set; a bad Secret never turns it back, for that would empty the Service."""
        status = self._rotation.status
        return Verdict(status.settled, status.reason or status.state.value)

    def _watch(self) -> None:
        try:
            self._watcher.run()
        except Exception as error:  # noqa: BLE001  # the timed reading does without it, later
            self._watches = False
            self._around.events.error("watch.failed", **without_values(error))

    def _rotate(self) -> None:
        former: Mapping[str, str] = {}
        while not self.stop.is_set():
            self._wake.clear()
            failure: Mapping[str, str] = {}
            try:
                self._rotation.step()
                self._look_around()
            except Exception as error:  # noqa: BLE001  # whatever it is, pgpool is served better by another try
                failure = without_values(error)
            if failure and failure != former:  # told once
                self._around.events.error("rotation.failed", **failure)
            former = failure
            self._pulse.beat()
            if failure:
                self.stop.wait(_AFTER_FAILURE_SECONDS)
            self._wake.wait(max(_PAUSE_SECONDS, min(self._around.options.reread, self._rotation.due_seconds())))

    def _look_around(self) -> None:
        """All that goes with a step."""
        self._account()
        self._warn_of_other_settings()
        if self._rotation.places != self._places:
            self._places = self._rotation.places
            self._warn_of_stuck(self._places)
        self._watcher.look_at(directories(self._places) | {self._around.run_dir / GENERATIONS})

    def _account(self) -> None:
        metrics = self._around.metrics
        metrics.watching(self._watcher.mode if self._watches else "poll")
        for name, counter in (("events", metrics.watch_events), ("errors", metrics.watch_errors)):
            count = getattr(self._watcher, name)
            counter.inc(count - self._counted[name])
            self._counted[name] = count

    def _warn_of_stuck(self, places: Iterable[Path]) -> None:
        try:
            mounts = self._mounts.read_text()
        except OSError:
            return
        for file in never_updated(sorted(_files(places)), mounts):
            why = "it is mounted by subPath, which never follows its Secret: mount the Secret's directory"
            self._warn("watch.never_updated", file=str(file), reason=why)

    def _warn_of_other_settings(self) -> None:
        """We read our own settings from our own environment, because we start before pgpool boots."""
        try:
            given = read_inputs(self._around.run_dir).environment
        except (OSError, ValueError):
            return
        for name, value in given.items():
            if name.startswith("PGPOOL_SIDECAR_") and self._around.env.get(name) != value:
                how = "otherwise" if name in self._around.env else "not"
                why = f"given to the pgpool container, but {how} to this one, whose environment alone counts"
                self._warn("settings.unheeded", setting=name, reason=why)

    def _warn(self, event: str, **fields: str) -> None:
        """Tell it, once."""
        if (key := f"{event} {fields}") not in self._told:
            self._told.add(key)
            self._around.events.warning(event, **fields)


def directories(places: Iterable[Path]) -> frozenset[Path]:
    """What to watch in order to hear of changes to these files and directories."""
    return frozenset(place if place.is_dir() else place.parent for place in places)


def _files(places: Iterable[Path]) -> set[Path]:
    """The files among these, and directly in them: of a Secret volume, the reading notes only the directory."""
    found = set()
    for place in places:
        try:
            found |= {each for each in (place.iterdir() if place.is_dir() else (place,)) if each.is_file()}
        except OSError:
            continue
    return found
