"""The dashboard shows what matters, and only numbers that there are."""

import itertools
import json
from typing import Any

import pytest

from deploy.conftest import COMPONENTS, one
from support import metric_names

DASHBOARD: dict[str, Any] = json.loads((COMPONENTS / "monitoring/dashboard.json").read_text())
PANELS = {panel["title"]: panel for panel in DASHBOARD["panels"] if panel["type"] != "row"}


def expressions() -> list[str]:
    """Everything that is asked of Prometheus."""
    asked = [target["expr"] for panel in PANELS.values() for target in panel["targets"]]
    asked += [annotation["expr"] for annotation in DASHBOARD["annotations"]["list"]]
    return asked + [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]


@pytest.mark.parametrize("expression", expressions())
def test_every_number_is_one_of_the_sidecar(expression: str) -> None:
    asked = metric_names.in_expression(expression)
    assert asked
    assert asked <= metric_names.served()


@pytest.mark.parametrize(
    ("subject", "metric"),
    [
        ("primary", "pgpool_nodes_primary_node_id"),
        ("disagreement", "pgpool_nodes_disagreement_seconds"),
        ("rotation", "pgpool_reloader_rotation_duration_seconds_bucket"),
        ("pool use", "pgpool2_frontend_used_ratio"),
        ("held clients", "pgpool2_frontend_processes"),
    ],
)
def test_there_is_a_panel_for(subject: str, metric: str) -> None:
    titles = [title for title, panel in PANELS.items() if any(metric in each["expr"] for each in panel["targets"])]
    assert any(subject in title.lower() for title in titles)


def test_every_panel_says_what_it_shows_for_the_chosen_pods() -> None:
    for panel in PANELS.values():
        assert panel["description"]
        for target in panel["targets"]:
            assert 'namespace="$namespace", pod=~"$pod"' in target["expr"]
            assert target["datasource"]["uid"] == "${datasource}"
            assert target["legendFormat"]


def test_no_panel_covers_another() -> None:
    def tiles(panel: dict[str, Any]) -> set[tuple[int, int]]:
        at = panel["gridPos"]
        return set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))

    taken = [tile for panel in DASHBOARD["panels"] for tile in tiles(panel)]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))


def test_grafana_finds_it() -> None:
    found = one("monitoring", "ConfigMap", "pgpool-dashboard")
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["dashboard.json"]) == DASHBOARD
