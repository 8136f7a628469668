"""The typed PCP against a real pgpool."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from entrypoint.secret import Secret
from sidecar.pcp import Pcp, PcpError
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, NewPod, Pod
from support.postgres import PostgresServer

DATABASES = [("a db : of 100%", "a db : of 100%"), ("x\n\nDatabase : y\nPID      : abc", "x")]
"""Each with what is seen of it."""


@pytest.fixture(scope="module")
def serving(new_pod: NewPod, postgres: PostgresServer) -> Iterator[tuple[Pod, Pgpool]]:
    """Two children, a node that is there and one that is not."""
    pod = new_pod()
    pod.environment["PGPOOL_BACKENDS"] += f",node-2=127.0.0.9:{postgres.port}"
    pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = "2"
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        # The login finds that node, and PCP is restarted after that. Commands are to meet it there to stay.
        wait_until(lambda: is_settled(pod.pcp(), pgpool), timeout=20, failure=lambda: pgpool.log)
        yield pod, pgpool


def is_there(pcp: Pcp) -> bool:
    try:
        return pcp.node_count() > 0
    except PcpError as error:
        if not error.away:
            raise
        return False


def is_settled(pcp: Pcp, pgpool: Pgpool) -> bool:
    """Whether PCP has started after the failover: at once, or again."""
    done, started = (pgpool.log.rfind(text) for text in ("fork a new PCP child", "PCP process: "))
    first = pgpool.log.find("PCP process: ")
    failover = pgpool.log.find("=== Failover done.")
    return failover >= 0 and (failover < first or 0 <= done < started) and is_there(pcp)


def test_nodes_are_as_pgpool_sees_them(serving: tuple[Pod, Pgpool], postgres: PostgresServer) -> None:
    pcp = serving[0].pcp()
    assert pcp.node_count() == 2
    up, down = pcp.nodes()
    assert (up.node_id, up.host, up.port, up.status_name, up.role) == (0, "127.0.0.1", postgres.port, "up", "primary")
    assert (down.node_id, down.host, down.status, down.status_name) == (1, "127.0.0.9", 3, "down")
    assert pcp.health_checks(0).success_count > 0
    assert pcp.health_checks(1).success_count == 0


@pytest.mark.parametrize(("database", "seen"), DATABASES)
def test_a_session_shows_in_its_process(
    serving: tuple[Pod, Pgpool], postgres: PostgresServer, database: str, seen: str
) -> None:
    pod, pgpool = serving
    postgres.create_database(database)
    try:
        with pgpool.connect(APP_ROLE, APP_PASSWORD, database) as session:
            session.execute("SELECT 1")
            (used,) = [each for each in pod.pcp().processes() if each.connected and each.backend_id == 0]
            assert (used.database, used.username, used.status) == (seen, APP_ROLE, "Idle")
            assert len({each.pid for each in pod.pcp().processes()}) == 2
    finally:
        postgres.drop_database(database)


def test_parameters_are_those_in_force_after_a_reload(serving: tuple[Pod, Pgpool]) -> None:
    pod, pgpool = serving
    assert pod.pcp().parameters()["port"] == str(pod.port)
    file = pod.generation / "pgpool.conf"
    file.write_text(f"{file.read_text()}client_idle_limit = 123\n")
    pod.pcp().reload()
    wait_until(lambda: pod.pcp().parameters()["client_idle_limit"] == "123", timeout=10, failure=lambda: pgpool.log)


def test_what_pgpool_refuses_is_an_error_with_its_reason(serving: tuple[Pod, Pgpool]) -> None:
    pod, _ = serving
    pcp = pod.pcp()
    with pytest.raises(PcpError, match="invalid node ID 7") as caught:
        pcp.health_checks(7)
    assert not caught.value.away
    with pytest.raises(PcpError, match=r'Invalid node-id "200"'):
        pcp.attach(200)
    wrong = replace(pod.pcp_address(), password=Secret("not the 100% right one"))
    with pytest.raises(PcpError, match="authentication failed") as caught:
        Pcp(lambda: wrong, {"PATH": str(pod.pgpool_bin)}).node_count()
    assert not caught.value.away


def test_a_node_is_detached_and_attached_and_pgpool_stopped(pod: Pod) -> None:
    pcp: Pcp
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        pcp = pod.pcp()
        wait_until(lambda: is_there(pcp), timeout=20, failure=lambda: pgpool.log)
        pcp.detach(0)
        pgpool.wait_until_logged("=== Starting degeneration.")
        wait_until(
            lambda: is_there(pcp) and pcp.health_checks(0).status == "down", timeout=20, failure=lambda: pgpool.log
        )
        # PCP is there for a moment yet, and then restarted.
        pgpool.wait_until_logged("restart request received in pcp child process")
        wait_until(lambda: is_there(pcp), timeout=20, failure=lambda: pgpool.log)
        pcp.attach(0)
        pgpool.wait_until_logged("=== Failback done.")
        wait_until(
            lambda: pgpool.log.count("restart request received in pcp child process") == 2,
            timeout=20,
            failure=lambda: pgpool.log,
        )
        wait_until(lambda: is_there(pcp), timeout=20, failure=lambda: pgpool.log)
        pcp.stop()
        assert pgpool.wait_until_exit() == 0
        with pytest.raises(PcpError) as caught:
            pcp.node_count()
        assert caught.value.away
