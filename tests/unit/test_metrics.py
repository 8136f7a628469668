"""The names are a contract with dashboards and alerts."""

import math

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from sidecar.metrics import Metrics


def samples(metrics: Metrics) -> list[Sample]:
    families = text_string_to_metric_families(generate_latest(metrics.registry).decode())
    return [sample for family in families for sample in family.samples]


def names(metrics: Metrics) -> set[str]:
    return {sample.name for sample in samples(metrics)}


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("1.2.3")


LATE = {
    "pgpool_reloader_last_reload_successful",
    "pgpool_reloader_last_reload_success_timestamp_seconds",
    "pgpool_reloader_last_verified_timestamp_seconds",
    "pgpool_reloader_secret_last_change_timestamp_seconds",
    "pgpool_reloader_scan_timestamp_seconds",
    "pgpool_tls_cert_not_after_timestamp_seconds",
}
"""What says nothing before the first try."""

FROM_THE_START = {
    "pgpool_reloader_reloads_total",
    "pgpool_reloader_config_apply_operations_total",
    "pgpool_reloader_verify_total",
    "pgpool_reloader_verify_duration_seconds_bucket",
    "pgpool_reloader_verify_duration_seconds_count",
    "pgpool_reloader_verify_duration_seconds_sum",
    "pgpool_reloader_pending_since_timestamp_seconds",
    "pgpool_reloader_held_credentials",
    "pgpool_reloader_rejected_credentials",
    "pgpool_reloader_rotation_duration_seconds_bucket",
    "pgpool_reloader_rotation_duration_seconds_count",
    "pgpool_reloader_rotation_duration_seconds_sum",
    "pgpool_reloader_rollbacks_total",
    "pgpool_reloader_restart_required",
    "pgpool_reloader_restarts_total",
    "pgpool_reloader_watch_events_total",
    "pgpool_reloader_watch_errors_total",
    "pgpool_reloader_build_info",
}

WITH_AN_EVENT = {
    "pgpool_reloader_watch_mode",
    "pgpool_pcp_calls_total",
}


def test_before_anything_happened_nothing_has_failed(metrics: Metrics) -> None:
    assert names(metrics) == FROM_THE_START
    pending = value(metrics, "pgpool_reloader_pending_since_timestamp_seconds")
    assert pending is not None
    assert math.isnan(pending)


def test_every_name_appears_once_it_has_something_to_say(metrics: Metrics) -> None:
    metrics.reloads.labels(result="success").inc()
    metrics.last_reload_successful.set(1)
    metrics.last_reload_success_timestamp.set(1.5e9)
    metrics.last_verified_timestamp.set(1.5e9)
    metrics.secret_last_change_timestamp.set(1.5e9)
    metrics.scan_timestamp.set(1.5e9)
    metrics.tls_cert_not_after_timestamp.set(1.6e9)
    metrics.rollbacks.labels(reason="refused").inc()
    metrics.restarts.labels(reason="configuration").inc()
    metrics.watching("inotify")
    metrics.pcp_called("pcp_node_count", "ok")
    assert names(metrics) == FROM_THE_START | LATE | WITH_AN_EVENT
    assert value(metrics, "pgpool_reloader_last_reload_successful") == 1
    assert value(metrics, "pgpool_tls_cert_not_after_timestamp_seconds") == 1.6e9
    assert value(metrics, "pgpool_reloader_build_info", version="1.2.3") == 1
    assert value(metrics, "pgpool_pcp_calls_total", tool="pcp_node_count", result="ok") == 1


def test_known_results_are_counted_from_zero(metrics: Metrics) -> None:
    for result in ("applied", "noop", "held", "invalid", "failed"):
        assert value(metrics, "pgpool_reloader_config_apply_operations_total", result=result) == 0
    for stage in ("backend", "pgpool"):
        assert value(metrics, "pgpool_reloader_verify_total", stage=stage, result="rejected") == 0
    assert value(metrics, "pgpool_reloader_reloads_total", result="failure") == 0
    assert value(metrics, "pgpool_reloader_rollbacks_total", reason="refused") == 0
    assert value(metrics, "pgpool_reloader_restarts_total", reason="configuration") == 0


def test_one_way_of_watching_is_in_use(metrics: Metrics) -> None:
    metrics.watching("inotify")
    metrics.watching("poll")
    assert value(metrics, "pgpool_reloader_watch_mode", mode="poll") == 1
    assert value(metrics, "pgpool_reloader_watch_mode", mode="inotify") == 0


def test_rotations_from_a_tenth_of_a_second_to_two_minutes_are_told_apart(metrics: Metrics) -> None:
    bounds = [
        float(sample.labels["le"])
        for sample in samples(metrics)
        if sample.name == "pgpool_reloader_rotation_duration_seconds_bucket"
    ]
    assert bounds[0] == 0.1
    assert bounds[-2:] == [120, math.inf]


def test_two_instances_share_nothing() -> None:
    one, other = Metrics("1"), Metrics("2")
    one.watch_events.inc()
    assert value(other, "pgpool_reloader_watch_events_total") == 0


def test_no_label_takes_text_from_outside(metrics: Metrics) -> None:
    assert {label for sample in samples(metrics) for label in sample.labels} <= {
        "result", "stage", "reason", "mode", "version", "tool", "le",
    }  # fmt: skip
