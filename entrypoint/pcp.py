"""Runs one of the pcp_* tools against pgpool's PCP socket, with a time limit.

A tool's exit status proves little (0 with errors, and it may hang): callers look at what it printed.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.child import minimal_environment
from entrypoint.errors import ProgramMissingError, ProgramUnusableError
from entrypoint.nameless import nameless_file, path_of
from entrypoint.secret import Secret


@dataclass(frozen=True, slots=True)
class PcpAddress:
    """How to reach and convince PCP."""

    socket_dir: Path
    port: int
    user: str
    password: Secret


@dataclass(frozen=True, slots=True)
class PcpAnswer:
    """What a pcp tool said; `timed_out`: it did not end by itself."""

    output: str
    errors: str
    status: int
    timed_out: bool = False


def run_pcp(
    tool: str, arguments: tuple[str, ...], address: PcpAddress, env: Mapping[str, str], *, seconds: float
) -> PcpAnswer:
    """Run a pcp tool such as `pcp_node_count` and return its words.

    The password reaches it in a file without a name: PCPPASSFILE accepts one with mode 0600 only
    (PasswordFromFile, src/libs/pcp/pcp.c); a command line would be readable by everybody.
    Raises ProgramMissingError when the tool is not installed, ProgramUnusableError when it cannot be executed.
    """
    line = f"*:*:{_escaped(address.user)}:{_escaped(address.password.reveal())}\n"
    at = ["-w", "-h", str(address.socket_dir), "-p", str(address.port), "-U", address.user]
    try:
        with nameless_file("pcppass", line.encode(errors="surrogateescape")) as file:
            process = subprocess.run(
                [tool, *at, *arguments],
                env={**minimal_environment(env), "PCPPASSFILE": path_of(file)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
                pass_fds=(file,),
            )
    except subprocess.TimeoutExpired:
        return PcpAnswer("", "", -1, timed_out=True)
    except FileNotFoundError:
        raise ProgramMissingError(f"{tool} is not on PATH; it belongs to pgpool") from None
    except OSError as error:
        raise ProgramUnusableError(f"{tool} cannot be executed: {error.strerror}") from None
    return PcpAnswer(process.stdout, process.stderr, process.returncode)


def _escaped(field: str) -> str:
    return field.replace("\\", "\\\\").replace(":", "\\:")
