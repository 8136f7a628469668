"""A client's request to cancel a statement comes by a connection of its own: which child gets it is chance."""

import threading

import psycopg
import pytest

from support.pod import APP_PASSWORD, APP_ROLE, Pod

SECONDS = 20


def test_a_statement_is_cancelled_and_its_session_goes_on(pod: Pod) -> None:
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        with pgpool.connect(APP_ROLE, APP_PASSWORD) as session:
            for _ in range(3):
                request = threading.Timer(0.3, session.cancel)
                request.start()
                with pytest.raises(psycopg.errors.QueryCanceled):
                    session.execute("SELECT pg_sleep(%s)", [SECONDS])
                request.join()
                assert session.execute("SELECT 1").fetchone() == (1,)
