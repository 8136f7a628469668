"""Faults of `make bench-failover`, one of each, briefly; the goals are wider here, for a machine that may be busy."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.failover_arena import Arena, opened
from bench.failover_scenarios import live, scenarios
from support.cluster import Cluster

SLACK, SPARE = 10.0, 3
LEFT_OUT = {
    "cut-all-8-drop",
    "cut-primary-8-reject",
    "cut-standby-reject",
    "check-password",
    "etcd-quorum",
    "etcd-quorum-failsafe",
}
"""They take long, and differ little from one that is there, or from a test of their own."""
SCENARIOS = {each.name: each for each in scenarios(short=True, slack=SLACK, spare=SPARE) if each.name not in LEFT_OUT}


@pytest.fixture(scope="module")
def arena(shared_cluster: Cluster, pgpool_bin: Path) -> Iterator[Arena]:
    shared_cluster.restore()
    with opened(shared_cluster, pgpool_bin, pgpools=1, sidecar=True, seed=1) as arena:
        yield arena


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SCENARIOS)
def test_clients_live_through_it(arena: Arena, cluster: Cluster, name: str) -> None:
    lived = live(arena, SCENARIOS[name])
    assert not lived.misses, f"{lived.events}\n{cluster.describe()}"
