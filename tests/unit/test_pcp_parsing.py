"""What is made of the pcp tools' words; their forms are those of pgpool 4.6.1."""

from collections.abc import Callable
from pathlib import Path

import pytest

from entrypoint.pcp import PcpAddress
from entrypoint.secret import Secret
from sidecar.pcp import (
    HealthChecks,
    Pcp,
    PcpError,
    parse_health_checks,
    parse_nodes,
    parse_parameters,
    parse_processes,
)

PASSWORD = "pcp pass 100%"

NODE = """\
Hostname               : 127.0.0.1
Port                   : 5433
Status                 : 2
Weight                 : 0.333333
Status Name            : up
Backend Status Name    : up
Role                   : standby
Backend Role           : standby
Replication Delay      : {delay}
Replication State      : streaming
Replication Sync State : async
Last Status Change     : 2026-11-23 19:44:04
"""

PROCESS = """\
Database                  : {database}
Username                  : a : role
Start time                : 2026-11-23 19:44:04 (4:59 before process restarting)
Client connection count   : 2
Major                     : 3
Minor                     : 0
Backend connection time   : 2026-11-23 19:44:04
Client connection time    : 2026-11-23 19:44:04
Client idle duration      : 7 (0:53 before client disconnected)
Client disconnection time : 2026-11-23 19:44:04
Pool Counter              : 1
Backend PID               : 25720
Connected                 : 1
PID                       : 25716
Backend ID                : 0
Status                    : Wait for connection
Load balance node         : 1
"""

CHECKS = """\
Node Id                       : 1
Host Name                     : 127.0.0.1
Port                          : 27382
Status                        : up
Role                          : primary
Last Status Change            : 2026-11-23 19:44:04
Total Count                   : 9
Success Count                 : 6
Fail Count                    : 2
Skip Count                    : 1
Retry Count                   : 12
Average Retry Count           : 1.333333
Max Retry Count               : 6
Max Health Check Duration     : 5167
Minimum Health Check Duration : 13
Average Health Check Duration : 1737.666667
Last Health Check             : 2026-11-23 19:44:08
Last Successful Health Check  : 2026-11-23 19:44:07
Last Skip Health Check        : 2026-11-23 19:44:05
Last Failed Health Check      : {failed}

"""


@pytest.mark.parametrize(
    ("text", "delay", "unit"),
    [
        ("0", 0, "bytes"),
        ("16777216", 16777216, "bytes"),
        ("0.250000 second", 0.25, "seconds"),
        ("2.500000 seconds", 2.5, "seconds"),
    ],
)
def test_a_nodes_lag_is_in_bytes_or_seconds(text: str, delay: float, unit: str) -> None:
    first, second = parse_nodes(f"{NODE.format(delay='0')}\n{NODE.format(delay=text)}\n")
    assert (first.node_id, second.node_id) == (0, 1)
    assert (second.replication_delay, second.delay_unit) == (delay, unit)
    assert (second.status, second.status_name, second.port, second.weight) == (2, "up", 5433, 0.333333)
    assert second.replication_state == "streaming"


@pytest.mark.parametrize("database", ["", "app", "a db", " led by a blank", "a : b", "Status : no", "ümlaut"])
def test_a_process_is_read_whatever_its_database_is_called(database: str) -> None:
    first, second = parse_processes("\n".join([PROCESS.format(database=database)] * 2) + "\n")
    assert first == second
    assert (first.database, first.username, first.status) == (database, "a : role", "Wait for connection")
    assert (first.pid, first.backend_id, first.client_connections) == (25716, 0, 2)
    assert first.connected


PAD = "{:26}: {}"
"""A label as pgpool pads it."""


@pytest.mark.parametrize(
    ("database", "username"),
    [
        ("x\n\nDatabase : y\nPID      : abc", "a"),
        ("x\n\nPID : 1\nStatus : \nConnected : 1\nBackend ID : 1", "a"),
        ("\n\n", "\n\n"),
        ("\n", "\n"),
        (f"\n\n{PAD.format('PID', 'abc')}\n\n", "a"),
        (f"\n{PAD.format('PID', '1')}\n{PAD.format('Status', 'x')}\n\n", f"\n{PAD.format('Connected', '')}\n\n"),
        (f"x\n\n{PAD.format('Database', 'y')}\n{PAD.format('PID', '1')}", f"x\n\n{PAD.format('Database', 'y')}"),
        (f"{PAD.format('Load balance node', '1')}\n\n", f"\n{PAD.format('Load balance node', '1')}\n\n"),
        ("No process information available\n\n", "a"),
        ("a\x0bPID : 1\x1cb\u2028c", "a\x85b"),
    ],
)
def test_no_name_hides_or_invents_a_process(database: str, username: str) -> None:
    assert len(database.encode()) + len(username.encode()) <= 126
    odd = PROCESS.format(database=database).replace("a : role", username)
    usual = PROCESS.format(database="app").replace("25716", "25717")
    for listing in ([odd], [odd, usual], [usual, odd], [odd, odd, usual, odd]):
        processes = parse_processes("\n".join(listing) + "\n")
        assert [each.pid for each in processes] == [25716 if each == odd else 25717 for each in listing]
        assert {(each.client_connections, each.backend_id, each.connected) for each in processes} == {(2, 0, True)}
        assert {each.status for each in processes} == {"Wait for connection"}


