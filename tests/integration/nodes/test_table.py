"""pgpool's node table, read from a real pgpool: what it says during failovers, and that it harms nobody."""

import threading
from collections.abc import Iterator

import pytest

from entrypoint.credentials import pcp_hash
from entrypoint.pcp import PcpAddress
from entrypoint.secret import Secret
from sidecar.pcp import PcpError
from sidecar.table import Row, TableReader
from support import proc
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import NewServer, PostgresServer

PCP_RESTARTED = "fork a new PCP child"
UNDEFINED = 127


def seen(reader: TableReader) -> list[tuple[str, str]]:
    return [(row.status, row.role) for row in reader.read()]


def is_there(reader: TableReader) -> bool:
    try:
        return bool(reader.read())
    except PcpError as error:
        if not error.away:
            raise
        return False


@pytest.fixture(scope="module")
def serving(new_pod: NewPod, postgres: PostgresServer) -> Iterator[tuple[Pod, Pgpool]]:
    """A node that is there, and one that is not."""
    pod = new_pod()
    pod.environment["PGPOOL_BACKENDS"] += f",node-2=127.0.0.9:{postgres.port}"
    pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = "2"
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        # The login finds that node, and PCP is restarted after that.
        pgpool.wait_until_logged(PCP_RESTARTED)
        yield pod, pgpool


@pytest.fixture
def reader(serving: tuple[Pod, Pgpool]) -> Iterator[TableReader]:
    reader = TableReader(serving[0].pcp_address)
    wait_until(lambda: is_there(reader), timeout=10, failure=lambda: serving[1].log)
    yield reader
    reader.close()


def test_the_rows_are_what_pcp_node_info_says(serving: tuple[Pod, Pgpool], reader: TableReader) -> None:
    said = [
        Row(
            node_id=node.node_id,
            host=node.host,
            port=node.port,
            status=node.status_name,
            role=node.role,
        )
        for node in serving[0].pcp().nodes()
    ]
    assert list(reader.read()) == said
    assert seen(reader) == [("up", "primary"), ("down", "standby")]


def test_a_reading_logs_nothing_but_the_line_that_our_patch_removes(
    serving: tuple[Pod, Pgpool], reader: TableReader
) -> None:
    _, pgpool = serving
    before = len(pgpool.log)
    for _ in range(10):
        reader.read()
    reader.close()
    logged = [line for line in pgpool.log[before:].splitlines() if "pcp" in line]
    assert [line for line in logged if "status_changed_time" not in line] == []


def test_three_readers_do_not_disturb_each_other(serving: tuple[Pod, Pgpool], reader: TableReader) -> None:
    expected = reader.read()
    different: list[object] = []

    def read() -> None:
        own = TableReader(serving[0].pcp_address)
        try:
            different.extend(rows for rows in (own.read() for _ in range(50)) if rows != expected)
        except PcpError as error:
            different.append(error)
        finally:
            own.close()

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert different == []


def test_the_password_is_the_one_of_the_time_when_a_session_begins(serving: tuple[Pod, Pgpool]) -> None:
    pod, _ = serving
    password = pod.pcp_address().password
    reader = TableReader(lambda: PcpAddress(pod.run_dir, pod.pcp_port, "pgpool", password))
    reader.read()
    file = pod.generation / "pcp.conf"
    former = file.read_text()
    try:
        file.write_text(f"pgpool:{pcp_hash('the next % one')}\n")
        reader.close()
        with pytest.raises(PcpError, match="authentication failed") as caught:
            reader.read()
        assert not caught.value.away
        password = Secret("the next % one")
        assert reader.read()
    finally:
        file.write_text(former)
        reader.close()


