"""A rolling update as deploy/base does it, in front of a real PostgreSQL, and the way back to the former pooler.

The Service is a list of servers, of which each new connection takes one. A pod leaves the list when its preStop
begins, and gets SIGINT when that ends.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from support.deadline import wait_until
from support.documents import PROJECT
from support.kustomize import build
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, NewPod
from support.postgres import PostgresServer

WRITERS = 6
PRE_STOP_SECONDS = 1.0
"""Of a rolling update here; the way back takes the manifest's."""
SKEW_SECONDS = 0.4
"""New pods do not become ready at the same moment, so former ones do not go at the same moment."""
STOP_SECONDS = 10
"""What the grace period leaves after preStop, less than half of it used up."""


class Writer(threading.Thread):
    """A client that keeps its connection, and writes one row after the other; a row counts when it is acknowledged."""

    def __init__(self, number: int, service: list[Pgpool | PostgresServer], dbname: str) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.acknowledged: list[int] = []
        self.errors: list[str] = []
        self.end = threading.Event()
        self._service = service
        self._dbname = dbname

    def run(self) -> None:
        connection: psycopg.Connection | None = None
        row = 0
        while not self.end.wait(0.005):
            row += 1
            try:
                if connection is None:
                    connection = random.choice(tuple(self._service)).connect(APP_ROLE, APP_PASSWORD, self._dbname)
                connection.execute("INSERT INTO rows VALUES (%s, %s)", (self.number, row))
                self.acknowledged.append(row)
            except psycopg.Error as error:
                self.errors.append(str(error))
                connection = None
        if connection is not None:
            connection.close()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """With an empty table of the application's."""
    postgres.create_database("rollout", owner=APP_ROLE)
    with postgres.connect(APP_ROLE, APP_PASSWORD, "rollout") as connection:
        connection.execute("CREATE TABLE rows (writer int, number int)")
    yield "rollout"
    postgres.drop_database("rollout")


@contextmanager
def working(writers: list[Writer]) -> Iterator[None]:
    for writer in writers:
        writer.start()
    try:
        yield
    finally:
        for writer in writers:
            writer.end.set()
        for writer in writers:
            writer.join()


def wait_for_rows(writers: list[Writer]) -> None:
    """Until each writer has got on."""
    before = [len(writer.acknowledged) for writer in writers]
    wait_until(
        lambda: all(len(writer.acknowledged) > then + 20 for writer, then in zip(writers, before, strict=True)),
        timeout=20,
        failure=lambda: str([writer.errors for writer in writers]),
    )


Replicas = Callable[[], list[Pgpool]]


@pytest.fixture
def replicas(new_pod: NewPod) -> Iterator[Replicas]:
    """Two pods more, each with a child for every writer."""
    with ExitStack() as pods:

        def start() -> list[Pgpool]:
            started = []
            for _ in range(2):
                pod = new_pod()
                pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = str(WRITERS + 1)
                started.append(pods.enter_context(pod.pgpool()))
            for pgpool in started:
                pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
            return started

        yield start


def assert_one_error_each_and_no_acknowledged_row_lost(
    writers: list[Writer], postgres: PostgresServer, dbname: str
) -> None:
    assert [len(writer.errors) for writer in writers] == [1] * WRITERS, [writer.errors for writer in writers]
    written = set(postgres.sql("SELECT writer, number FROM rows", dbname=dbname))
    acknowledged = {(writer.number, row) for writer in writers for row in writer.acknowledged}
    assert acknowledged <= written
    assert len(written) <= len(acknowledged) + WRITERS, "the last row of each broken connection may be there, or not"


def test_a_rolling_update_costs_each_client_one_connection_at_most_and_no_acknowledged_row(
    replicas: Replicas, postgres: PostgresServer, database: str
) -> None:
    service: list[Pgpool | PostgresServer] = []
    writers = [Writer(number, service, database) for number in range(WRITERS)]
    former = replicas()
    service += former
    with working(writers):
        wait_for_rows(writers)
        service += replicas()

        for pgpool in former:
            service.remove(pgpool)
            time.sleep(SKEW_SECONDS)
        time.sleep(PRE_STOP_SECONDS - SKEW_SECONDS)
        for pgpool in former:
            assert pgpool.stop(timeout=STOP_SECONDS) == 0
            time.sleep(SKEW_SECONDS)
        wait_for_rows(writers)
    assert_one_error_each_and_no_acknowledged_row_lost(writers, postgres, database)


def pre_stop_seconds() -> float:
    (deployment,) = (each for each in build(PROJECT / "deploy/base") if each["kind"] == "Deployment")
    (pgpool,) = (each for each in deployment["spec"]["template"]["spec"]["containers"] if each["name"] == "pgpool")
    sleep, seconds = pgpool["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    return float(seconds)


def test_the_way_back_to_the_former_pooler_takes_half_a_minute_and_costs_each_client_one_connection(
    replicas: Replicas, postgres: PostgresServer, database: str
) -> None:
    """The two commands of "Back to the former pooler" (docs/operations.md); PostgreSQL itself stands for the pooler."""
    pods = replicas()
    service: list[Pgpool | PostgresServer] = [*pods]
    writers = [Writer(number, service, database) for number in range(WRITERS)]
    with working(writers), ThreadPoolExecutor() as kubelet:
        wait_for_rows(writers)
        begin = time.monotonic()
        service[:] = [postgres]
        time.sleep(pre_stop_seconds())
        assert list(kubelet.map(lambda pgpool: pgpool.stop(timeout=STOP_SECONDS), pods)) == [0, 0]
        wait_for_rows(writers)
        taken = time.monotonic() - begin
    assert taken < 30
    assert_one_error_each_and_no_acknowledged_row_lost(writers, postgres, database)
