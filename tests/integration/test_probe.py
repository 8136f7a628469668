"""Probes tell a pgpool that is stuck from a database that is away."""

import os
import time
from collections.abc import Iterator
from subprocess import CompletedProcess

import pytest

from entrypoint.probe import LIVE_SECONDS, READY_SECONDS
from support import proc
from support.deadline import wait_until
from support.pgpool_process import Pgpool, run_entrypoint
from support.pod import CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import NewServer

# What starting the interpreter may take on a busy machine.
SLACK = 5.0

PCP_PASSWORD = "a pcp % password"

Serving = tuple[Pod, Pgpool]


@pytest.fixture(scope="module")
def serving(new_pod: NewPod) -> Iterator[Serving]:
    pod = new_pod()
    pod.environment["PGPOOL_PCP_PASSWORD_FILE"] = str(pod.write("pcp", PCP_PASSWORD))
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
        pgpool.wait_until_logged("successfully started")
        yield pod, pgpool


def pcp_process(pgpool: Pgpool) -> int:
    """The process that accepts PCP connections."""
    found = [pid for pid in proc.children(pgpool.pid) if b"PCP: wait for connection" in proc.cmdline(pid)]
    assert len(found) == 1, proc.describe(proc.children(pgpool.pid))
    return found[0]


def said(result: CompletedProcess[str], answer: str, *, code: int) -> bool:
    assert result.stderr == ""
    assert result.stdout.count("\n") == 1
    return result.returncode == code and result.stdout.startswith(answer)


def test_a_serving_pgpool_is_live_and_ready(serving: Serving) -> None:
    pod, _ = serving
    assert said(pod.run("probe", "live"), "live: yes; PCP answers", code=0)
    backend = pod.environment["PGPOOL_BACKENDS"].partition("=")[2]
    assert said(pod.run("probe", "ready"), f"ready: yes; the primary is {backend}", code=0)


def test_probes_answer_while_all_slots_are_taken(new_pod: NewPod) -> None:
    pod = new_pod()
    with pod.pgpool(PGPOOL_PARAMS_NUM_INIT_CHILDREN="2") as pgpool:
        pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
        pgpool.wait_until_logged("successfully started")
        sessions = [pgpool.connect(CHECK_ROLE, CHECK_PASSWORD) for _ in range(2)]
        assert said(pod.run("probe", "live"), "live: yes", code=0)
        assert said(pod.run("probe", "ready"), "ready: yes", code=0)
        for session in sessions:
            session.close()


def test_a_rotated_pcp_password_that_pgpool_does_not_know_yet_changes_nothing(serving: Serving) -> None:
    pod, _ = serving
    pod.write("pcp", "a rotated % password")
    try:
        assert said(pod.run("probe", "live"), "live: yes; PCP answers", code=0)
        result = pod.run("probe", "ready")
    finally:
        pod.write("pcp", PCP_PASSWORD)
    assert said(result, "ready: yes; PCP does not list the nodes: ", code=0)
    assert "authentication failed" in result.stdout
    assert result.stdout.endswith("; pgpool's own socket accepts connections\n")
    assert "rotated" not in result.stdout


def test_settings_and_secrets_that_are_bad_by_now_change_nothing(serving: Serving) -> None:
    pod, _ = serving
    for kind in ("live", "ready"):
        result = pod.run(
            "probe", kind, PGPOOL_NOPE="1", PGPOOL_USERS_DIR="/nowhere", PGPOOLKEYFILE="x", PGPOOL_BACKENDS=""
        )
        assert said(result, f"{kind}: yes", code=0)


def test_a_probe_needs_nothing_but_the_run_directory(serving: Serving) -> None:
    pod, _ = serving
    file = pod.write("run_dir", f"{pod.run_dir}\n")
    for environment in ({"PGPOOL_RUN_DIR": str(pod.run_dir)}, {"PGPOOL_RUN_DIR_FILE": str(file)}):
        for kind in ("live", "ready"):
            result = run_entrypoint(["probe", kind], environment, pgpool_bin=pod.pgpool_bin)
            assert said(result, f"{kind}: yes", code=0)


@pytest.mark.parametrize(
    ("kind", "limit", "expected", "code"),
    [
        ("live", LIVE_SECONDS, "live: no; PCP does not answer within 3 s", 1),
        ("ready", READY_SECONDS, "ready: yes; PCP does not list the nodes within 8 s; pgpool's own socket accepts", 0),
    ],
)
def test_a_pcp_process_that_hangs_is_not_live_but_clients_are_served(
    serving: Serving, kind: str, limit: float, expected: str, code: int
) -> None:
    pod, pgpool = serving
    with proc.frozen(pcp_process(pgpool)):
        assert pgpool.can_log_in(CHECK_ROLE, CHECK_PASSWORD)
        started = time.monotonic()
        result = pod.run("probe", kind)
        took = time.monotonic() - started
    assert said(result, expected, code=code)
    assert took < limit + SLACK


def test_a_killed_pgpool_is_neither_live_nor_ready(pod: Pod) -> None:
    with pod.pgpool() as pgpool:
        pgpool.wait_until_logged("successfully started")
        pgpool.kill_group()
        assert (pod.run_dir / "pgpool.pid").exists()
        for kind in ("live", "ready"):
            assert said(pod.run("probe", kind), f"{kind}: no; no pgpool runs here", code=1)
    # in a container, somebody else may have its number by now
    (pod.run_dir / "pgpool.pid").write_bytes(f"{os.getpid()}\n\0".encode())
    assert said(pod.run("probe", "live"), "live: no; no pgpool runs here", code=1)


def test_before_the_first_boot_nothing_is_live(pod: Pod) -> None:
    for kind in ("live", "ready"):
        expected = f"{kind}: no; pgpool-entrypoint has not booted in {pod.run_dir}\n"
        assert said(pod.run("probe", kind), expected, code=1)


def test_without_a_database_pgpool_stays_live(new_server: NewServer, new_pod: NewPod) -> None:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    pod = new_pod(server)
    quickly = {
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD": "1",
        "PGPOOL_PARAMS_HEALTH_CHECK_MAX_RETRIES": "1",
        "PGPOOL_PARAMS_HEALTH_CHECK_RETRY_DELAY": "1",
        "PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT": "2",
    }
    with pod.pgpool(**quickly) as pgpool:
        pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
        pgpool.wait_until_logged("successfully started")
        server.stop("immediate")
        assert said(pod.run("probe", "live"), "live: yes", code=0)

        def not_ready() -> bool:
            assert said(pod.run("probe", "live"), "live: yes", code=0)
            return pod.run("probe", "ready").returncode == 1

        wait_until(not_ready, timeout=30, failure=lambda: f"still ready:\n{pgpool.log}")
        assert said(pod.run("probe", "live"), "live: yes", code=0)
        assert said(pod.run("probe", "ready"), "ready: no; none of 1 nodes is an attached primary", code=1)


def test_before_the_first_primary_is_found_pgpool_lives(new_server: NewServer, new_pod: NewPod) -> None:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    pod = new_pod(server)
    server.stop()
    with pod.pgpool() as pgpool:
        pgpool.wait_until_logged("waiting for finding a primary node")
        for kind in ("live", "ready"):
            expected = f"{kind}: yes; PCP is away, as during a failover; pgpool's own socket accepts connections\n"
            assert said(pod.run("probe", kind), expected, code=0)
        server.start()
        pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
        pgpool.wait_until_logged("successfully started")
        assert said(pod.run("probe", "live"), "live: yes; PCP answers", code=0)
        assert said(pod.run("probe", "ready"), "ready: yes; the primary is ", code=0)
