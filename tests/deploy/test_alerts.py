"""Each alert fires for what it is meant for, stays silent just short of it, and asks for numbers that there are."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from deploy.conftest import COMPONENTS, DEPLOY
from support import metric_names

RULES: dict[str, Any] = yaml.safe_load((COMPONENTS / "monitoring/alerts.yaml").read_text())["spec"]
RUNBOOK = (DEPLOY.parent / "docs/operations.md").read_text()
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}


class Case(NamedTuple):
    """Series in promtool's notation, a sample every 15 s from 0 on; when the alert is silent still, when it fires."""

    series: dict[str, str]
    silent: str
    fires: str
    labels: dict[str, str]
    """Of the alert, beside severity and pod."""


CASES = {
    "PgpoolPrimaryDisagreement": Case({'pgpool_nodes_disagreement_seconds{pod="a"}': "0+15x5"}, "30s", "45s", {}),
    "PgpoolRoleMismatch": Case(
        {'pgpool2_pool_nodes_role_mismatch{pod="a",node_id="1"}': "0 1x5"}, "15s", "30s", {"node_id": "1"}
    ),
    "PgpoolNoPrimary": Case(
        {
            'pgpool_nodes_primary_node_id{pod="a",by="pgpool"}': "-1x10",
            'pgpool_nodes_primary_node_id{pod="a",by="cluster"}': "-1x10",
        },
        "15s",
        "30s",
        {"by": "pgpool"},
    ),
    "PgpoolUnobserved": Case({'pgpool_nodes_observation_age_seconds{pod="a"}': "0+15x5"}, "30s", "45s", {}),
    "PgpoolNodeLeftOut": Case(
        {
            'pgpool_nodes_up{pod="a",node_id="1",name="left out"}': "0x40",
            'pgpool_nodes_answers{pod="a",node_id="1",name="left out"}': "1x40",
            'pgpool_nodes_up{pod="a",node_id="2",name="gone"}': "0x40",
            'pgpool_nodes_answers{pod="a",node_id="2",name="gone"}': "0x40",
        },
        "1m45s",
        "2m",
        {"node_id": "1", "name": "left out"},
    ),
    "PgpoolStandbyBehind": Case(
        {
            'pgpool2_pool_nodes_replication_delay_bytes{pod="a",node_id="0"}': "100000000x40",
            'pgpool2_pool_nodes_status{pod="a",node_id="0"}': "1x40",
            'pgpool2_pool_nodes_replication_delay_bytes{pod="a",node_id="1"}': "110000000x40",
            'pgpool2_pool_nodes_status{pod="a",node_id="1"}': "1x40",
            'pgpool2_pool_nodes_replication_delay_bytes{pod="a",node_id="2"}': "110000000x40",
            'pgpool2_pool_nodes_status{pod="a",node_id="2"}': "0x40",
        },
        "4m45s",
        "5m",
        {"node_id": "1"},
    ),
    "PgpoolPatroniUnheard": Case(
        {
            'pgpool_nodes_patroni_answers{pod="a",node_id="1",name="unheard"}': "0x40",
            'pgpool_nodes_answers{pod="a",node_id="1",name="unheard"}': "1x40",
            'pgpool_nodes_patroni_answers{pod="a",node_id="2",name="gone"}': "0x40",
            'pgpool_nodes_answers{pod="a",node_id="2",name="gone"}': "0x40",
        },
        "4m45s",
        "5m",
        {"node_id": "1", "name": "unheard"},
    ),
    "PgpoolNodeActionsFail": Case(
        {
            'pgpool_nodes_actions_total{pod="a",kind="attach",result="refused"}': "0+1x40",
            'pgpool_nodes_actions_total{pod="a",kind="detach",result="taken"}': "0+9x40",
        },
        "1m",
        "5m",
        {"kind": "attach", "result": "refused"},
    ),
    "PgpoolPrimaryUnsteady": Case({'pgpool_nodes_failovers_total{pod="a"}': "0+1x4 4x20"}, "45s", "1m", {}),
    "PgpoolReloadFails": Case({'pgpool_reloader_last_reload_successful{pod="a"}': "0x40"}, "4m45s", "5m", {}),
    "PgpoolChangePending": Case(
        {
            'pgpool_reloader_pending_since_timestamp_seconds{pod="a"}': "0x40",
            'pgpool_reloader_pending_since_timestamp_seconds{pod="nothing waits"}': "NaN NaN NaN NaN NaN NaN NaN",
        },
        "5m",
        "5m15s",
        {},
    ),
    "PgpoolPasswordRejected": Case({'pgpool_reloader_rejected_credentials{pod="a"}': "2x10"}, "45s", "1m", {}),
    "PgpoolNothingProved": Case(
        {
            # A login at the start, two more every 5 minutes, the last ones after 15: their window ends after 23.
            'pgpool_reloader_verify_total{pod="a",stage="backend",result="accepted"}': "1x19 3x19 5x19 7x80",
            'pgpool_reloader_verify_total{pod="a",stage="backend",result="unknown"}': "0+1x140",
        },
        "29m30s",
        "30m",
        {},
    ),
    "PgpoolRolledBack": Case(
        {'pgpool_reloader_rollbacks_total{pod="a",reason="refused"}': "0 0 1x10"}, "15s", "30s", {"reason": "refused"}
    ),
    "PgpoolSecretsUnread": Case({'pgpool_reloader_scan_timestamp_seconds{pod="a"}': "0x40"}, "2m", "2m15s", {}),
    "PgpoolRestartRequired": Case({'pgpool_reloader_restart_required{pod="a"}': "1x300"}, "59m45s", "1h", {}),
    "PgpoolCertificateExpires": Case(
        {'pgpool_tls_cert_not_after_timestamp_seconds{pod="a"}': f"{14 * 86400 + 60}x300"}, "1h1m", "1h1m15s", {}
    ),
    "PgpoolWatchPolls": Case(
        {
            'pgpool_reloader_watch_mode{pod="a",mode="poll"}': "1x300",
            'pgpool_reloader_watch_mode{pod="a",mode="inotify"}': "0x300",
        },
        "59m45s",
        "1h",
        {"mode": "poll"},
    ),
    "PgpoolDown": Case({'pgpool2_up{pod="a"}': "0x10"}, "45s", "1m", {}),
    "PgpoolRestarts": Case(
        {'pgpool_reloader_booted_timestamp_seconds{pod="a"}': "1x40 2x40 3x40 4x40"}, "29m45s", "30m45s", {}
    ),
    "PgpoolSidecarDown": Case({'up{job="pgpool",pod="a"}': "0x20"}, "1m45s", "2m", {"job": "pgpool"}),
    # Prometheus goes by a sample for 5 minutes.
    "PgpoolAbsent": Case({'up{job="pgpool",pod="a"}': "1 1"}, "10m", "10m30s", {"job": "pgpool"}),
    "PgpoolAlmostFull": Case({'pgpool2_frontend_used_ratio{pod="a"}': "0.85x40"}, "4m45s", "5m", {}),
    "PgpoolFull": Case({'pgpool2_frontend_free{pod="a"}': "0x10"}, "45s", "1m", {}),
    "PgpoolNumbersMissing": Case({'pgpool2_last_scrape_error{pod="a"}': "1x60"}, "9m45s", "10m", {}),
}


