"""A rolling update as deploy/base does it, in front of a real PostgreSQL: the new pods first, then the former ones go.

The Service is a list of ports, of which each new connection takes one. A former pod leaves the list when its preStop
begins, and gets SIGINT when that ends. Here, preStop takes 1 s.
"""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psycopg
import pytest

from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, NewPod
from support.postgres import PostgresServer

WRITERS = 6
PRE_STOP_SECONDS = 1.0
SKEW_SECONDS = 0.4
"""New pods do not become ready at the same moment, so former ones do not go at the same moment."""
STOP_SECONDS = 10
"""What the grace period leaves after preStop, less than half of it used up."""


class Writer(threading.Thread):
    """A client that keeps its connection, and writes one row after the other; a row counts when it is acknowledged."""

    def __init__(self, number: int, service: list[Pgpool], dbname: str) -> None:
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


def test_each_client_loses_one_connection_at_most_and_no_acknowledged_row(
    new_pod: NewPod, postgres: PostgresServer, database: str
) -> None:
    service: list[Pgpool] = []
    writers = [Writer(number, service, database) for number in range(WRITERS)]
    with ExitStack() as pods:

        def replicas() -> list[Pgpool]:
            started = []
            for _ in range(2):
                pod = new_pod()
                pod.environment["PGPOOL_PARAMS_NUM_INIT_CHILDREN"] = str(WRITERS + 1)
                started.append(pods.enter_context(pod.pgpool()))
            for pgpool in started:
                pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
            return started

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

    assert [len(writer.errors) for writer in writers] == [1] * WRITERS, [writer.errors for writer in writers]
    written = set(postgres.sql("SELECT writer, number FROM rows", dbname=database))
    acknowledged = {(writer.number, row) for writer in writers for row in writer.acknowledged}
    assert acknowledged <= written
    assert len(written) <= len(acknowledged) + WRITERS, "the last row of each broken connection may be there, or not"
