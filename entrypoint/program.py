"""The pgpool executable: where it is, which version, what its parser says of a configuration; and to become it."""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from entrypoint.catalogue import DEFAULT_VERSION, Catalogue, load_catalogue
from entrypoint.child import minimal_environment
from entrypoint.errors import EntrypointError, ExitCode, ProgramMissingError, ProgramUnusableError
from entrypoint.nameless import nameless_file, path_of

_TIME_LIMIT_SECONDS = 30.0
_ACCEPTED = 1


class RejectedError(EntrypointError):
    """pgpool refuses what we rendered, by a rule of its own across parameters that we do not know."""

    exit_code = ExitCode.CONFIGURATION


@dataclass(frozen=True, slots=True)
class Program:
    """An installed pgpool."""

    path: Path
    version: str
    """Such as 4.6.1."""
    patches: frozenset[str] = frozenset()
    """The numbers of those in image/patches that it was built with, such as 09."""

    def dry_run(self, conf: bytes, env: Mapping[str, str]) -> None:
        """Have pgpool parse a pgpool.conf. Raises RejectedError with its own words.

        pgpool has no verb for this. One that it does not know makes it read the configuration first and
        then print its usage: exit status 1 after a good one, 3 after a bad one (src/main/main.c).
        """
        with nameless_file("pgpool.conf", conf) as file:
            result = _run([str(self.path), "-f", path_of(file), "configcheck"], env, pass_fds=(file,))
        if result.returncode < 0:
            number = -result.returncode
            raise ProgramUnusableError(f"{self.path} was ended by signal {number} while it read a pgpool.conf")
        if result.returncode != _ACCEPTED:
            words = [line for line in result.stderr.splitlines() if "FATAL" in line or "DETAIL" in line]
            raise RejectedError(
                f"{self.path} {self.version} rejects the configuration (exit status {result.returncode}): "
                f"{'; '.join(words) or 'it gave no reason'}\n"
                "  → correct the PGPOOL_PARAMS_… it speaks of; if there is none, this is our mistake: please report it"
            )


def find_program(env: Mapping[str, str]) -> Program:
    """The pgpool on PATH. Raises ProgramMissingError or ProgramUnusableError."""
    present = [path for directory in os.get_exec_path(env) if os.path.isfile(path := Path(directory, "pgpool"))]  # noqa: PTH113  # Path.is_file raises where a directory may not be entered
    found = next((path for path in present if os.access(path, os.X_OK)), None)
    if found is None:
        if present:
            raise ProgramUnusableError(f"{present[0]} is not executable for user id {os.geteuid()}; check its mode")
        raise ProgramMissingError(f"there is no pgpool on PATH ({env.get('PATH', '')}); install it, or correct PATH")
    result = _run([str(found), "--version"], env)
    said = result.stdout + result.stderr
    match = re.search(r"version ([0-9]+\.[0-9]+\S*)", said)
    if match is None:
        raise ProgramUnusableError(f"{found} --version ends with status {result.returncode} and names no version")
    patches = re.search(r"pgpool-entrypoint patches: ([0-9 ]*)", said)
    return Program(found, match[1], frozenset(patches[1].split() if patches else ()))


def catalogue_for(program: Program | None) -> Catalogue:
    """The parameters of the installed pgpool; without one, of the version we are made for."""
    return load_catalogue(DEFAULT_VERSION if program is None else program.version)


def become(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process. Raises ProgramMissingError or ProgramUnusableError."""
    # Python ignores these two, and exec would hand that on: `yes | head` then ends with an error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), dict(env))  # noqa: S606  # replacing this process is the point
    except FileNotFoundError:
        raise ProgramMissingError(f"{command[0]} is not there; check the name and PATH") from None
    except OSError as error:
        raise ProgramUnusableError(f"{command[0]} cannot be executed: {error.strerror}") from None


def _run(
    command: list[str], env: Mapping[str, str], *, pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=minimal_environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIME_LIMIT_SECONDS,
            check=False,
            pass_fds=pass_fds,
        )
    except OSError as error:
        raise ProgramUnusableError(f"{command[0]} cannot be executed: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise ProgramUnusableError(f"{command[0]} gave no answer within {_TIME_LIMIT_SECONDS:.0f} s") from None
