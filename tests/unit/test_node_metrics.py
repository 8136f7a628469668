"""The node loop's numbers; their names are a contract with dashboards and alerts."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.keeper import View
from sidecar.memory import Kind
from sidecar.node_metrics import RESULTS, NodeMetrics
from sidecar.truth import Truth
from support.members import (
    barred,
    cluster,
    following,
    gone,
    leading,
    patroni_dead,
    silent,
    table,
    unknown,
    without_patroni,
)

NOW = 50.0
WELL = View(
    table=table("PSS"),
    members=cluster(leading, following, following),
    truth=Truth(0, "it holds the lock"),
    seen_at=NOW - 2.0,
)


class Site:
    """The numbers at a time that a test sets."""

    def __init__(self) -> None:
        self.now = NOW
        self.registry = CollectorRegistry()
        self.metrics = NodeMetrics(self.registry, lambda: self.now)

    def value(self, series: str, /, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"pgpool_nodes_{series}", labels)

    def values(self, series: str) -> list[float | None]:
        return [self.value(series, node_id=str(node), name=f"node-{node}") for node in range(3)]

    def names(self) -> set[str]:
        families = text_string_to_metric_families(generate_latest(self.registry).decode())
        return {sample.name for family in families for sample in family.samples}


@pytest.fixture
def site() -> Site:
    return Site()


AT_ONCE = {
    "pgpool_nodes_actions_total",
    "pgpool_nodes_failovers_total",
    "pgpool_nodes_observation_age_seconds",
}


def test_before_the_first_look_nothing_but_its_age_and_counters_at_0(site: Site) -> None:
    site.now += 31
    assert site.names() == AT_ONCE
    assert site.value("observation_age_seconds") == 31, "a table that was never read is an alarm, too"
    assert {site.value("actions_total", kind=str(kind), result=result) for kind in Kind for result in RESULTS} == {0.0}
    assert site.value("failovers_total") == 0


def test_then_every_series_is_there(site: Site) -> None:
    site.metrics.note(WELL)
    assert site.names() - AT_ONCE == {
        "pgpool_nodes_primary_node_id",
        "pgpool_nodes_disagreement_seconds",
        "pgpool_nodes_up",
        "pgpool_nodes_answers",
        "pgpool_nodes_patroni_answers",
    }


def test_all_is_well(site: Site) -> None:
    site.metrics.note(WELL)
    assert site.value("observation_age_seconds") == 2.0
    assert site.value("primary_node_id", by="pgpool") == site.value("primary_node_id", by="cluster") == 0
    assert site.value("disagreement_seconds") == 0
    assert site.values("up") == site.values("answers") == [1, 1, 1]


def test_ages_are_those_of_the_time_of_a_scrape(site: Site) -> None:
    site.metrics.note(View(table=table("PSS"), members=WELL.members, seen_at=NOW, apart_since=NOW - 5))
    site.now += 10
    assert site.value("observation_age_seconds") == 10
    assert site.value("disagreement_seconds") == 15


def test_nobody_is_minus_one(site: Site) -> None:
    site.metrics.note(View(table=table("pSS"), members=WELL.members, truth=Truth(None, "nobody"), seen_at=NOW))
    assert site.value("primary_node_id", by="pgpool") == site.value("primary_node_id", by="cluster") == -1


def test_what_pgpool_uses_and_who_answers_are_two_things(site: Site) -> None:
    members = cluster(silent, barred, unknown)
    site.metrics.note(View(table=table("Pws"), members=members, seen_at=NOW))
    assert (site.values("up"), site.values("answers")) == ([1, 1, 0], [0, 0, 0])
    site.metrics.note(View(table=table("usq"), members=cluster(leading, gone, following), seen_at=NOW))
    assert (site.values("up"), site.values("answers")) == ([0, 0, 0], [1, 0, 1])


def test_whether_patroni_answers_is_told_where_it_is_asked(site: Site) -> None:
    members = cluster(leading, patroni_dead(following), without_patroni(following))
    site.metrics.note(View(table=table("PSS"), members=members, seen_at=NOW))
    assert site.values("patroni_answers") == [1, 0, None]
    assert site.values("answers") == [1, 1, 1]


def test_a_node_that_only_pgpool_knows_has_no_name(site: Site) -> None:
    site.metrics.note(View(table=table("PSSS"), members=WELL.members, seen_at=NOW))
    assert site.value("up", node_id="3", name="") == 1
    assert site.value("answers", node_id="3", name="") is None


def test_actions_are_counted_by_kind_and_result(site: Site) -> None:
    for result in ("taken", "taken", "away"):
        site.metrics.count(Kind.ATTACH, result)
    assert site.value("actions_total", kind="attach", result="taken") == 2
    assert site.value("actions_total", kind="attach", result="away") == 1
    assert site.value("actions_total", kind="look_again", result="taken") == 0


@pytest.mark.parametrize(
    ("tables", "failovers"),
    [
        (("PSS", "PSS"), 0),
        (("PSS", "pSS", "PSS"), 1),
        (("PSS", "pSS", "sPS", "SPS"), 1),
        (("PSS", "SSS", "sPS", "SSS", "PSS"), 2),
        (("SSS", "SPS"), 0),
        (("PSS", "SSS", "SSS", "PSS", "PSS"), 1),
    ],
)
def test_a_failover_is_another_primary_or_the_same_after_there_was_none(
    site: Site, tables: tuple[str, ...], failovers: int
) -> None:
    for letters in tables:
        site.metrics.note(View(table=table(letters), seen_at=NOW))
    assert site.value("failovers_total") == failovers
