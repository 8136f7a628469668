"""Every fault of `make bench-failover`, once and briefly, with ten times the time that its goals allow."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.failover_arena import Arena, opened
from bench.failover_scenarios import live, scenarios
from support.cluster import Cluster

SLACK = 10.0
SCENARIOS = {scenario.name: scenario for scenario in scenarios(short=True, slack=SLACK)}


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
