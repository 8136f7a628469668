"""The pgpool executable: where it is, which version, and what its own parser says of a configuration."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.errors import EntrypointError, ExitCode, ProgramMissingError, ProgramUnusableError

_TIME_LIMIT_SECONDS = 30.0
_ACCEPTED, _REJECTED = 1, 3


class RejectedError(EntrypointError):
    """pgpool refuses to parse what we rendered, which our own checks should have prevented."""

    exit_code = ExitCode.CONFIGURATION


@dataclass(frozen=True, slots=True)
class Program:
    """An installed pgpool."""

    path: Path
    version: str
    """Such as 4.6.1."""

    @property
    def minor(self) -> str:
        """The part of the version that decides the parameters, such as 4.6."""
        return ".".join(self.version.split(".")[:2])

    def dry_run(self, conf: bytes, env: Mapping[str, str]) -> None:
        """Have pgpool parse a pgpool.conf. Raises RejectedError with its own words.

        pgpool has no verb for this. One that it does not know makes it read the configuration first and
        then print its usage: exit status 1 after a good one, 3 after a bad one (src/main/main.c).
        """
        descriptor = os.memfd_create("pgpool.conf")
        try:
            os.write(descriptor, conf)
            result = _run(
                [str(self.path), "-f", f"/proc/self/fd/{descriptor}", "configcheck"],
                env,
                pass_fds=(descriptor,),
            )
        finally:
            os.close(descriptor)
        if result.returncode != _ACCEPTED:
            words = [line for line in result.stderr.splitlines() if "FATAL" in line or "DETAIL" in line]
            raise RejectedError(
                f"{self.path} {self.version} rejects the configuration (exit status {result.returncode}): "
                f"{'; '.join(words) or 'it gave no reason'}\n"
                "  → our own checks let this pass: please report it, with the output of `pgpool-entrypoint check`"
            )


def find_program(env: Mapping[str, str]) -> Program:
    """The pgpool on PATH. Raises ProgramMissingError or ProgramUnusableError."""
    path = env.get("PATH", os.defpath)
    found = shutil.which("pgpool", path=path)
    if found is None:
        present = shutil.which("pgpool", mode=os.F_OK, path=path)
        if present is not None:
            raise ProgramUnusableError(f"{present} is not executable for user id {os.geteuid()}; check its mode")
        raise ProgramMissingError(f"there is no pgpool on PATH ({path}); install it, or correct PATH")
    result = _run([found, "--version"], env)
    match = re.search(r"version ([0-9]+\.[0-9]+[^ ]*)", result.stdout + result.stderr)
    if match is None:
        raise ProgramUnusableError(f"{found} --version ends with status {result.returncode} and names no version")
    return Program(Path(found), match[1])


def _run(
    command: list[str], env: Mapping[str, str], *, pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command,
            env=env,
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
