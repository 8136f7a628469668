"""The judgement of what the pcp tools said."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from entrypoint.inputs import INPUTS, PCP_PASSWORD, gather
from entrypoint.pcp import PcpAnswer
from entrypoint.probe import Verdict, _is_running, live, probe, ready
from unit.conftest import MADE_UP, Site

HUNG = PcpAnswer("", "", -1, timed_out=True)
AWAY = PcpAnswer("", 'ERROR: connection to socket "/run/pgpool/.s.PGSQL.9898" failed with error "No such file"\n', 255)
WRONG = 'FATAL: authentication failed for user "pgpool"', "DETAIL: username and/or password does not match"
REFUSED = PcpAnswer("", "\n".join(WRONG), 255)
BUSY = PcpAnswer("", "ERROR: failed to process PCP request at the moment\nDETAIL: failback is in progress\n", 255)


UNLISTED = "PCP does not list the nodes"


def nodes(*lines: str, errors: str = "", status: int = 0) -> PcpAnswer:
    return PcpAnswer("".join(f"{line}\n" for line in lines), errors, status)


def node(host: str, status: int, role: str, actual: str = "primary") -> str:
    """A line of `pcp_node_info -a`: host port status weight status-name pg_status role pg_role delay …"""
    name = {0: "init", 1: "waiting", 2: "up", 3: "down"}[status]
    return f"{host} 5432 {status} 0.333333 {name} up {role} {actual} 0 none none 2026-06-01 12:00:00"


def never() -> bool:
    raise AssertionError("the socket is asked only when PCP does not tell")


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


@pytest.mark.parametrize(
    ("accepts", "said"),
    [(True, "pgpool's own socket accepts connections"), (False, "pgpool's own socket accepts none")],
)
def test_while_pcp_is_away_the_socket_tells(said: str, *, accepts: bool) -> None:
    expected = Verdict(accepts, f"PCP is away, as during a failover; {said}")
    assert live(AWAY, lambda: accepts) == expected
    assert ready(AWAY, lambda: accepts) == expected


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (HUNG, f"{UNLISTED} within 8 s"),
        (
            BUSY,
            f"{UNLISTED}: ERROR: failed to process PCP request at the moment DETAIL: failback is in progress",
        ),
        (REFUSED, f"{UNLISTED}: {' '.join(WRONG)}"),
        (PcpAnswer("", "", 1), f"{UNLISTED}: no reason given"),
        (PcpAnswer("", " \n", 0), f"{UNLISTED}: no reason given"),
    ],
)
def test_pcp_that_lists_no_nodes_empties_no_service(answer: PcpAnswer, why: str) -> None:
    """A rotated password, a black-holed standby, a failback: clients are served meanwhile."""
    assert ready(answer, lambda: True) == Verdict(True, f"{why}; pgpool's own socket accepts connections")
    assert ready(answer, lambda: False) == Verdict(False, f"{why}; pgpool's own socket accepts none")


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


# --- the whole of it ------------------------------------------------------------------------------------------------

PCP_TOOL = """#!/bin/sh
echo "${0##*/} $*" >>"$0.said"; cat "$PCPPASSFILE" >>"$0.said"
echo 'h 5432 2 1 up up primary'
"""


def boot_there(site: Site, **env: str) -> None:
    """What a boot writes down, and from here on an environment that only names the run directory."""
    settings, model = (resolved := site.resolve(**env)).settings, resolved.model
    boot_env = {**site.env, **env}
    gather(boot_env, site.catalogue, "4.6.1", numbers=model.numbers, pcp_user=settings.pcp_user).write(site.run_dir)
    site.env = {"PGPOOL_RUN_DIR": str(site.run_dir), "PATH": f"{site.root}/bin:/usr/bin:/bin"}


@pytest.fixture
def running(site: Site) -> Iterator[Site]:
    """A process called pgpool, which is this one, and pcp tools that write down how they were called."""
    for name in ("pcp_node_count", "pcp_node_info"):
        site.file(f"bin/{name}", PCP_TOOL).chmod(0o700)
    (site.run_dir / "pgpool.pid").write_bytes(b"%d\0" % os.getpid())
    comm = Path("/proc/self/comm")
    name = comm.read_text()
    comm.write_text("pgpool")
    yield site
    comm.write_text(name)


def asked(site: Site, kind: str, **env: str) -> str:
    """How the tool was called, and the file with its password."""
    assert probe(kind, {**site.env, **env}).good
    tool = "pcp_node_count" if kind == "live" else "pcp_node_info"
    log = site.root / f"bin/{tool}.said"
    said = log.read_text()
    log.unlink()
    return said


@pytest.mark.parametrize("kind", ["live", "ready"])
def test_no_pgpool_is_neither_live_nor_ready(site: Site, kind: str) -> None:
    boot_there(site)
    assert probe(kind, site.env) == Verdict(False, "no pgpool runs here")


@pytest.mark.parametrize("kind", ["live", "ready"])
def test_before_a_boot_the_answer_is_no(running: Site, kind: str) -> None:
    reason = f"pgpool-entrypoint has not booted in {running.run_dir}"
    assert probe(kind, running.env) == Verdict(False, reason)


def test_inputs_that_are_not_ours_are_told(running: Site) -> None:
    (running.run_dir / INPUTS).write_bytes(b"{}")
    verdict = probe("live", running.env)
    assert not verdict.good
    assert verdict.reason.startswith(f"{running.run_dir}/inputs.json is not usable: ")
    assert "\n" not in verdict.reason


def test_a_probe_knows_what_boot_knew(running: Site) -> None:
    user = running.file("user", "admin")
    boot_there(running, PGPOOL_PARAMS_PCP_PORT="5555", PGPOOL_PCP_USER_FILE=str(user))
    (running.run_dir / PCP_PASSWORD).write_text(MADE_UP)
    user.unlink()
    address = f"-w -h {running.run_dir} -p 5555 -U admin"
    assert asked(running, "live") == f"pcp_node_count {address}\n*:*:admin:{MADE_UP}\n"
    assert asked(running, "ready") == f"pcp_node_info {address} -a\n*:*:admin:{MADE_UP}\n"


def test_no_setting_is_judged_again(running: Site) -> None:
    """A Secret that is bad or gone by now is no reason to kill a pgpool that serves."""
    boot_there(running, PGPOOLKEYFILE=str(running.file("key", "key 100%")))
    for path in (running.root / "key", running.users / "sr_check", running.users / "n8n"):
        path.unlink()
    broken = {"PGPOOL_NOPE": "1", "PGPOOL_BACKENDS": "", "PGPOOL_CHECK_USER_FILE": "/nowhere", "PGPOOLKEYFILE": "x"}
    for kind in ("live", "ready"):
        assert probe(kind, {**running.env, **broken}).good


def test_a_password_given_in_a_variable_is_taken_from_it(running: Site) -> None:
    boot_there(running, PGPOOL_PCP_PASSWORD="given 100%")
    assert asked(running, "live", PGPOOL_PCP_PASSWORD="given 100%").endswith("\n*:*:pgpool:given 100%\n")


def test_a_password_given_in_a_file_is_read_anew(running: Site) -> None:
    file = running.file("pcp", "given 100%\n")
    boot_there(running, PGPOOL_PCP_PASSWORD_FILE=str(file))
    assert asked(running, "live").endswith("\n*:*:pgpool:given 100%\n")
    file.write_text("rotated 100%")
    # what boot was not given counts for nothing
    assert asked(running, "live", PGPOOL_PCP_PASSWORD="other 100%").endswith("\n*:*:pgpool:rotated 100%\n")


@pytest.mark.parametrize("left", [None, b"\xff"])
@pytest.mark.parametrize("name", ["PGPOOL_PCP_PASSWORD", "PGPOOL_PCP_PASSWORD_FILE", None])
def test_without_a_password_pcp_is_asked_all_the_same(running: Site, name: str | None, left: bytes | None) -> None:
    """Its refusal proves that it answers."""
    file = running.file("pcp", "given 100%\n")
    boot_there(running, **({name: str(file)} if name else {}))
    file.unlink()
    if left:
        running.file("pcp", left)
        (running.run_dir / PCP_PASSWORD).write_bytes(left)
    for kind in ("live", "ready"):
        assert asked(running, kind).endswith("\n*:*:pgpool:\n")
