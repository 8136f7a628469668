"""Rotation as pgpool takes it: children that learn nothing by a reload, and health checks that do not either."""

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import TypeVar

import psycopg
import pytest

from entrypoint.publish import publish
from entrypoint.render import render
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from integration.conftest import CreateRole, Role
from sidecar.desired import read_desired
from sidecar.login import Attempt, Outcome
from sidecar.pcp import Node, Pcp, PcpError
from sidecar.pool import Pool, hold_failover
from sidecar.through_pgpool import through_pgpool
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import NewServer, PostgresServer

T = TypeVar("T")

ROTATED = "the rotated % password"
MARKER = re.compile(r"^syslog_ident = '(.*)'$", re.MULTILINE)


def pool_of(pod: Pod) -> Pool:
    return Pool(pod.pcp(), partial(through_pgpool, pod.run_dir, pod.port))


def desired(pod: Pod) -> Tree:
    """What the Secrets of this moment give."""
    return render(read_desired(pod.run_dir, {}, datetime.now(UTC)).resolved.model)


def serve(pod: Pod, pool: Pool, tree: Tree) -> None:
    publish(tree, pod.run_dir)
    pool.reload()
    marker = MARKER.findall(tree.files["pgpool.conf"].decode())[-1]
    wait_until(lambda: pool.arrived(marker), timeout=10, failure=lambda: f"{marker} did not arrive")


def children(pod: Pod) -> set[int]:
    return {child.pid for child in pod.pcp().processes()}


def test_every_child_learns_a_password_and_no_session_is_cut(pod: Pod, create_role: CreateRole) -> None:
    role, other = create_role(password="the former % password"), create_role(password="somebody else's % password")
    pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = "4"
    pod.write_user(*role)
    pod.write_user(*other)
    pool = pool_of(pod)
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(*role)
        with ExitStack() as stack:
            sessions = [stack.enter_context(pgpool.connect(*other)) for _ in range(4)]
            former = children(pod)
            pod.write_user(role.name, ROTATED)  # PostgreSQL keeps the former one: what follows is pgpool's doing
            serve(pod, pool, desired(pod))
            pool.retire()
            assert [session.execute("SELECT 1").fetchone() for session in sessions] == [(1,)] * 4
            assert children(pod) == former
        wait_until(lambda: former.isdisjoint(children(pod)), timeout=10, failure=lambda: pgpool.log)
        for _ in range(12):
            assert pool.login(role.name, Secret(role.password)) == Attempt(
                Outcome.REJECTED, "pgpool has another password"
            )
        for _ in range(12):
            said = pool.login(role.name, Secret(ROTATED))
            assert said == Attempt(Outcome.UNKNOWN, "PostgreSQL refuses the password that pgpool has")
        assert pool.login(other.name, Secret(other.password)).outcome is Outcome.ACCEPTED


@pytest.fixture
def owner(create_role: CreateRole, postgres: PostgresServer) -> Iterator[Role]:
    """A role with a database of its name: pgpool keeps no connection to the database `postgres`."""
    role = create_role()
    postgres.create_database(role.name)
    yield role
    postgres.drop_database(role.name)


def test_connections_that_were_made_with_former_passwords_go_the_one_in_use_with_its_session(
    pod: Pod, owner: Role, postgres: PostgresServer
) -> None:
    pod.write_user(*owner)

    def connections() -> set[int]:
        rows = postgres.sql("SELECT pid FROM pg_stat_activity WHERE datname = %s", [owner.name])
        return {pid for (pid,) in rows}

    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(*owner)
        with pgpool.connect(*owner, dbname=owner.name) as session:
            with pgpool.connect(*owner, dbname=owner.name) as ended:
                used, kept = session.info.backend_pid, ended.info.backend_pid
            assert connections() == {used, kept}, "pgpool keeps a connection when its client has left"
            pool_of(pod).retire()
            wait_until(lambda: connections() == {used}, timeout=10, failure=lambda: f"{kept} is left\n{pgpool.log}")
            assert session.execute("SELECT pg_backend_pid()").fetchone() == (used,)
        wait_until(lambda: not connections(), timeout=10, failure=lambda: f"{used} is left\n{pgpool.log}")
        assert pgpool.can_log_in(*owner, dbname=owner.name)


def test_retiring_again_and_again_refuses_no_client_and_leaves_nothing(pod: Pod) -> None:
    pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = "12"
    pool, pcp = pool_of(pod), pod.pcp()
    stop = threading.Event()
    served: list[None] = []
    refused: list[psycopg.Error] = []

    def come_and_go(pgpool: Pgpool) -> None:
        while not stop.is_set():
            try:
                with pgpool.connect(APP_ROLE, APP_PASSWORD, connect_timeout=20) as session:
                    session.execute("SELECT pg_sleep(0.05)")  # else all children do nothing but let clients in
            except psycopg.Error as error:
                refused.append(error)
            else:
                served.append(None)

    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        clients = [threading.Thread(target=come_and_go, args=(pgpool,)) for _ in range(8)]
        for client in clients:
            client.start()
        try:
            for _ in range(10):
                before = len(served)
                pool.reload()
                pool.retire()
                wait_until(lambda count=before: len(served) > count, timeout=20, failure=lambda: pgpool.log)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        finally:
            stop.set()
            for client in clients:
                client.join()
        assert not refused, refused[0]
        assert [(node.node_id, node.status_name) for node in pcp.nodes()] == [(0, "up")]
        assert "invalid failback request" not in pgpool.log, "an undefined node was not attached"


