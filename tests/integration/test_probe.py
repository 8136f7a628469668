"""Probes tell a pgpool that is stuck from a database that is away."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import CompletedProcess

import pytest

from entrypoint.probe import LIVE_SECONDS, READY_SECONDS
from support import proc
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import NewServer

# What starting the interpreter may take on a busy machine.
SLACK = 5.0

Serving = tuple[Pod, Pgpool]


@pytest.fixture(scope="module")
def serving(new_pod: NewPod) -> Iterator[Serving]:
    pod = new_pod()
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
        pgpool.wait_until_logged("successfully started")
        yield pod, pgpool


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


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


def test_a_wrong_pcp_password_is_live_but_not_ready(serving: Serving) -> None:
    pod, _ = serving
    wrong = "a wrong % password"
    assert said(pod.run("probe", "live", PGPOOL_PCP_PASSWORD=wrong), "live: yes", code=0)
    result = pod.run("probe", "ready", PGPOOL_PCP_PASSWORD=wrong)
    assert said(result, "ready: no; PCP refuses", code=1)
    assert wrong not in result.stdout


@pytest.mark.parametrize(("kind", "limit"), [("live", LIVE_SECONDS), ("ready", READY_SECONDS)])
def test_a_pcp_process_that_hangs_is_no_within_the_time_limit(serving: Serving, kind: str, limit: float) -> None:
    pod, pgpool = serving
    with frozen(pcp_process(pgpool)):
        started = time.monotonic()
        result = pod.run("probe", kind)
        took = time.monotonic() - started
    assert said(result, f"{kind}: no; PCP does not answer within {limit:.0f} s", code=1)
    assert took < limit + SLACK


def test_without_a_pgpool_nothing_is_live(pod: Pod) -> None:
    pod.environment["PGPOOL_PCP_PASSWORD"] = "a pcp % password"
    for kind in ("live", "ready"):
        assert said(pod.run("probe", kind), f"{kind}: no; no pgpool runs here", code=1)


def test_a_pid_file_that_a_killed_pgpool_left_is_no_life(pod: Pod) -> None:
    pod.environment["PGPOOL_PCP_PASSWORD"] = "a pcp % password"
    (pod.run_dir / "pgpool.pid").write_bytes(f"{os.getpid()}\n\0".encode())
    assert said(pod.run("probe", "live"), "live: no; no pgpool runs here", code=1)


def test_before_the_first_boot_nothing_is_live(pod: Pod) -> None:
    result = pod.run("probe", "live")
    assert result.returncode != 0
    assert "Traceback" not in result.stderr


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


def test_before_a_primary_is_found_clients_are_held_and_pgpool_lives(new_server: NewServer, new_pod: NewPod) -> None:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    pod = new_pod(server)
    server.stop()
    with pod.pgpool() as pgpool:
        pgpool.wait_until_logged("waiting for finding a primary node")
        assert said(pod.run("probe", "live"), "live: yes; PCP is away", code=0)
