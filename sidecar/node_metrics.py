"""The node loop's numbers for Prometheus, made from its latest look at the time of a scrape."""

import time
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sidecar.keeper import View
from sidecar.member import Reach
from sidecar.memory import Kind
from sidecar.table import is_up, primary_of

_PREFIX = "pgpool_nodes_"
RESULTS = ("taken", "refused", "away")
_NOBODY = -1


class NodeMetrics(Collector):
    """`note` and `count` are what sidecar.keeper.Keeper calls."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic) -> None:
        """Register with `registry`; `clock`: the one that the views have their times from."""
        disable_created_metrics()  # type: ignore[no-untyped-call]  # process-wide, as in sidecar.metrics
        self._clock = clock
        self._begun = clock()
        self._view = View()
        self._primary: int | None = None
        self._led = False
        """Whether pgpool had a primary at some time."""
        self._actions = Counter(
            _PREFIX + "actions_total",
            "What was done about pgpool's nodes: taken by pgpool, refused, or PCP was away.",
            ("kind", "result"),
            registry=registry,
        )
        self._failovers = Counter(
            _PREFIX + "failovers_total",
            "New primaries of pgpool that were seen, the former one after there was none among them.",
            registry=registry,
        )
        for kind in Kind:
            for result in RESULTS:
                self._actions.labels(str(kind), result)
        registry.register(self)

    def note(self, view: View) -> None:
        """Take the latest view."""
        primary = primary_of(view.table)
        if primary is not None and primary != self._primary:
            if self._led:
                self._failovers.inc()
            self._led = True
        self._primary = primary
        self._view = view

    def count(self, kind: str, result: str) -> None:
        """Count an action."""
        self._actions.labels(kind, result).inc()

    def collect(self) -> Iterable[Metric]:
        """The series; before the first look only its age, so that one that never succeeds is noticed."""
        view, now = self._view, self._clock()
        seen_at = self._begun if view.seen_at is None else view.seen_at
        yield _gauge("observation_age_seconds", "Since pgpool's table was last read.", now - seen_at)
        if view.seen_at is None:
            return
        primary = GaugeMetricFamily(
            _PREFIX + "primary_node_id",
            "The primary as pgpool has it, and as the cluster says; -1: nobody.",
            labels=["by"],
        )
        for by, node in (("pgpool", primary_of(view.table)), ("cluster", view.truth.primary)):
            primary.add_metric([by], _NOBODY if node is None else node)
        yield primary
        apart = 0.0 if view.apart_since is None else now - view.apart_since
        yield _gauge("disagreement_seconds", "Since when pgpool's primary is not the cluster's; 0 while it is.", apart)
        up = GaugeMetricFamily(_PREFIX + "up", "Whether pgpool uses the node.", labels=["node_id", "name"])
        answers = GaugeMetricFamily(
            _PREFIX + "answers", "Whether PostgreSQL of the node answers the sidecar.", labels=["node_id", "name"]
        )
        patroni = GaugeMetricFamily(
            _PREFIX + "patroni_answers",
            "Whether Patroni of the node answers the sidecar; nothing where it is not asked.",
            labels=["node_id", "name"],
        )
        names = {member.node_id: member.name for member in view.members}
        for row in view.table:
            up.add_metric([str(row.node_id), names.get(row.node_id, "")], is_up(row))
        for member in view.members:
            there = member.sql is not None and member.sql.reach is Reach.ANSWERED
            answers.add_metric([str(member.node_id), member.name], there)
            if member.rest is not None:
                patroni.add_metric([str(member.node_id), member.name], member.rest.reach is Reach.ANSWERED)
        yield up
        yield answers
        yield patroni


def _gauge(name: str, documentation: str, value: float) -> Metric:
    return GaugeMetricFamily(_PREFIX + name, documentation, value=value)
