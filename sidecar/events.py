"""One line per transition on standard error, for people and for log collectors alike."""

import io
import json
import math
import os
import queue
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TextIO

from entrypoint.errors import EntrypointError

Format = Literal["logfmt", "json"]

_BACKLOG = 1024
"""Lines that may wait for their reader."""
_DRAIN_SECONDS = 0.25
"""The sidecar has a second to end, and gives half of it to its loops."""


class Unblocking(io.TextIOBase):
    """A stream for which no writer ever waits: a thread passes on what was written, in order.

    What finds no room, as nobody reads, is dropped: `write` then returns 0.
    """

    def __init__(self, file: int) -> None:
        """Start the thread; `file`: the descriptor that it writes to, past Python's buffer and its lock."""
        self._file = file
        self._waiting: queue.Queue[bytes] = queue.Queue(_BACKLOG)
        threading.Thread(target=self._pass_on, name="log", daemon=True).start()

    def write(self, text: str) -> int:
        """Take it, at once, or drop it."""
        try:
            self._waiting.put_nowait(text.encode(errors="backslashreplace"))
        except queue.Full:
            return 0
        return len(text)

    def drain(self) -> None:
        """Wait until all is written, for a moment at most."""
        done = self._waiting.all_tasks_done
        with done:
            done.wait_for(lambda: not self._waiting.unfinished_tasks, _DRAIN_SECONDS)

    def _pass_on(self) -> None:
        while True:
            left = self._waiting.get()
            with suppress(OSError):  # nobody will read it any more, or the volume is full
                while left:
                    left = left[os.write(self._file, left) :]
            self._waiting.task_done()


class Events:
    """Writes `ts=… level=… event=… name=value …`, or the same as a JSON object. Safe to use from any thread.

    A field that is None is left out. A Secret comes out as `(secret)`, in a list or mapping, too. `dropped` is how many
    lines are missing before this one.
    """

    def __init__(self, stream: TextIO, format: Format, clock: Callable[[], datetime]) -> None:  # noqa: A002  # its name
        self._stream = stream
        self._encode = _json if format == "json" else _logfmt
        self._clock = clock
        self._lock = threading.Lock()
        self._dropped = 0

    def info(self, event: str, **fields: object) -> None:
        """Something was done."""
        self._write("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something works now, but deserves somebody's attention."""
        self._write("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Something does not work, and somebody has to do something."""
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, object]) -> None:
        ts = self._clock().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._lock:
            line = self._encode({"ts": ts, "level": level, "event": event, **fields, "dropped": self._dropped or None})
            taken = 0
            # Rotation has to go on when nobody reads our words any more.
            with suppress(OSError):
                taken = self._stream.write(f"{line}\n")
                self._stream.flush()
            self._dropped = 0 if taken else self._dropped + 1


def _json(record: dict[str, object]) -> str:
    return json.dumps({name: _plain(value) for name, value in record.items() if value is not None})


def _logfmt(record: dict[str, object]) -> str:
    return " ".join(f"{name}={_word(_plain(value))}" for name, value in record.items() if value is not None)


def _plain(value: object) -> str | float:
    """What JSON can hold; anything else as text, which for a Secret is its constant representation."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, str | int) else str(value)


def _word(value: str | float) -> str:
    """A value of logfmt: bare, or quoted as a JSON string, in which no line can end."""
    if not isinstance(value, str):
        return json.dumps(value)
    if value.isprintable() and value and not set(value) & set(' "=\\'):
        return value
    # isprintable() is false for U+2028 and its like, at which some collectors end a line.
    return json.dumps(value, ensure_ascii=not value.isprintable())


def without_values(error: Exception) -> dict[str, str]:
    """What may be logged of an unforeseen error: its words could hold a piece of a Secret, its place cannot."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    place = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    told = {"error": type(error).__name__, "at": place}
    if isinstance(error, EntrypointError):  # our own words
        told["reason"] = str(error)
    elif isinstance(error, OSError):  # the kernel's
        told["reason"] = str(error.strerror)
    return told
