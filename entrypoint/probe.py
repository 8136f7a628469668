"""Asks a running pgpool, in the same container, whether it lives and whether it can serve.

PCP takes no client slot and no SQL, so a pool that is full, or a database that is away, never gets pgpool
killed. After each failover, and until the first primary is found, PCP is away for a while: then the
process and its socket tell that it lives. The same holds for readiness whenever PCP cannot list the nodes,
because its password was rotated, a node answers nobody, or a failback is under way: that stops no client.

Nothing that boot was given is read or judged again: a Secret that has become bad must never kill a pgpool
that serves. What a probe must know stands in inputs.json.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint.inputs import INPUTS, PCP_PASSWORD, Inputs, read_inputs, run_directory
from entrypoint.pcp import PcpAddress, PcpAnswer, run_pcp
from entrypoint.secret import Secret
from entrypoint.sources import Reader, SourceError, text

LIVE_SECONDS = 3.0
READY_SECONDS = 8.0
_CONNECT_SECONDS = 1.0
_UP = ("1", "2")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no, and why."""

    good: bool
    reason: str


def probe(kind: str, env: Mapping[str, str]) -> Verdict:
    """Probe for `live` or `ready`, with the container's own environment.

    Raises ConfigurationError when that does not tell the run directory, ProgramMissingError or
    ProgramUnusableError without the pcp tools.
    """
    run_dir = run_directory(env)
    boot = booted(run_dir)
    if isinstance(boot, Verdict):
        return boot
    if not _is_running(run_dir):
        return Verdict(False, "no pgpool runs here")
    address = PcpAddress(run_dir, boot.pcp_port, boot.pcp_user, pcp_password(boot, env, run_dir))
    seconds = LIVE_SECONDS if kind == "live" else READY_SECONDS
    tool, arguments = ("pcp_node_count", ()) if kind == "live" else ("pcp_node_info", ("-a",))
    answer = run_pcp(tool, arguments, address, env, seconds=seconds)
    return (live if kind == "live" else ready)(answer, lambda: socket_accepts(run_dir, boot.port))


def booted(run_dir: Path) -> Inputs | Verdict:
    """What boot was given; else a no, and why."""
    try:
        return read_inputs(run_dir)
    except FileNotFoundError:
        return Verdict(False, f"pgpool-entrypoint has not booted in {run_dir}")
    except (OSError, ValueError) as error:
        return Verdict(False, f"{run_dir / INPUTS} is not usable: {error}")


def live(answer: PcpAnswer, accepts: Callable[[], bool]) -> Verdict:
    """Judge what pcp_node_count said.

    Args:
        answer: the tool's answer.
        accepts: whether pgpool's own socket accepts a connection; asked only when PCP is away.
    """
    if answer.timed_out:
        return Verdict(False, f"PCP does not answer within {LIVE_SECONDS:.0f} s")
    if not _is_away(answer):
        return Verdict(True, "PCP answers")
    return by_socket("PCP is away, as during a failover", accepts)


def ready(answer: PcpAnswer, accepts: Callable[[], bool]) -> Verdict:
    """Judge what `pcp_node_info -a` said: a line per node, starting with host, port, status, weight, …, role.

    Args:
        answer: the tool's answer.
        accepts: whether pgpool's own socket accepts a connection; asked only when PCP lists no node.
    """
    if answer.timed_out:
        return by_socket(f"PCP does not list the nodes within {READY_SECONDS:.0f} s", accepts)
    if _is_away(answer):
        return by_socket("PCP is away, as during a failover", accepts)
    nodes = [line.split() for line in answer.output.splitlines()]
    primaries = [node for node in nodes if len(node) > 6 and node[2] in _UP and node[6] == "primary"]
    if primaries:
        return Verdict(True, f"the primary is {primaries[0][0]}:{primaries[0][1]}")
    if nodes:
        return Verdict(False, f"none of {len(nodes)} nodes is an attached primary")
    reason = " ".join(answer.errors.split()) or "no reason given"
    return by_socket(f"PCP does not list the nodes: {reason}", accepts)


def by_socket(why: str, accepts: Callable[[], bool]) -> Verdict:
    """The verdict of pgpool's own socket, when nothing else tells, and why that is."""
    good = accepts()
    return Verdict(good, f"{why}; pgpool's own socket accepts {'connections' if good else 'none'}")


def _is_away(answer: PcpAnswer) -> bool:
    return answer.status != 0 and "connection to" in answer.errors


def socket_accepts(run_dir: Path, port: int) -> bool:
    """Whether pgpool's Unix socket for clients accepts a connection, within a second."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_CONNECT_SECONDS)
        try:
            client.connect(f"{run_dir}/.s.PGSQL.{port}")
        except OSError:
            return False
        return True


def pcp_password(boot: Inputs, env: Mapping[str, str], run_dir: Path) -> Secret:
    """The administrator's password as it stands now, or an empty one: PCP's refusal proves that it answers."""
    if boot.pcp_password in boot.withheld:
        return Secret(env.get(boot.pcp_password, ""))
    path = boot.environment.get(f"{boot.pcp_password}_FILE", run_dir / PCP_PASSWORD)
    try:
        return Secret(text(Reader().file(Path(path))))
    except (SourceError, UnicodeDecodeError):
        return Secret("")


def _is_running(run_dir: Path) -> bool:
    """Whether the process that wrote pgpool.pid is there; the file ends in a NUL byte (src/main/main.c)."""
    try:
        pid = int((run_dir / "pgpool.pid").read_bytes().rstrip(b"\0\n"))
        return Path(f"/proc/{pid}/comm").read_text() == "pgpool\n"
    except (OSError, ValueError):
        return False
