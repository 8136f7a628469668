"""What the sidecar counts about its own work, for Prometheus.

Names follow prometheus-config-reloader's where it has an equivalent, with the prefix `pgpool_`. Labels come from
short fixed lists; a role, a path or a digest is never one of them.
"""

import math
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_PREFIX = "pgpool_reloader_"
_SECONDS = (0.1, 0.2, 0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 60, 90, 120)

RELOADS = ("success", "failure")
APPLIES = ("applied", "noop", "held", "invalid", "failed")
STAGES = ("backend", "pgpool")
LOGINS = ("accepted", "rejected", "unknown")
ROLLBACKS = ("refused",)
RESTARTS = ("configuration",)
MODES = ("inotify", "poll")


class LateGauge(Collector):
    """A gauge without labels that is absent until it is set, so that no alert fires before the first try."""

    def __init__(self, name: str, documentation: str, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._value: float | None = None
        registry.register(self)

    def set(self, value: float) -> None:
        """Set the value; from now on, the series is there."""
        self._value = value

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The series, if it has a value."""
        if self._value is not None:
            yield GaugeMetricFamily(self._name, self._documentation, value=self._value)


class Metrics:
    """Every metric of the sidecar, in a registry of its own. Times are Unix timestamps, durations seconds."""

    def __init__(self, version: str) -> None:
        """Make them all; counters whose labels are known start at 0, so that their first increase is seen."""
        # Process-wide; a series `…_created` for each counter is of use to nobody.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = registry = CollectorRegistry()

        def counter(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(_PREFIX + name, documentation, labels, registry=registry)

        def gauge(name: str, documentation: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(_PREFIX + name, documentation, labels, registry=registry)

        def late(name: str, documentation: str) -> LateGauge:
            return LateGauge(_PREFIX + name, documentation, registry)

        self.reloads = counter(
            "reloads_total",
            "Reloads of pgpool's configuration (reloader_reloads_total, reloader_reloads_failed_total).",
            ("result",),
        )
        self.last_reload_successful = late(
            "last_reload_successful",
            "Whether the last reload arrived in pgpool, or pgpool was started with that set since; absent until one of "
            "both (reloader_last_reload_successful).",
        )
        self.last_reload_success_timestamp = late(
            "last_reload_success_timestamp_seconds",
            "When a reload last arrived, absent until one did (reloader_last_reload_success_timestamp_seconds).",
        )
        self.applies = counter(
            "config_apply_operations_total",
            "Passes over the inputs: published, nothing to do, put off, refused as wrong, or failed "
            "(reloader_config_apply_operations_total, reloader_config_apply_operations_failed_total).",
            ("result",),
        )
        self.verifications = counter(
            "verify_total",
            "Logins with a mounted password, directly at a backend or through pgpool.",
            ("stage", "result"),
        )
        self.verify_duration = Histogram(
            _PREFIX + "verify_duration_seconds",
            "Time from a reload until logins proved it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.last_verified_timestamp = late(
            "last_verified_timestamp_seconds",
            "When logins through pgpool last proved a set that it was given: as the changed roles (16 at most), or as "
            "the check role when none had changed. Absent until then; while nothing changes, it stays.",
        )
        self.pending_since_timestamp = gauge(
            "pending_since_timestamp_seconds",
            "Since when a change waits to be served; NaN, with which every comparison is false, when none does.",
        )
        self.held_credentials = gauge(
            "held_credentials", "Roles for which pgpool keeps an older password than mounted."
        )
        self.rejected_credentials = gauge(
            "rejected_credentials", "Roles of which PostgreSQL accepts neither the mounted password nor the one in use."
        )
        self.rollbacks = counter(
            "rollbacks_total", "Returns to the generation before, for logins that pgpool refused.", ("reason",)
        )
        self.secret_last_change_timestamp = late(
            "secret_last_change_timestamp_seconds", "When a change of the inputs was last seen, absent until one was."
        )
        self.rotation_duration = Histogram(
            _PREFIX + "rotation_duration_seconds",
            "Time from a change being seen until logins through pgpool proved it.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.restart_required = gauge("restart_required", "Whether a change waits that pgpool reads at start only.")
        self.restarts = counter("restarts_total", "Times that pgpool was told to end, to be started anew.", ("reason",))
        self.watch_mode = gauge("watch_mode", "How changes are noticed: 1 for the mode in use.", ("mode",))
        self.watch_events = counter("watch_events_total", "Hints that a file changed (reloader_watch_events_total).")
        self.watch_errors = counter(
            "watch_errors_total", "Failures to watch or to read a directory (reloader_watch_errors_total)."
        )
        self.booted_timestamp = late(
            "booted_timestamp_seconds", "When pgpool was last started in this pod, absent until it was."
        )
        self.scan_timestamp = late("scan_timestamp_seconds", "When the inputs were last read, absent until they were.")
        self.build_info = gauge("build_info", "Always 1 (prometheus_config_reloader_build_info).", ("version",))
        self.pcp_calls = Counter(
            "pgpool_pcp_calls_total",
            "Runs of a pcp tool: answered, answered with an error, or PCP was away.",
            ("tool", "result"),
            registry=registry,
        )
        self.tls_cert_not_after_timestamp = LateGauge(
            "pgpool_tls_cert_not_after_timestamp_seconds",
            "When the Secret's certificate expires, absent without one.",
            registry,
        )

        for result in RELOADS:
            self.reloads.labels(result)
        for result in APPLIES:
            self.applies.labels(result)
        for stage in STAGES:
            for result in LOGINS:
                self.verifications.labels(stage, result)
        for reason in ROLLBACKS:
            self.rollbacks.labels(reason)
        for reason in RESTARTS:
            self.restarts.labels(reason)
        self.pending_since_timestamp.set(math.nan)
        self.build_info.labels(version).set(1)

    def pcp_called(self, tool: str, result: str) -> None:
        """Count one run of a pcp tool: the hook that sidecar.pcp.Pcp calls."""
        self.pcp_calls.labels(tool, result).inc()

    def watching(self, mode: str) -> None:
        """Say how changes are noticed from now on: one of MODES."""
        for known in MODES:
            self.watch_mode.labels(known).set(known == mode)
