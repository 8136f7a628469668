"""pgpool's administration protocol, typed: the pcp_* tools with time limits, their answers as frozen values.

A tool's exit status proves nothing: it is 0 for most errors, so that what was printed decides
(src/tools/pcp/pcp_frontend_client.c). The listings are asked for in their verbose form, where each field has
its name: names of databases and roles may contain blanks, and columns move from one release to the next.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn, TypeVar

from entrypoint.pcp import PcpAddress, PcpAnswer, run_pcp

T = TypeVar("T")

Record = Mapping[str, str]

WAITING, CONNECTING = "Wait for connection", "Connecting"
"""What Process.status says of a child without a client (src/utils/pool_process_reporting.c)."""

UP = (1, 2)
"""The values of Node.status of a node that is in use."""

_PROCESS_END = frozenset({"Client connection count", "Connected", "PID", "Backend ID", "Status"})
"""What follows the names in a record of pcp_proc_info. To forge these lines takes more than the 126 bytes of two names
(POOL_REPORT_POOLS, src/include/pcp/libpcp_ext.h): each has 28 bytes before its value."""

_SUCCESS = "Command Successful"
_AWAY = ("connection to ", "unable to read data from socket", "sending data to backend failed")
"""How libs/pcp/pcp.c says that nobody is there, or that PCP was restarted in the middle of a command."""


class PcpError(Exception):
    """A command was not carried out, or its answer makes no sense; the text holds no secret."""

    def __init__(self, tool: str, reason: str, *, away: bool) -> None:
        super().__init__(f"{tool}: {reason}")
        self.away = away
        """PCP was not there, or did not answer in time: as for a second or two after each failover."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One backend as pgpool sees it."""

    node_id: int
    host: str
    port: int
    status: int
    """0 unused, 1 up and not yet used, 2 up, 3 down."""
    status_name: str
    pg_status: str
    weight: float
    role: str
    """What pgpool takes it for."""
    pg_role: str
    """What the server says itself."""
    replication_delay: float
    delay_unit: Literal["bytes", "seconds"]
    replication_state: str
    last_change: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A child's place for a connection to one backend; a child has max_pool of them for every backend."""

    pid: int
    status: str
    """`Idle` (in a session), `Wait for connection`, …"""
    client_connections: int
    """How many clients it has served."""
    database: str
    """Empty, like `username`: the place was never used."""
    username: str
    backend_id: int
    connected: bool
    """Whether a client uses it now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChecks:
    """What became of one node's health checks since pgpool's start."""

    node_id: int
    status: str
    role: str
    total_count: int
    """Checks begun."""
    success_count: int
    fail_count: int
    skip_count: int
    retry_count: int
    average_retry_count: float
    max_retry_count: int
    max_duration: int
    """Milliseconds, like the next two."""
    min_duration: int
    average_duration: float
    last_failure: str | None
    """Pgpool's local time."""


class Pcp:
    """Runs commands; each method raises PcpError, ProgramMissingError or ProgramUnusableError."""

    def __init__(self, address: Callable[[], PcpAddress], env: Mapping[str, str], *, seconds: float = 3.0) -> None:
        """Run nothing yet.

        Args:
            address: where PCP is and its password; asked before each command, for the password may be rotated.
            env: where PATH comes from.
            seconds: how long a command may take.
        """
        self.calls: Callable[[str, Literal["ok", "error", "away"]], None] | None = None
        """Told the tool and the outcome of every command."""
        self._address = address
        self._env = env
        self._seconds = seconds

    def node_count(self) -> int:
        """How many backends are configured."""
        return self._ask("pcp_node_count", (), int)

    def nodes(self, *, seconds: float = 8.0) -> tuple[Node, ...]:
        """Every backend. pgpool connects to each of them for this, so it may take its time."""
        return self._ask("pcp_node_info", ("-a", "-v"), parse_nodes, seconds=seconds)

    def processes(self) -> tuple[Process, ...]:
        """The children that serve clients."""
        return self._ask("pcp_proc_info", ("-a", "-v"), parse_processes)

    def parameters(self) -> dict[str, str]:
        """The configuration that is in force, by parameter, as pgpool spells the values (`on` is 1)."""
        return self._ask("pcp_pool_status", (), parse_parameters)

    def health_checks(self, node_id: int) -> HealthChecks:
        """The statistics of one node's health checks."""
        return self._ask("pcp_health_check_stats", ("-n", str(node_id), "-v"), parse_health_checks)

    def reload(self) -> None:
        """Have pgpool read its configuration: a signal is on its way when this returns, no more."""
        self._command("pcp_reload_config")

    def attach(self, node_id: int) -> None:
        """Have a node taken into use. Success says that the request was taken."""
        self._command("pcp_attach_node", "-n", str(node_id))

    def detach(self, node_id: int) -> None:
        """Have a node taken out of use. Success says that the request was taken."""
        self._command("pcp_detach_node", "-n", str(node_id))

    def stop(self) -> None:
        """Stop pgpool, ending its sessions."""
        self._command("pcp_stop_pgpool", "-m", "f")

    def _command(self, tool: str, *arguments: str) -> None:
        self._ask(tool, arguments, _check_success)

    def _ask(
        self, tool: str, arguments: tuple[str, ...], parse: Callable[[str], T], *, seconds: float | None = None
    ) -> T:
        limit = self._seconds if seconds is None else seconds
        answer = run_pcp(tool, arguments, self._address(), self._env, seconds=limit)
        try:
            value = parse(answer.output)
        except (ValueError, KeyError):
            self._fail(tool, answer, limit)
        self._tell(tool, "ok")
        return value

    def _fail(self, tool: str, answer: PcpAnswer, seconds: float) -> NoReturn:
        away = answer.timed_out or answer.status < 0 or any(words in answer.errors for words in _AWAY)
        self._tell(tool, "away" if away else "error")
        if answer.timed_out:
            raise PcpError(tool, f"no answer within {seconds:g} s", away=True)
        reason = " ".join(answer.errors.split()).removeprefix(f"{tool}: ")
        raise PcpError(tool, reason or "an answer that makes no sense", away=away) from None

    def _tell(self, tool: str, outcome: Literal["ok", "error", "away"]) -> None:
        if self.calls is not None:
            self.calls(tool, outcome)


