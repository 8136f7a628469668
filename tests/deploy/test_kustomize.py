"""The stand-in for kustomize merges as kustomize does, and never passes over what it does not know."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kustomize import KustomizationError, build, environment

POD: dict[str, Any] = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}]}


def rendered(directory: Path, patch: object, **more: object) -> dict[str, Any]:
    """One object, patched."""
    (directory / "pod.yaml").write_text(yaml.safe_dump({"kind": "Pod", "metadata": {"name": "p"}, "spec": POD}))
    (directory / "patch.yaml").write_text(yaml.safe_dump(patch))
    entry = {"path": "patch.yaml"} | ({"target": {"kind": "Pod", "name": "p"}} if isinstance(patch, list) else {})
    kustomization = {"resources": ["pod.yaml"], "patches": [entry], **more}
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    (document,) = build(directory)
    spec: dict[str, Any] = document["spec"]
    return spec


def merging(containers: object, name: str = "p") -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": name}, "spec": {"containers": containers}}


def test_items_are_merged_by_name_and_new_ones_go_first(tmp_path: Path) -> None:
    patch = merging([{"name": "c"}, {"name": "a", "image": "i", "env": [{"name": "Y", "value": "2"}]}])
    names_of_env = [{"name": "Y", "value": "2"}, {"name": "X", "value": "1"}]
    assert rendered(tmp_path, patch)["containers"] == [
        {"name": "c"}, {"name": "a", "image": "i", "env": names_of_env}, {"name": "b"},
    ]  # fmt: skip


def test_operations_are_those_of_a_json_patch(tmp_path: Path) -> None:
    operations = [
        {"op": "add", "path": "/spec/x~1y", "value": 1},
        {"op": "remove", "path": "/spec/containers/0/env"},
        {"op": "move", "from": "/spec/containers/0", "path": "/spec/containers/1"},
        {"op": "replace", "path": "/spec/containers/0/name", "value": "c"},
    ]
    assert rendered(tmp_path, operations) == {"x/y": 1, "containers": [{"name": "c"}, {"name": "a"}]}


@pytest.mark.parametrize(
    ("patch", "more"),
    [
        (merging([]), {"namePrefix": "x-"}),
        (merging([]), {"configMapGenerator": [{"name": "x", "behavior": "merge"}]}),
        (merging([]), {"images": [{"name": "x", "digest": "sha256:0"}]}),
        (merging([{"name": "a", "$patch": "delete"}]), {}),
        (merging([{"name": "a", "env": None}]), {}),
        (merging([], name="q"), {}),
        ([{"op": "copy", "from": "/spec", "path": "/spec/x"}], {}),
    ],
)
def test_what_it_does_not_know_is_an_error(patch: object, more: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(KustomizationError):
        rendered(tmp_path, patch, **more)


def test_an_env_file_has_comments_and_keeps_quotes() -> None:
    assert environment('# a comment\n\nA=1\nB="x=y"\n') == {"A": "1", "B": '"x=y"'}
