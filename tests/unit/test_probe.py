"""The judgement of what the pcp tools said."""

import os
from pathlib import Path

import pytest

from entrypoint.errors import ConfigurationError
from entrypoint.inputs import PCP_PASSWORD
from entrypoint.pcp import PcpAnswer
from entrypoint.probe import Verdict, _is_running, _pcp_password, live, probe, ready
from entrypoint.secret import Secret
from unit.conftest import MADE_UP, Site

HUNG = PcpAnswer("", "", -1, timed_out=True)
AWAY = PcpAnswer("", 'ERROR: connection to socket "/run/pgpool/.s.PGSQL.9898" failed with error "No such file"\n', 255)
REFUSED = PcpAnswer(
    "", 'FATAL: authentication failed for user "pgpool"\nDETAIL: username and/or password does not match\n', 255
)
BUSY = PcpAnswer("", "ERROR: failed to process PCP request at the moment\nDETAIL: failback is in progress\n", 255)


def nodes(*lines: str, errors: str = "", status: int = 0) -> PcpAnswer:
    return PcpAnswer("".join(f"{line}\n" for line in lines), errors, status)


def node(host: str, status: int, role: str, actual: str = "primary") -> str:
    """A line of `pcp_node_info -a`: host port status weight status-name pg_status role pg_role delay …"""
    name = {0: "init", 1: "waiting", 2: "up", 3: "down"}[status]
    return f"{host} 5432 {status} 0.333333 {name} up {role} {actual} 0 none none 2026-06-01 12:00:00"


def never() -> bool:
    raise AssertionError("the socket is asked only when PCP is away")


HELD = Verdict(True, "PCP is away, as during a failover; new clients are held")
DEAD = Verdict(False, "neither PCP nor pgpool's socket accepts connections")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (PcpAnswer("3\n", "", 0), Verdict(True, "PCP answers")),
        (REFUSED, Verdict(True, "PCP answers")),
        (BUSY, Verdict(True, "PCP answers")),
        (HUNG, Verdict(False, "PCP does not answer within 3 s")),
    ],
)
def test_pgpool_lives_as_long_as_pcp_says_anything(answer: PcpAnswer, expected: Verdict) -> None:
    assert live(answer, never) == expected


@pytest.mark.parametrize(("accepts", "expected"), [(True, HELD), (False, DEAD)])
def test_while_pcp_is_away_the_socket_tells(expected: Verdict, *, accepts: bool) -> None:
    assert live(AWAY, lambda: accepts) == expected
    assert ready(AWAY, lambda: accepts) == expected


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (
            nodes(node("10.100.2.5", 2, "primary"), node("10.100.2.6", 2, "standby")),
            Verdict(True, "the primary is 10.100.2.5:5432"),
        ),
        (
            nodes(node("10.100.2.5", 3, "standby"), node("10.100.2.6", 1, "primary")),
            Verdict(True, "the primary is 10.100.2.6:5432"),
        ),
        (
            nodes(node("10.100.2.5", 3, "primary"), node("10.100.2.6", 2, "standby")),
            Verdict(False, "none of 2 nodes is an attached primary"),
        ),
        (
            nodes(node("10.100.2.5", 0, "primary")),
            Verdict(False, "none of 1 nodes is an attached primary"),
        ),
        (
            # what PostgreSQL says of itself does not count: pgpool routes by its own role
            nodes(node("10.100.2.5", 2, "standby", actual="primary")),
            Verdict(False, "none of 1 nodes is an attached primary"),
        ),
        (nodes("10.100.2.5 5432 2"), Verdict(False, "none of 1 nodes is an attached primary")),
        (HUNG, Verdict(False, "PCP does not answer within 8 s")),
        (
            BUSY,
            Verdict(
                False, "PCP refuses: ERROR: failed to process PCP request at the moment DETAIL: failback is in progress"
            ),
        ),
        (PcpAnswer("", "", 1), Verdict(False, "PCP refuses: no reason given")),
        (PcpAnswer("", " \n", 0), Verdict(False, "PCP refuses: no reason given")),
    ],
)
def test_pgpool_is_ready_when_it_serves_a_primary(answer: PcpAnswer, expected: Verdict) -> None:
    assert ready(answer, never) == expected


@pytest.mark.parametrize("content", [None, b"", b"\0", b"no number\0", b"1\0", b"4194305\0", b"-1\0"])
def test_without_a_running_pgpool_there_is_no_process(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "pgpool.pid").write_bytes(content)
    assert not _is_running(tmp_path)


def test_a_process_counts_only_when_it_is_pgpool(tmp_path: Path) -> None:
    (tmp_path / "pgpool.pid").write_bytes(b"%d\0" % os.getpid())
    assert not _is_running(tmp_path)
    comm = Path("/proc/self/comm")
    name = comm.read_text()
    try:
        comm.write_text("pgpool")
        assert _is_running(tmp_path)
    finally:
        comm.write_text(name)


@pytest.mark.parametrize("kind", ["live", "ready"])
def test_no_pgpool_is_neither_live_nor_ready(site: Site, kind: str) -> None:
    env = {**site.env, "PGPOOL_PCP_PASSWORD": "pcp pass 100%"}
    assert probe(kind, env, site.catalogue) == Verdict(False, "no pgpool runs here")


def test_the_password_that_boot_made_is_read(site: Site) -> None:
    settings = site.resolve().settings
    (site.run_dir / PCP_PASSWORD).write_text(MADE_UP)
    assert _pcp_password(settings) == Secret(MADE_UP)
    assert _pcp_password(site.resolve(PGPOOL_PCP_PASSWORD="given 100%").settings) == Secret("given 100%")


def test_a_password_that_is_not_there_is_told(site: Site) -> None:
    settings = site.resolve().settings
    with pytest.raises(ConfigurationError) as raised:
        _pcp_password(settings)
    (problem,) = raised.value.problems
    assert (problem.setting, problem.what) == ("PGPOOL_PCP_PASSWORD", "is not readable: No such file or directory")
