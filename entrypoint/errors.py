"""What can go wrong, in the words a tired person needs, and the exit code each kind ends with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    """Every exit code of both programs; 64, 73 and 78 as in sysexits.h, 126, 127 and 130 as in a shell."""

    OK = 0
    BUG = 1
    NO = 1
    """The answer `no` of `probe` and of `pgpool-sidecar --once`: Docker's HEALTHCHECK knows but 0 and 1."""
    USAGE = 64
    CANNOT_PUBLISH = 73
    CONFIGURATION = 78
    CANNOT_EXECUTE = 126
    NOT_FOUND = 127
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with the configuration. No field ever holds a secret's value."""

    setting: str
    """The setting, parameter or role as the user wrote it."""
    origin: str
    """Where its value came from: `environment`, a file's path, or `default`."""
    what: str
    remedy: str

    def __str__(self) -> str:
        """The problem as three indented lines: who, what, what to do."""
        return f"  {self.setting} ({self.origin})\n      {self.what}\n      → {self.remedy}"

    @property
    def line(self) -> str:
        """The same as one line."""
        return f"{self.setting} ({self.origin}) {self.what} → {self.remedy}"


class EntrypointError(Exception):
    """The root of everything this project raises on purpose."""

    exit_code = ExitCode.BUG


class ConfigurationError(EntrypointError):
    """The configuration cannot be used; carries every problem found, not only the first."""

    exit_code = ExitCode.CONFIGURATION

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n".join(map(str, problems))
        super().__init__(f"{count} in the configuration; nothing was started or changed\n{lines}")


class PublishError(EntrypointError):
    """The files are right, but they cannot be written."""

    exit_code = ExitCode.CANNOT_PUBLISH


class ProgramMissingError(EntrypointError):
    """A program that we are to run is not there."""

    exit_code = ExitCode.NOT_FOUND


class ProgramUnusableError(EntrypointError):
    """A program that we are to run is there, but cannot be executed."""

    exit_code = ExitCode.CANNOT_EXECUTE


class Problems:
    """Collects problems, so that one run reports all of them."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, setting: str, origin: str, what: str, remedy: str) -> None:
        """Note one problem; identical ones are kept once."""
        problem = Problem(setting, origin, what, remedy)
        if problem not in self._found:
            self._found.append(problem)

    def __len__(self) -> int:
        return len(self._found)

    def __iter__(self) -> Iterator[Problem]:
        return iter(self._found)

    def raise_if_any(self) -> None:
        """Raise ConfigurationError with all that was collected."""
        if self._found:
            raise ConfigurationError(self._found)
