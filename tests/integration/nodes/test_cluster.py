"""The cluster that other tests rely on does what its verbs say."""

import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from contextlib import closing

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from support.cluster import Cluster
from support.network import far
from support.patroni import PORT, REST_PORT, RefusedError
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE

pytestmark = pytest.mark.timeout(300)  # of the first test, the start of the cluster is a part

AT_ONCE = 1.0
"""Seconds in which an answer comes, if it is not waited for anything."""


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as executor:
        yield executor


def far_session(cluster: Cluster, node: str, **parameters: str) -> psycopg.Connection:
    """The application's, through the network that can be cut."""
    host = far(cluster.nodes[node].address)
    conninfo = make_conninfo(cluster.conninfo(), host=host, target_session_attrs="any", **parameters)
    return psycopg.connect(conninfo, autocommit=True)


def far_rest(cluster: Cluster, node: str) -> int:
    with urllib.request.urlopen(
        f"http://{far(cluster.nodes[node].address)}:{REST_PORT}/patroni", timeout=AT_ONCE
    ) as answer:
        status: int = answer.status
        return status


def rest(cluster: Cluster, node: str, path: str) -> str:
    """What Patroni says; nothing if it has nothing to say, or takes its time, as it may while it loses etcd."""
    try:
        return cluster.nodes[node].ask("GET", path, timeout=AT_ONCE)
    except (TimeoutError, RefusedError):
        return ""


def wait_for_other_leader(cluster: Cluster, former: str, *, timeout: float) -> str:
    def other() -> str | None:
        leader = cluster.find_leader()
        return leader if leader != former and cluster.writable_nodes() == [leader] else None

    return cluster.wait_until(other, timeout)


def test_one_node_leads_and_can_be_written_to_and_the_others_stream_from_it(cluster: Cluster) -> None:
    leader = cluster.leader()
    assert cluster.writable_nodes() == [leader]
    assert len(cluster.standbys()) == 2
    for name in cluster.standbys():
        member = cluster.member(name)
        assert member is not None
        assert member.streaming
        assert member.timeline == cluster.timeline()
    names = cluster.nodes[leader].sql("SELECT application_name FROM pg_stat_replication ORDER BY 1")
    assert [name for (name,) in names] == cluster.standbys()


def test_only_the_right_password_opens_a_session(cluster: Cluster) -> None:
    for node in cluster.nodes.values():
        with closing(node.connect(CHECK_ROLE, CHECK_PASSWORD)) as session:
            assert session.execute("SELECT count(*) FROM pg_stat_replication").fetchone()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            node.connect(APP_ROLE, "not the 100% right one", APP_ROLE)


def test_libpq_finds_the_primary_by_itself(cluster: Cluster) -> None:
    for there in (False, True):
        with closing(psycopg.connect(cluster.conninfo(far=there))) as session:
            assert session.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def test_a_switchover_makes_the_candidate_the_leader_on_a_new_timeline(cluster: Cluster) -> None:
    timeline, candidate = cluster.timeline(), cluster.standbys()[-1]
    assert cluster.switchover(candidate) == candidate
    cluster.wait_until_healthy()
    assert cluster.leader() == candidate
    assert cluster.timeline() == timeline + 1


def test_terminated_backends_are_those_of_the_application_alone(cluster: Cluster) -> None:
    leader = cluster.leader()
    with (
        closing(far_session(cluster, leader, application_name="to end")) as ended,
        closing(far_session(cluster, leader, application_name="to stay")) as stays,
    ):
        assert cluster.terminate_backends("to end") == 1
        with pytest.raises(psycopg.errors.AdminShutdown):
            ended.execute("SELECT 1")
        assert stays.execute("SELECT 1").fetchone() == (1,)


def test_a_dropping_cut_is_silence_and_ends_as_if_nothing_had_been(
    cluster: Cluster, executor: ThreadPoolExecutor
) -> None:
    leader = cluster.leader()
    with closing(far_session(cluster, leader)) as session:
        cluster.cut([leader])
        statement = executor.submit(session.execute, "SELECT 1")
        with pytest.raises(psycopg.errors.ConnectionTimeout):
            far_session(cluster, leader)
        with pytest.raises(urllib.error.URLError, match="timed out"):
            far_rest(cluster, leader)
        with pytest.raises(NotYetError):
            statement.result(0)
        cluster.mend()
        assert statement.result(10).fetchone() == (1,)
        assert far_rest(cluster, leader) == 200


def test_a_rejecting_cut_is_a_reset_at_once(cluster: Cluster) -> None:
    leader = cluster.leader()
    with closing(far_session(cluster, leader)) as session:
        cluster.cut([leader], how="reject")
        begin = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="refused"):
            far_session(cluster, leader)
        with pytest.raises(urllib.error.URLError, match="refused"):
            far_rest(cluster, leader)
        assert time.monotonic() - begin < AT_ONCE
    cluster.mend()
    far_session(cluster, leader).close()


def test_a_rejecting_cut_resets_a_client_that_only_listens(cluster: Cluster) -> None:
    leader = cluster.leader()
    with closing(far_session(cluster, leader, application_name="only listens")) as session:
        listener = socket.socket(fileno=session.pgconn.socket)
        try:
            session.pgconn.send_query(b"SELECT pg_sleep(1)")
            cluster.cut([leader], how="reject")
            listener.settimeout(5)
            with pytest.raises(ConnectionResetError):
                listener.recv(1)
        finally:
            listener.detach()


