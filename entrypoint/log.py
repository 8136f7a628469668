"""Lines for people on standard error, in front of pgpool's own."""

from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True, slots=True)
class Log:
    """Writes one line per event. Callers pass names, counts and digests, never a secret."""

    program: str
    stream: TextIO

    def info(self, text: str) -> None:
        """Something was done."""
        self._write(text)

    def warning(self, text: str) -> None:
        """Something works now, but deserves somebody's attention."""
        self._write(f"warning: {text}")

    def error(self, text: str) -> None:
        """The run ends because of this."""
        self._write(f"error: {text}")

    def _write(self, text: str) -> None:
        self.stream.write(f"{self.program}: {text}\n")
        self.stream.flush()
