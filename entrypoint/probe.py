"""Asks a running pgpool, in the same container, whether it lives and whether it can serve.

PCP takes no client slot and no SQL, so a pool that is full, or a database that is away, never gets pgpool
killed. After each failover, and until the first primary is found, PCP is away for a while: then the
process and its port tell that it lives, and new clients are being held rather than refused.
"""

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from entrypoint import inputs
from entrypoint.catalogue import Catalogue
from entrypoint.environment import load
from entrypoint.errors import ConfigurationError, Problem, Problems
from entrypoint.pcp import PcpAddress, PcpAnswer, run_pcp
from entrypoint.secret import Secret
from entrypoint.settings import Settings
from entrypoint.sources import Reader

LIVE_SECONDS = 3.0
READY_SECONDS = 8.0
_CONNECT_SECONDS = 1.0
_UP = ("1", "2")


@dataclass(frozen=True, slots=True)
class Verdict:
    """Yes or no, and why."""

    good: bool
    reason: str


def probe(kind: str, env: Mapping[str, str], catalogue: Catalogue) -> Verdict:
    """Probe for `live` or `ready`, with the container's own environment. Raises ConfigurationError."""
    problems = Problems()
    settings = load(env, catalogue, Reader(), problems)
    problems.raise_if_any()
    if not _is_running(settings.run_dir):
        return Verdict(False, "no pgpool runs here")
    given = {each.assignment.name: each.assignment.number for each in settings.params}
    port, pcp_port = (given.get(name) or _default(catalogue, name) for name in ("port", "pcp_port"))
    address = PcpAddress(settings.run_dir, pcp_port, settings.pcp_user, _pcp_password(settings))
    seconds = LIVE_SECONDS if kind == "live" else READY_SECONDS
    tool, arguments = ("pcp_node_count", ()) if kind == "live" else ("pcp_node_info", ("-a",))
    answer = run_pcp(tool, arguments, address, env, seconds=seconds)
    return (live if kind == "live" else ready)(answer, lambda: _accepts(settings.run_dir, port))


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
    return _judge_socket(accepts)


def ready(answer: PcpAnswer, accepts: Callable[[], bool]) -> Verdict:
    """Judge what `pcp_node_info -a` said: a line per node, starting with host, port, status, weight, …, role."""
    if answer.timed_out:
        return Verdict(False, f"PCP does not answer within {READY_SECONDS:.0f} s")
    if _is_away(answer):
        return _judge_socket(accepts)
    nodes = [line.split() for line in answer.output.splitlines()]
    primaries = [node for node in nodes if len(node) > 6 and node[2] in _UP and node[6] == "primary"]
    if primaries:
        return Verdict(True, f"the primary is {primaries[0][0]}:{primaries[0][1]}")
    if nodes:
        return Verdict(False, f"none of {len(nodes)} nodes is an attached primary")
    return Verdict(False, f"PCP refuses: {' '.join(answer.errors.split()) or 'no reason given'}")


def _default(catalogue: Catalogue, name: str) -> int:
    default = catalogue.parameters[name].default
    if not isinstance(default, int):
        raise TypeError(f"{name} has no number for a default")
    return default


def _judge_socket(accepts: Callable[[], bool]) -> Verdict:
    if accepts():
        return Verdict(True, "PCP is away, as during a failover; new clients are held")
    return Verdict(False, "neither PCP nor pgpool's socket accepts connections")


def _is_away(answer: PcpAnswer) -> bool:
    return answer.status != 0 and "connection to" in answer.errors


def _accepts(run_dir: Path, port: int) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_CONNECT_SECONDS)
        try:
            client.connect(f"{run_dir}/.s.PGSQL.{port}")
        except OSError:
            return False
        return True


def _pcp_password(settings: Settings) -> Secret:
    if settings.pcp_password is not None:
        return settings.pcp_password
    path = settings.run_dir / inputs.PCP_PASSWORD
    try:
        return Secret(path.read_text())
    except OSError as error:
        raise ConfigurationError(
            [
                Problem(
                    "PGPOOL_PCP_PASSWORD",
                    str(path),
                    f"is not readable: {error.strerror}",
                    "probe inside the container that boot ran in, as the same user",
                )
            ]
        ) from None


def _is_running(run_dir: Path) -> bool:
    """Whether the process that wrote pgpool.pid is there; the file ends in a NUL byte (src/main/main.c)."""
    try:
        pid = int((run_dir / "pgpool.pid").read_bytes().rstrip(b"\0\n"))
        return Path(f"/proc/{pid}/comm").read_text() == "pgpool\n"
    except (OSError, ValueError):
        return False