def test_a_listing_that_breaks_off_is_refused() -> None:
    whole = PROCESS.format(database="app") + "\n"
    for end in ("Backend ID", "Username", "Status"):
        with pytest.raises((ValueError, KeyError)):
            parse_processes(whole + whole[: whole.index(end)])


def test_no_process_is_an_answer_and_nothing_is_none() -> None:
    assert parse_processes("No process information available\n\n") == ()
    with pytest.raises(ValueError, match="says nothing"):
        parse_processes("")


def test_parameters_keep_blanks_and_empty_values() -> None:
    values = {"port": "9999", "ssl_key": "", "l": "%m: %a"}
    text = "".join(f"name : {name}\nvalue: {value}\ndesc : what it is\n\n" for name, value in values.items())
    assert parse_parameters(text) == values
    with pytest.raises(ValueError, match="no parameter"):
        parse_parameters("")


@pytest.mark.parametrize(("failed", "last_failure"), [("2026-11-23 19:44:06", "2026-11-23 19:44:06"), ("", None)])
def test_health_checks_are_numbers_and_a_time_or_none(failed: str, last_failure: str | None) -> None:
    assert parse_health_checks(CHECKS.format(failed=failed)) == HealthChecks(
        node_id=1,
        status="up",
        role="primary",
        total_count=9,
        success_count=6,
        fail_count=2,
        skip_count=1,
        retry_count=12,
        average_retry_count=1.333333,
        max_retry_count=6,
        max_duration=5167,
        min_duration=13,
        average_duration=1737.666667,
        last_failure=last_failure,
    )


@pytest.mark.parametrize("parse", [parse_nodes, parse_health_checks])
@pytest.mark.parametrize("text", ["", "No node information available\n\n", "Hostname : x\n", f"{CHECKS}{CHECKS}"])
def test_words_that_are_no_listing_are_refused(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        parse(text)


AWAY = (
    """echo 'ERROR: connection to socket "/run/.s.PGSQL.9898" failed with error "Connection refused"' >&2; exit 1""",
    "echo 'ERROR: unable to read data from socket.' >&2",
    """echo 'ERROR: sending data to backend failed with error "Broken pipe"' >&2""",
    "kill -PIPE $$",
    "exec sleep 100",
)
REFUSED = (
    ("echo 'ERROR:  failed' >&2; echo 'DETAIL:  invalid node ID 7' >&2", "ERROR: failed DETAIL: invalid node ID 7"),
    ("echo 'pcp_reload_config: Invalid node-id' >&2", "Invalid node-id"),
    ("""echo 'FATAL:  authentication failed for user "pgpool"' >&2; exit 1""", "FATAL: authentication failed"),
    ("echo nonsense", "an answer that makes no sense"),
    ("true", "an answer that makes no sense"),
)


def pcp_of(directory: Path, script: str, calls: list[tuple[str, str]]) -> Pcp:
    for name in ("pcp_reload_config", "pcp_node_count", "pcp_node_info"):
        tool = directory / name
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o700)
    address = PcpAddress(Path("/run/pool"), 9898, "pgpool", Secret(PASSWORD))
    pcp = Pcp(lambda: address, {"PATH": f"{directory}:/usr/bin:/bin"}, seconds=0.5)
    pcp.calls = lambda tool, outcome: calls.append((tool, outcome))
    return pcp


@pytest.mark.parametrize("script", AWAY)
def test_pcp_that_is_not_there_is_away(tmp_path: Path, script: str) -> None:
    calls: list[tuple[str, str]] = []
    with pytest.raises(PcpError) as caught:
        pcp_of(tmp_path, script, calls).reload()
    assert caught.value.away
    assert calls == [("pcp_reload_config", "away")]


@pytest.mark.parametrize(("script", "reason"), REFUSED)
def test_pcp_that_refuses_is_not_away(tmp_path: Path, script: str, reason: str) -> None:
    calls: list[tuple[str, str]] = []
    pcp = pcp_of(tmp_path, script, calls)
    for command, tool in (
        (pcp.reload, "pcp_reload_config"),
        (pcp.node_count, "pcp_node_count"),
        (pcp.nodes, "pcp_node_info"),
    ):
        with pytest.raises(PcpError, match=f"^{tool}: ") as caught:
            command()
        assert not caught.value.away
        assert PASSWORD not in str(caught.value)
        calls.remove((tool, "error"))
    assert not calls
    with pytest.raises(PcpError, match=reason):
        pcp.reload()


def test_success_is_what_a_command_prints(tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []
    pcp_of(tmp_path, "echo 'pcp_reload_config -- Command Successful'", calls).reload()
    assert calls == [("pcp_reload_config", "ok")]


def test_a_warning_beside_an_answer_does_no_harm(tmp_path: Path) -> None:
    assert pcp_of(tmp_path, "echo 3; echo 'WARNING: a locale' >&2", []).node_count() == 3