def parse_nodes(text: str) -> tuple[Node, ...]:
    """What `pcp_node_info -a -v` printed. Raises ValueError or KeyError."""
    records = _records(text)
    if not records:
        raise ValueError("lists no node")
    return tuple(_node(node_id, record) for node_id, record in enumerate(records))


def parse_processes(text: str) -> tuple[Process, ...]:
    """What `pcp_proc_info -a -v` printed. Raises ValueError or KeyError."""
    if not text:
        raise ValueError("says nothing, not even that there is no process")
    return tuple(_process(record) for record in _records(text, _PROCESS_END))


def parse_parameters(text: str) -> dict[str, str]:
    """What `pcp_pool_status` printed. Raises ValueError."""
    pairs = re.findall(r"^name : (.*)\nvalue: (.*)$", text, re.MULTILINE)
    if not pairs:
        raise ValueError("lists no parameter")
    return dict(pairs)


def parse_health_checks(text: str) -> HealthChecks:
    """What `pcp_health_check_stats -v` printed. Raises ValueError or KeyError."""
    (record,) = _records(text)
    return HealthChecks(
        node_id=int(record["Node Id"]),
        status=record["Status"],
        role=record["Role"],
        total_count=int(record["Total Count"]),
        success_count=int(record["Success Count"]),
        fail_count=int(record["Fail Count"]),
        skip_count=int(record["Skip Count"]),
        retry_count=int(record["Retry Count"]),
        average_retry_count=float(record["Average Retry Count"]),
        max_retry_count=int(record["Max Retry Count"]),
        max_duration=int(record["Max Health Check Duration"]),
        min_duration=int(record["Minimum Health Check Duration"]),
        average_duration=float(record["Average Health Check Duration"]),
        last_failure=record["Last Failed Health Check"] or None,
    )


def _check_success(text: str) -> None:
    if _SUCCESS not in text:
        raise ValueError("no success")


def _node(node_id: int, record: Record) -> Node:
    # "12345" are bytes; "0.250000 second" and "2.500000 seconds" say what they are.
    delay, _, unit = record["Replication Delay"].partition(" ")
    return Node(
        node_id=node_id,
        host=record["Hostname"],
        port=int(record["Port"]),
        status=int(record["Status"]),
        status_name=record["Status Name"],
        pg_status=record["Backend Status Name"],
        weight=float(record["Weight"]),
        role=record["Role"],
        pg_role=record["Backend Role"],
        replication_delay=float(delay),
        delay_unit="seconds" if unit else "bytes",
        replication_state=record["Replication State"],
        last_change=record["Last Status Change"],
    )


def _process(record: Record) -> Process:
    return Process(
        pid=int(record["PID"]),
        status=record["Status"],
        client_connections=int(record["Client connection count"]),
        database=record["Database"],
        username=record["Username"],
        backend_id=int(record["Backend ID"]),
        connected=record["Connected"] == "1",
    )


def _records(text: str, last: frozenset[str] = frozenset()) -> list[Record]:
    """The blocks of `Label   : value` lines, apart by an empty line. Raises ValueError.

    A block without all the labels of `last` is none of pgpool's own making: an empty line in a name ends it, and the
    record goes on with the next. Labels count only with pgpool's own padding, and the last line of a label counts.
    """
    column = text.find(": ")
    records: list[Record] = []
    begun: dict[str, str] = {}
    for block in text.split("\n\n"):
        found = {
            line[:column].rstrip(): line[column + 2 :]
            for line in block.split("\n")
            if column > 0 and line[column : column + 2] == ": "
        }
        begun |= found
        if found and found.keys() >= last:
            records.append(begun)
            begun = {}
    if begun:
        raise ValueError("ends within a record")
    return records