@pytest.fixture
def server(new_server: NewServer) -> PostgresServer:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    server.create_role(APP_ROLE, APP_PASSWORD)
    return server


@pytest.fixture
def checking(server: PostgresServer, new_pod: NewPod) -> Iterator[tuple[Pod, Pgpool]]:
    """A pgpool in whose health check the former password of the check role is being tried."""
    pod = new_pod(server)
    pod.environment |= {
        "PGPOOL_PARAMS_NUM_INIT_CHILDREN": "4",
        "PGPOOL_PARAMS_HEALTH_CHECK_MAX_RETRIES": "6",
        "PGPOOL_PARAMS_HEALTH_CHECK_RETRY_DELAY": "1",
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD": "1",
        "PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT": "2",
    }
    pod.encrypt()
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        pcp = pod.pcp()
        checks = partial(settled, lambda: pcp.health_checks(0))
        wait_until(lambda: checks().success_count, timeout=20, failure=lambda: pgpool.log)
        server.alter_password(CHECK_ROLE, ROTATED)
        wait_until(lambda: checks().retry_count, timeout=10, failure=lambda: pgpool.log)
        pod.write_user(CHECK_ROLE, ROTATED)
        yield pod, pgpool


def node(pcp: Pcp) -> Node:
    return settled(pcp.nodes)[0]


def settled(ask: Callable[[], T]) -> T:
    """An answer of PCP, once it is not away."""

    def answer() -> T | None:
        try:
            return ask()
        except PcpError as error:
            if not error.away:
                raise
            return None

    return wait_until(answer, timeout=15, failure=lambda: "PCP is away")


def test_a_health_check_is_freed_of_a_former_password_before_it_detaches_the_node(
    checking: tuple[Pod, Pgpool], server: PostgresServer
) -> None:
    pod, pgpool = checking
    pool, pcp = pool_of(pod), pod.pcp()
    tree = desired(pod)
    serve(pod, pool, hold_failover(tree, 1))
    assert pool.renew_checks(1) == ()
    serve(pod, pool, tree)

    before = settled(lambda: pcp.health_checks(0)).success_count
    wait_until(
        lambda: settled(lambda: pcp.health_checks(0)).success_count > before + 6,
        timeout=15,
        failure=lambda: pgpool.log,
    )
    assert node(pcp).status_name == "up"
    assert "degenerate backend request" not in pgpool.log
    # And failover is possible again.
    server.stop()
    wait_until(lambda: node(pcp).status_name == "down", timeout=15, failure=lambda: pgpool.log)


def test_left_alone_that_check_detaches_the_node_although_it_was_told_the_new_password(
    checking: tuple[Pod, Pgpool],
) -> None:
    """Why `renew_checks` is there: should this fail with some release of pgpool, it is needed no more."""
    pod, pgpool = checking
    serve(pod, pool_of(pod), desired(pod))
    wait_until(lambda: node(pod.pcp()).status_name == "down", timeout=15, failure=lambda: pgpool.log)


def test_checks_are_not_touched_while_they_could_detach_a_node(pod: Pod) -> None:
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        with pytest.raises(PcpError, match="failover is not held"):
            pool_of(pod).renew_checks(1)


class Clock:
    """Time that passes by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Away(Pcp):
    """PCP that comes back at a time."""

    def __init__(self, back: float, clock: Clock, *, away: bool = True) -> None:
        self.back, self.clock, self.away, self.reloads = back, clock, away, 0

    def reload(self) -> None:
        if self.clock() < self.back:
            raise PcpError("pcp_reload_config", "not now", away=self.away)
        self.reloads += 1

    def parameters(self) -> dict[str, str]:
        self.reload()
        return {"syslog_ident": "generation-1"}


def no_login(role: str, password: Secret) -> Attempt:
    raise AssertionError("nobody was to log in")


def waiting(pcp: Away) -> Pool:
    return Pool(pcp, no_login, patience=3, clock=pcp.clock, sleep=pcp.clock.sleep)


def test_a_command_waits_for_pcp_to_come_back() -> None:
    pcp = Away(2.0, Clock())
    waiting(pcp).reload()
    assert pcp.reloads == 1
    assert 2 <= pcp.clock() < 2.2


def test_a_command_waits_no_longer_than_allowed() -> None:
    pcp = Away(60, Clock())
    with pytest.raises(PcpError, match="not now"):
        waiting(pcp).reload()
    assert 3 <= pcp.clock() < 3.2


def test_a_command_that_pgpool_refuses_is_not_repeated() -> None:
    pcp = Away(1, Clock(), away=False)
    with pytest.raises(PcpError, match="not now"):
        waiting(pcp).reload()
    assert pcp.clock() == 0


def test_nothing_has_arrived_while_pcp_is_away() -> None:
    pcp = Away(1, Clock())
    assert not waiting(pcp).arrived("generation-1")
    pcp.clock.sleep(1)
    assert waiting(pcp).arrived("generation-1")
    assert not waiting(pcp).arrived("generation-2")