def promtool(directory: Path, *arguments: str) -> str:
    program = shutil.which("promtool")
    assert program, "there is no promtool on PATH (Debian: prometheus)"
    result = subprocess.run([program, *arguments], cwd=directory, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_prometheus_takes_the_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(RULES))
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool(tmp_path, "check", "rules", "rules.yaml")


def test_every_alert_fires_when_it_is_due_and_no_sooner(tmp_path: Path) -> None:
    assert CASES.keys() == ALERTS.keys()
    # promtool would want all words of an alert repeated.
    groups = [
        {**group, "rules": [{key: rule[key] for key in rule.keys() - {"annotations"}} for rule in group["rules"]]}
        for group in RULES["groups"]
    ]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    tests = [_promtool_test(alert, case) for alert, case in CASES.items()]
    document = {"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": tests}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(document))
    promtool(tmp_path, "test", "rules", "tests.yaml")


def _promtool_test(alert: str, case: Case) -> dict[str, Any]:
    labels = {"pod": "a", "severity": ALERTS[alert]["labels"]["severity"], **case.labels}
    if alert == "PgpoolAbsent":
        del labels["pod"]
    return {
        "interval": "15s",
        "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
        "alert_rule_test": [
            {"eval_time": case.silent, "alertname": alert, "exp_alerts": []},
            {"eval_time": case.fires, "alertname": alert, "exp_alerts": [{"exp_labels": labels}]},
        ],
    }


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_asks_for_numbers_of_the_sidecar_and_says_how_bad_it_is(alert: str) -> None:
    rule = ALERTS[alert]
    asked = metric_names.in_expression(rule["expr"])
    assert asked
    assert asked <= metric_names.served() | {"up"}
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    assert rule["annotations"].keys() == {"summary", "description"}


def test_every_alert_has_a_section_of_the_runbook_that_says_what_to_do_and_how_bad_it_is() -> None:
    sections = alert_sections()
    assert list(sections) == [rule["alert"] for group in RULES["groups"] for rule in group["rules"]]
    for alert, words in sections.items():
        severity, _, cure = words.partition(". ")
        assert severity == ALERTS[alert]["labels"]["severity"], alert
        assert len(cure) > 60, alert


def alert_sections() -> dict[str, str]:
    """What stands below `## Alerts`, by heading."""
    alerts = RUNBOOK.partition("\n## Alerts\n")[2].partition("\n## ")[0]
    parts = alerts.split("\n### ")[1:]
    return {heading.strip(): words.strip() for heading, _, words in (part.partition("\n") for part in parts)}


def test_the_numbers_that_the_runbook_asks_for_are_there() -> None:
    asked = set().union(*(metric_names.in_expression(span) for span in re.findall(r"`([^`\n]+)`", RUNBOOK)))
    asked = {name for name in asked if name.startswith(("pgpool_", "pgpool2_")) and name != "pgpool_hba"}
    assert len(asked) >= 8
    assert asked <= metric_names.served()
