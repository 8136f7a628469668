"""The search for a primary, and what a failover keeps everybody from."""

import os
import re
import signal
from time import monotonic, sleep

from integration.conftest import FORMER, StartScene
from support import proc
from support.deadline import wait_until
from support.postgres import PostgresServer
from support.two_nodes import NO_PRIMARY, PRIMARY, SEARCHES, STANDBY, Servers, Start, at_once


def test_the_primary_is_looked_for_many_times_within_a_few_seconds(start: Start, servers: Servers) -> None:
    stage = start(log_min_messages="debug1")
    stage.lose_primary(servers)

    rounds = stage.wait_for_lines("find_primary_node: standby node is", 12)

    assert (rounds[-1] - rounds[1]).total_seconds() < 5  # one at the start; then one each second, unpatched


def test_the_first_search_takes_a_password_that_comes_meanwhile(start_scene: StartScene) -> None:
    """The Secret was changed first, and pgpool is started anew: it has a password that PostgreSQL does not have yet."""
    scene = start_scene()
    scene.mount({scene.check: "the next % password"})
    scene.sidecar.wait_until("pending")
    scene.pgpool.stop()
    scene.pgpool.start()

    scene.pgpool.wait_until_login(scene.role, FORMER, timeout=20)  # after 58 s, unpatched: search_primary_node_timeout

    scene.sidecar.wait_until("pending")


def searching(server: PostgresServer) -> set[int]:
    """The server processes that answer the check role's sessions."""
    rows = server.sql(
        "SELECT pid FROM pg_stat_activity WHERE usename = 'sr_check' AND query LIKE '%pg_is_in_recovery%'"
    )
    return {int(str(pid)) for (pid,) in rows}


def test_the_primary_is_looked_for_by_the_same_connections_until_they_end(start: Start, servers: Servers) -> None:
    stage = start(health_check_period="0", sr_check_period="0")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged("find_primary_node: standby node is")
    [asked] = wait_until(lambda: searching(servers.standby), timeout=10, failure=lambda: stage.pgpool.log)
    sleep(1)
    assert searching(servers.standby) == {asked}

    os.kill(asked, signal.SIGTERM)

    wait_until(lambda: searching(servers.standby) - {asked}, timeout=10, failure=lambda: stage.pgpool.log)


def test_a_search_goes_on_when_a_node_falls_silent(start: Start, servers: Servers) -> None:
    stage = start(health_check_period="0", sr_check_period="0", connect_timeout="1000")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged("find_primary_node: standby node is")
    [asked] = wait_until(lambda: searching(servers.standby), timeout=10, failure=lambda: stage.pgpool.log)
    with proc.frozen(asked):
        wait_until(lambda: searching(servers.standby) - {asked}, timeout=20, failure=lambda: stage.pgpool.log)


def test_a_statement_does_not_wait_longer_than_a_failover(start: Start) -> None:
    stage = start()
    slowest: list[float] = []
    with stage.connect() as session:
        for _ in range(3):
            looking = at_once(stage.look_again)
            latencies = []
            while not looking.done():
                begin = monotonic()
                session.execute("SELECT 1")
                latencies.append(monotonic() - begin)
            looking.result()
            slowest.append(max(latencies))

    assert min(slowest) < 0.8, slowest  # at least one sleep of 1 s, unpatched


def test_a_search_ends_with_the_attach_of_the_primary_that_pgpool_had_given_up(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="600")
    stage.lose_primary(servers)
    write = at_once(stage.write)
    servers.primary.start()

    stage.until_told(stage.pcp.attach, PRIMARY)

    write.result(timeout=30)
    assert "failed to find primary node" not in stage.pgpool.log


def test_the_attach_that_ends_a_search_ends_no_child_that_was_started_for_it(start: Start, servers: Servers) -> None:
    stage = start(primary_first=True, search_primary_node_timeout="600", log_min_messages="debug1")
    stage.lose_primary(servers)
    stage.pgpool.wait_until_logged(SEARCHES)
    children = proc.children(stage.pgpool.pid)
    write = at_once(stage.write)
    servers.primary.start()

    stage.until_told(stage.pcp.attach, 0)

    write.result(timeout=30)
    ended = {int(pid) for pid in re.findall(r"kill process with PID:(\d+)", stage.pgpool.log)}
    assert ended
    assert ended <= set(children)


def test_a_search_goes_on_when_a_node_is_attached_that_is_there_already(start: Start, servers: Servers) -> None:
    stage = start(search_primary_node_timeout="600", log_min_messages="debug1")
    stage.lose_primary(servers)

    stage.until_told(stage.pcp.attach, STANDBY)

    stage.wait_for_lines("received failback request for node_id: 0", 1)
    rounds = stage.pgpool.log.count("find_primary_node: standby node is")
    stage.wait_for_lines("find_primary_node: standby node is", rounds + 5)
    assert NO_PRIMARY not in stage.pgpool.log


def test_pgpool_goes_on_at_once_after_a_failover(start: Start) -> None:
    stage = start()
    for command in (stage.pcp.detach, stage.pcp.attach) * 2:
        restarts = stage.pgpool.log.count("fork a new PCP child")
        stage.until_told(command, STANDBY)
        stage.wait_for_lines("fork a new PCP child", restarts + 1)

    ended = stage.wait_for_lines("done. ", 4)
    restarted = stage.wait_for_lines("restart request received in pcp child process", 4)
    pauses = [(after - before).total_seconds() for before, after in zip(ended, restarted, strict=True)]
    assert min(pauses) < 0.9, pauses  # 1 s and more, unpatched


def test_the_table_is_read_without_a_line_in_the_log(start: Start) -> None:
    stage = start()
    before = stage.pgpool.log

    for _ in range(3):
        assert [row.status for row in stage.table.read()] == ["up", "up"]

    assert "status_changed_time" not in stage.pgpool.log.removeprefix(before)  # a line for each node, unpatched