@pytest.mark.parametrize("how", ["drop", "reject"])
def test_a_cut_touches_neither_the_cluster_nor_the_nodes_that_are_not_named(cluster: Cluster, how: str) -> None:
    leader, (cut, other) = cluster.leader(), cluster.standbys()
    cluster.cut([cut, leader], how="reject" if how == "reject" else "drop")
    far_session(cluster, other).close()
    assert cluster.is_healthy()
    [(written,)] = cluster.nodes[leader].sql("SELECT pg_logical_emit_message(true, 'test', 'written')::text")
    arrived = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
    cluster.wait_until(lambda: cluster.nodes[cut].sql(arrived, [written]) == [(True,)], 5)


def test_a_killed_postmaster_is_restarted_in_place(cluster: Cluster) -> None:
    leader = cluster.leader()
    former = cluster.nodes[leader].postmaster_pid
    cluster.kill_postmaster(leader)
    cluster.wait_until(lambda: not cluster.writable_nodes(), 5)
    cluster.wait_until_healthy()
    assert cluster.leader() == leader
    assert cluster.nodes[leader].postmaster_pid != former


def test_postgresql_survives_its_patroni_and_is_taken_over_by_the_next(cluster: Cluster) -> None:
    leader = cluster.leader()
    postmaster = cluster.nodes[leader].postmaster_pid
    cluster.kill_patroni(leader)
    assert cluster.member(leader) is None
    assert cluster.writable_nodes() == [leader]
    cluster.start(leader)
    cluster.wait_until_healthy()
    assert cluster.leader() == leader
    assert cluster.nodes[leader].postmaster_pid == postmaster


def test_after_the_leader_is_lost_another_node_leads_and_the_lost_one_comes_back_as_standby(cluster: Cluster) -> None:
    lost, timeline = cluster.leader(), cluster.timeline()
    cluster.lose(lost)
    assert not cluster.writable_nodes()
    with pytest.raises(psycopg.OperationalError, match="refused"):
        cluster.nodes[lost].connect()
    wait_for_other_leader(cluster, lost, timeout=cluster.options.ttl + 10)
    assert cluster.timeline() == timeline + 1
    cluster.start(lost)
    cluster.wait_until_healthy()
    assert lost in cluster.standbys()


def test_a_frozen_postgresql_takes_connections_and_serves_none(cluster: Cluster) -> None:
    standby = cluster.nodes[cluster.standbys()[0]]
    cluster.freeze(standby.name)
    socket.create_connection((standby.address, PORT), AT_ONCE).close()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        standby.connect(APP_ROLE, APP_PASSWORD, APP_ROLE)
    cluster.thaw(standby.name)
    assert standby.sql("SELECT pg_is_in_recovery()") == [(True,)]


def test_a_frozen_patroni_says_nothing_while_postgresql_goes_on(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.freeze(leader, "patroni")
    assert cluster.member(leader) is None
    assert cluster.writable_nodes() == [leader]
    cluster.thaw(leader, "patroni")
    cluster.wait_until(lambda: cluster.find_leader() == leader, 10)


def test_a_standby_is_restarted_by_patroni_and_streams_again(cluster: Cluster) -> None:
    leader, standby = cluster.leader(), cluster.standbys()[0]
    former = cluster.nodes[standby].postmaster_pid
    cluster.restart_postgres(standby)
    assert cluster.nodes[standby].postmaster_pid not in {former, None}
    cluster.wait_until_healthy()
    assert cluster.leader() == leader


def test_a_node_that_is_still_being_demoted_is_restarted_after_that(cluster: Cluster) -> None:
    former = cluster.leader()
    leader = cluster.switchover()
    cluster.restart_postgres(former)
    cluster.wait_until_healthy()
    assert cluster.leader() == leader


def test_without_one_etcd_member_patroni_goes_on(cluster: Cluster) -> None:
    cluster.stop_etcd(1)
    candidate = cluster.standbys()[0]
    assert cluster.switchover(candidate) == candidate
    cluster.start_etcd(1)
    cluster.etcd[1].wait_until_healthy()


def test_without_a_quorum_of_etcd_no_node_can_be_written_to_until_it_is_back(cluster: Cluster) -> None:
    for number in (1, 2):
        cluster.stop_etcd(number)
    cluster.wait_until(lambda: not cluster.writable_nodes(), cluster.options.ttl)
    for number in (1, 2):
        cluster.start_etcd(number)
    cluster.wait_until_healthy()


def test_in_failsafe_mode_the_primary_stays_without_etcd(cluster: Cluster) -> None:
    leader = cluster.leader()
    cluster.configure({"failsafe_mode": True})
    # Each of them has to know who belongs to the cluster, or the primary does not learn that they live.
    cluster.wait_until(
        lambda: all(other in rest(cluster, name, "failsafe") for name in cluster.nodes for other in cluster.nodes), 20
    )
    for number in (1, 2, 3):
        cluster.stop_etcd(number)
    cluster.wait_until(lambda: '"failsafe_mode_is_active": true' in rest(cluster, leader, "patroni"), 20)
    assert cluster.leader() == leader
    assert cluster.writable_nodes() == [leader]
