"""Watches the directories that Secrets are mounted at, and hints that something may have changed.

A hint decides nothing: who gets one reads everything again, and compares. He does the same from time to time
without a hint, for inotify can be missing, exhausted, or silent (gVisor, Kata, network file systems).
"""

import os
import stat
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import watchfiles

from entrypoint.mountinfo import read_mounts

Mode = Literal["inotify", "poll"]
Batches = Generator[set[tuple[watchfiles.Change, str]], None, None]

_STEP_SECONDS = 0.075
_CEILING_SECONDS = 0.85
"""A hint comes when one step brought nothing new, 75 to 150 ms after a change; each step costs, at rest too. If every
step brings something, it comes after this time and at most two steps more: within a second."""


class Watcher:
    """Run in a thread of its own; all else may be used from other threads.

    It watches the directories themselves. What it would watch in them, a file or the `..data` of a Secret volume,
    is replaced by every update, and a watch of the old one is deaf from then on.

    Args:
        hint: called in the watching thread, so it must be quick, and must not raise. Besides every change, it
            tells of every new watch, for nobody saw what happened before that stood.
        stop: ends `run`, within a tenth of a second or so.
        log: takes one line per change of `mode`.
        watch: watchfiles.watch, or what stands for it.
        beat_seconds: how often to look whether the directories are still the same ones.
        retry_seconds: how long to leave inotify alone after it has failed.
    """

    def __init__(
        self,
        hint: Callable[[], None],
        stop: threading.Event,
        *,
        log: Callable[[str], None],
        watch: Callable[..., Batches] = watchfiles.watch,
        beat_seconds: float = 1.0,
        retry_seconds: float = 60.0,
    ) -> None:
        self.mode: Mode = "inotify"
        self.events = 0
        """Batches of changes so far."""
        self.errors = 0
        """Failures of inotify so far."""
        self._hint = hint
        self._stop = stop
        self._log = log
        self._watch = watch
        self._beat_seconds = beat_seconds
        self._retry_seconds = retry_seconds
        self._retry_at = 0.0
        self._directories: frozenset[Path] = frozenset()

    def look_at(self, directories: frozenset[Path]) -> None:
        """Watch these from now on, the missing ones as soon as they are there. Paths are absolute."""
        if directories != self._directories:
            self._directories = directories

    def run(self) -> None:
        """Watch until `stop` is set."""
        while not self._stop.is_set():
            directories = self._directories
            there = _identities(directories)
            self._hint()
            with closing(self._beats(directories, there)) as beats:
                for number, changed in enumerate(beats):
                    if changed or number == 0:
                        self._hint()
                    # A watch stays with the directory it was made for, though its name may be another's by now.
                    if self._directories is not directories or _identities(directories) != there:
                        break

    def _beats(self, directories: frozenset[Path], there: Iterable[Path]) -> Generator[bool, None, None]:
        """Whether something has changed, every now and then. Ends when it should be called anew."""
        paths = sorted(map(str, there))
        if paths and time.monotonic() >= self._retry_at:
            try:
                with closing(self._batches(directories, paths)) as batches:
                    for batch in batches:
                        self._enter("inotify", "inotify works again")
                        self.events += bool(batch)
                        yield bool(batch)
                        # A new directory may have got the old one's i-node number, so this tells more than _identities.
                        if any(path in paths for _, path in batch):
                            break
            except FileNotFoundError:
                pass  # Removed since we found it. The next round looks again.
            except (OSError, RuntimeError) as error:
                # Too many watches are an OSError, too many inotify instances a RuntimeError.
                self.errors += 1
                self._retry_at = time.monotonic() + self._retry_seconds
                self._enter("poll", f"inotify fails, so changes are noticed by the timed reading alone: {error}")
            else:
                return
        while not self._stop.wait(self._beat_seconds):
            yield False
            if paths and time.monotonic() >= self._retry_at:
                return

    def _batches(self, directories: frozenset[Path], paths: list[str]) -> Batches:
        # One call is one inotify instance, of which all containers of a user id on a node share 128.
        return self._watch(
            *paths,
            watch_filter=None,  # The default one drops names that a Secret's key may well have.
            debounce=round(_CEILING_SECONDS * 1000),
            step=round(_STEP_SECONDS * 1000),
            rust_timeout=round(self._beat_seconds * 1000),
            yield_on_timeout=True,
            stop_event=SimpleNamespace(is_set=lambda: self._stop.is_set() or self._directories is not directories),
            recursive=False,
            # Given, so that WATCHFILES_… of the environment have no say.
            debug=False,
            force_polling=False,  # It compares whole seconds of mtime, and misses changes.
            ignore_permission_denied=False,  # It would swallow every other error as well.
        )

    def _enter(self, mode: Mode, why: str) -> None:
        if mode != self.mode:
            self.mode = mode
            self._log(why)


def never_updated(files: Iterable[Path], mountinfo: str) -> list[Path]:
    """Which of these files will not follow their Secret, because they are mounted by `subPath`.

    That mounts what `..data` led to when the container started. It is told from a file that is a mount point itself,
    or that lies in a mount whose root goes through a name like `..2026_06_01_12_00_00.123`, as only the kubelet's
    AtomicWriter makes them.

    Not told: a file mounted alone from elsewhere (Docker's `--volume`), which does follow those who write it in
    place; a path through a symbolic link to another mount; `subPath` of a volume driver that lays files out
    differently; and Secrets that never change (`immutable: true`).

    Args:
        files: absolute paths of files, not of directories: a directory is often a mount point of its own.
        mountinfo: text of /proc/self/mountinfo.
    """
    roots = {mount.point: mount.root for mount in read_mounts(mountinfo)}

    def stuck(file: Path) -> bool:
        point = next((place for place in (file, *file.parents) if place in roots), None)
        return point is not None and (point == file or any(name.startswith("..") for name in roots[point].parts))

    return [file for file in files if stuck(file)]


def _identities(directories: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """The directories that are there, and which ones they are. What may not be read, inotify does not watch either."""
    found = {}
    for path in directories:
        with suppress(OSError):
            status = path.stat()
            if stat.S_ISDIR(status.st_mode) and os.access(path, os.R_OK):
                found[path] = (status.st_dev, status.st_ino)
    return found
