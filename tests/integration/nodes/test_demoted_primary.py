"""A primary that Patroni demotes, and that nobody succeeds, for etcd is away and `failsafe_mode` off."""

from pathlib import Path

import psycopg
import pytest

from bench.failover_arena import Front
from support.cluster import Cluster
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE

HELD = 3
"""Seconds of a login: as long as the client lets it wait."""


def write(front: Front, seconds: int) -> None:
    with front.pgpool.connect(APP_ROLE, APP_PASSWORD, APP_ROLE, connect_timeout=seconds) as session:
        session.execute("CREATE TABLE IF NOT EXISTS demoted ()")


def test_gets_no_writes_though_no_client_was_there_to_notice(cluster: Cluster, pgpool_bin: Path) -> None:
    """A session that breaks would tell pgpool; without one, it has no reason to look."""
    leader = cluster.leader()
    front = Front(cluster.directory / "demoted", cluster, pgpool_bin, sidecar=True)
    with front.at_work():
        assert front.sidecar is not None
        front.sidecar.wait_until("in_sync")
        write(front, HELD)
        for number in (1, 2):
            cluster.stop_etcd(number)
        log = front.sidecar.wait_until_logged("nodes.look_again", timeout=cluster.options.ttl * 2)
        assert f"{leader} takes no writes" in log["reason"]
        with pytest.raises(psycopg.OperationalError, match="timeout expired"):  # not 25006
            write(front, HELD)
        for number in (1, 2):
            cluster.start_etcd(number)
        cluster.wait_until_healthy()
        wait_until(
            lambda: front.pgpool.can_log_in(APP_ROLE, APP_PASSWORD, APP_ROLE), timeout=20, failure=lambda: "held still"
        )
        write(front, HELD)