def test_a_stopped_pgpool_costs_no_more_than_the_limit(serving: tuple[Pod, Pgpool]) -> None:
    pod, pgpool = serving
    reader = TableReader(pod.pcp_address, seconds=0.3)
    reader.read()
    with proc.frozen(*pgpool.pids):
        for _ in range(2):  # in a session, and without one
            with pytest.raises(PcpError, match="no answer in time") as caught:
                reader.read()
            assert caught.value.away
    wait_until(lambda: is_there(reader), timeout=10, failure=lambda: pgpool.log)
    reader.close()


def test_readings_go_on_while_pcp_is_restarted_and_leave_the_old_process(
    serving: tuple[Pod, Pgpool], reader: TableReader
) -> None:
    pod, pgpool = serving
    reader.close()
    before = set(pgpool.pids)
    reader.read()
    workers = {pid for pid in set(pgpool.pids) - before if b"PCP" in proc.cmdline(pid)}
    assert len(workers) == 1
    restarts = pgpool.log.count(PCP_RESTARTED)
    pod.pcp().attach(UNDEFINED)
    wait_until(
        lambda: reader.read() and pgpool.log.count(PCP_RESTARTED) > restarts, timeout=10, failure=lambda: pgpool.log
    )
    # It was not asked to end, or did not heed it; it ends when the reader takes another.
    wait_until(
        lambda: reader.read() and not workers & set(pgpool.pids),
        timeout=5,
        failure=lambda: proc.describe(pgpool.pids),
    )


def test_a_node_that_hangs_does_not_slow_a_reading(new_pod: NewPod, new_server: NewServer) -> None:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    server.create_role(APP_ROLE, APP_PASSWORD)
    pod = new_pod(server)
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        reader = TableReader(pod.pcp_address, seconds=0.5)
        wait_until(lambda: is_there(reader), timeout=10, failure=lambda: pgpool.log)
        with proc.frozen(server.pid):
            for _ in range(5):
                assert seen(reader) == [("up", "primary")]
            with pytest.raises(PcpError, match="no answer within"):
                pod.pcp().nodes(seconds=0.5)
        reader.close()


def test_killed_pgpool_is_away_and_another_one_is_read_with_its_own_password(pod: Pod) -> None:
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        reader = TableReader(pod.pcp_address)
        wait_until(lambda: is_there(reader), timeout=10, failure=lambda: pgpool.log)
        former = pod.pcp_address().password
        pgpool.kill_group()
        for _ in range(2):
            with pytest.raises(PcpError) as caught:
                reader.read()
            assert caught.value.away
        pgpool.start()
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        wait_until(lambda: is_there(reader), timeout=10, failure=lambda: pgpool.log)
        assert pod.pcp_address().password != former
        # A session that is open does not hold up its end.
        assert reader.read()
        assert pgpool.stop() == 0
        with pytest.raises(PcpError) as caught:
            reader.read()
        assert caught.value.away


def test_a_primary_that_is_down_tells_of_a_failover_and_no_primary_of_one_that_found_none(
    new_pod: NewPod, new_server: NewServer
) -> None:
    primary, standby = new_server(), new_server()
    for server in (primary, standby):
        server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
        server.create_role(APP_ROLE, APP_PASSWORD)
    standby.stop()
    (standby.data / "standby.signal").touch()
    standby.start()
    pod = new_pod(primary)
    pod.environment["PGPOOL_BACKENDS"] += f",node-2=127.0.0.1:{standby.port}"
    pod.environment["PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT"] = "2"
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        reader = TableReader(pod.pcp_address)

        def wait_for(*expected: tuple[str, str]) -> None:
            wait_until(lambda: seen(reader) == [*expected], timeout=10, failure=lambda: f"{seen(reader)}\n{pgpool.log}")

        wait_until(lambda: is_there(reader), timeout=10, failure=lambda: pgpool.log)
        wait_for(("up", "primary"), ("up", "standby"))
        pod.pcp().detach(0)
        wait_for(("down", "primary"), ("up", "standby"))
        wait_for(("down", "standby"), ("up", "standby"))
        pod.pcp().attach(0)
        wait_for(("waiting", "primary"), ("up", "standby"))
        reader.close()
