"""The names of all series that a sidecar's /metrics can have, and those that a PromQL expression asks for."""

import re
from functools import cache

from prometheus_client import CollectorRegistry

from sidecar.exporter import families
from sidecar.keeper import View
from sidecar.metrics import LateGauge, Metrics
from sidecar.node_metrics import NodeMetrics
from sidecar.snapshot import CACHE_COUNTERS, CACHE_GAUGES, MESSAGES, STATEMENTS, Snapshot
from sidecar.truth import Truth
from support.members import cluster, following, leading, table
from support.pgpool_answers import PARAMETERS, busy, checks, node

_SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
_NAME = re.compile(r"\b(?:pgpool2?_[a-z0-9_]+|up)\b")


def in_expression(expression: str) -> set[str]:
    """The series that an expression asks for."""
    return set(_NAME.findall(re.sub(r'"[^"]*"', "", expression)))


@cache
def served() -> frozenset[str]:
    """What is on the page when everything has happened that can happen."""
    metrics = Metrics("1.2.3")
    for late in vars(metrics).values():
        if isinstance(late, LateGauge):
            late.set(1)
    collected = [*metrics.registry.collect(), *_nodes().collect(), *families(_everything(), count=1)]
    return frozenset(f"{metric.name}{suffix}" for metric in collected for suffix in _SUFFIXES.get(metric.type, ("",)))


def _nodes() -> CollectorRegistry:
    registry = CollectorRegistry()
    members = cluster(leading, following, following)
    view = View(table=table("PSS"), members=members, truth=Truth(0, "it holds the lock"), seen_at=0.0)
    NodeMetrics(registry, lambda: 1.0).note(view)
    return registry


def _everything() -> Snapshot:
    numbers = dict.fromkeys((*STATEMENTS, *MESSAGES), 7.0)
    return Snapshot(
        processes=tuple(busy(1)),
        parameters=PARAMETERS,
        health_checks=(checks(0), checks(1)),
        nodes=(node(0), node(1), node(1, delay_unit="seconds")),
        backend_stats={0: numbers, 1: numbers},
        cache=dict.fromkeys((*CACHE_COUNTERS, *CACHE_GAUGES), 0.5),
    )
