"""Clients who come while there is no primary."""

import os
import re
import select
import signal
from contextlib import suppress
from functools import partial
from time import monotonic

import psycopg
import pytest
from psycopg import pq

from sidecar.pcp import PcpError
from support import proc
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE
from support.two_nodes import NO_PRIMARY, PRIMARY, SEARCHES, Servers, Start, at_once, is_held, lets_in


def test_new_clients_are_held_while_there_is_no_primary_and_served_when_there_is(
    start: Start, servers: Servers
) -> None:
    stage = start(search_primary_node_timeout="1")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(NO_PRIMARY)
    writes = [at_once(stage.write) for _ in range(3)]

    assert all(is_held(write) for write in writes), stage.pgpool.log
    wait_until(lambda: stage.status(PRIMARY) == "down", timeout=10, failure=lambda: stage.pgpool.log)  # PCP is not held
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)

    for write in writes:
        write.result(timeout=30)


def test_clients_who_come_during_a_search_in_vain_are_held_after_it(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="1")
    stage.lose_primary(servers)
    writes = [at_once(stage.write) for _ in range(3)]
    stage.pgpool.wait_until_logged(NO_PRIMARY)

    assert all(is_held(write) for write in writes), stage.pgpool.log
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)

    for write in writes:
        write.result(timeout=30)


def test_new_clients_are_held_while_all_nodes_are_down(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="1")
    servers.standby.stop("immediate")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(NO_PRIMARY)
    write = at_once(stage.write)

    assert is_held(write), stage.pgpool.log
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=30)


def test_clients_are_held_when_pgpool_starts_before_there_is_a_primary(start: Start, servers: Servers) -> None:
    stage = start()
    stage.pgpool.stop()
    servers.primary.stop("immediate")
    stage.pgpool.start()
    stage.wait_for_lines(SEARCHES, 2)
    write = at_once(stage.write)

    assert is_held(write), stage.pgpool.log
    servers.primary.start()

    write.result(timeout=30)


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_pgpool_stops_while_it_holds_clients(start: Start, servers: Servers, how: str) -> None:
    stage = start(search_primary_node_timeout="1")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(NO_PRIMARY)
    write = at_once(stage.write)
    assert is_held(write), stage.pgpool.log

    stage.pgpool.stop(signal.Signals[how], timeout=20)

    with pytest.raises(psycopg.OperationalError):
        write.result(timeout=10)


def test_in_another_mode_nobody_waits_for_a_primary(start: Start, servers: Servers) -> None:
    servers.primary.stop("immediate")

    stage = start(backend_clustering_mode="raw")

    assert stage.pgpool.can_log_in(APP_ROLE, APP_PASSWORD, "app")


def test_the_login_that_finds_the_primary_gone_is_held(start: Start, servers: Servers) -> None:
    stage = start()
    servers.primary.stop("immediate")

    write = at_once(stage.write)

    stage.pgpool.wait_until_logged(f"shutdown host {servers.primary.host}({servers.primary.port})")
    assert is_held(write), stage.pgpool.log
    servers.primary.start()
    stage.until_told(stage.pcp.attach, PRIMARY)
    write.result(timeout=30)


def test_a_login_that_a_failover_overtakes_is_refused_after_30_s(start: Start, servers: Servers) -> None:
    stage = start(primary_first=True, search_primary_node_timeout="600")
    login = pq.PGconn.connect_start(stage.pgpool.conninfo(APP_ROLE, APP_PASSWORD, "app").encode())

    def is_accepted() -> bool:
        return any(
            proc.cmdline(pid).startswith(b"pgpool: accept connection") for pid in proc.children(stage.pgpool.pid)
        )

    wait_until(is_accepted, timeout=10, failure=lambda: stage.pgpool.log)
    stage.lose_primary(servers)
    stage.wait_for_lines(SEARCHES, 2)
    begin = monotonic()

    refusal = at_once(partial(come_to_an_end, login)).result(timeout=90)

    assert "no primary node is known" in refusal, stage.pgpool.log
    assert 25 < monotonic() - begin < 45


def come_to_an_end(login: pq.abc.PGconn) -> str:
    """Go on with a login that libpq has begun, and tell how that ends."""
    while (status := login.connect_poll()) not in (pq.PollingStatus.OK, pq.PollingStatus.FAILED):
        reading = status == pq.PollingStatus.READING
        select.select([login.socket] if reading else [], [] if reading else [login.socket], [])
    return login.error_message.decode()


@pytest.mark.parametrize("tls", [False, True])
def test_a_login_that_the_primary_refuses_while_it_shuts_down_is_held(
    start: Start, servers: Servers, *, tls: bool
) -> None:
    stage = start(tls=tls)
    session = stage.connect()
    os.kill(servers.primary.pid, signal.SIGTERM)  # it lets nobody in, and waits for this session
    wait_until(lambda: not lets_in(servers.primary), timeout=10, failure=lambda: servers.primary.log)

    write = at_once(stage.write)

    assert is_held(write), stage.pgpool.log
    session.execute("INSERT INTO written VALUES (1)")
    servers.primary.restart()
    with suppress(PcpError):  # nobody needed to notice
        stage.until_told(stage.pcp.attach, PRIMARY)
    write.result(timeout=30)


@pytest.mark.parametrize("tls", [False, True])
def test_a_login_that_the_primary_ends_after_letting_it_in_is_tried_again(
    start: Start, servers: Servers, *, tls: bool
) -> None:
    stage = start(tls=tls)

    def starting() -> int | None:
        titles = {pid: proc.cmdline(pid) for pid in proc.children(servers.primary.pid)}
        return next((pid for pid, title in titles.items() if re.match(rb"postgres: app app .* startup", title)), None)

    with servers.primary.connect() as admin, admin.transaction():
        admin.execute(
            "LOCK pg_database IN ACCESS EXCLUSIVE MODE"
        )  # the password is accepted, the database not yet found
        write = at_once(stage.write)
        pid = wait_until(starting, timeout=10, failure=lambda: stage.pgpool.log)
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: proc.stat(pid) is None, timeout=10, failure=lambda: servers.primary.log)

    write.result(timeout=30)
    assert "lets nobody in at this moment" in stage.pgpool.log


def test_a_login_whose_primary_hangs_up_before_a_word_is_tried_again(start: Start, servers: Servers) -> None:
    stage = start(tls=True, connect_timeout="20000")
    with proc.frozen(servers.standby.pid):  # it has connections to both, and speaks to the standby first
        os.kill(servers.primary.pid, signal.SIGSTOP)
        write = at_once(stage.write)
        assert is_held(write), stage.pgpool.log
        os.kill(servers.primary.pid, signal.SIGKILL)
    servers.primary.restart("immediate")
    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=30)
