"""What `kustomize build` makes of the kustomizations in deploy/.

Where there is no kustomize, this stands in for it. It knows what is used there and raises on anything else, so that
nothing is passed over in silence. Unlike kustomize, it adds no suffix to the name of a ConfigMap.
"""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

Document = dict[str, Any]
"""One object of Kubernetes."""

_FIELDS = {
    "apiVersion", "kind", "namespace", "resources", "components", "configMapGenerator", "patches", "images",
}  # fmt: skip
_LISTS_BY_KEY = {
    "containers": "name",
    "env": "name",
    "initContainers": "name",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
"""Lists that a strategic merge patch merges by the key of their items; other lists are replaced."""


class KustomizationError(Exception):
    """Says what kustomize would refuse, or what only kustomize knows."""


def build(directory: Path, given: Iterable[Document] = ()) -> list[Document]:
    """Everything that a kustomization makes; a component starts from what is `given`."""
    file = directory / "kustomization.yaml"
    kustomization = yaml.safe_load(file.read_text())
    if unknown := kustomization.keys() - _FIELDS:
        raise KustomizationError(f"{file}: {', '.join(sorted(unknown))}")
    documents = list(given)
    for entry in kustomization.get("resources", ()):
        path = directory / entry
        documents += build(path) if path.is_dir() else read(path)
    for entry in kustomization.get("components", ()):
        documents = build(directory / entry, documents)
    documents += [_config_map(directory, generator) for generator in kustomization.get("configMapGenerator", ())]
    for entry in kustomization.get("patches", ()):
        _apply(directory / entry["path"], entry.get("target"), documents)
    for image in kustomization.get("images", ()):
        _rename(image, documents)
    if "namespace" in kustomization:
        for document in documents:
            document["metadata"]["namespace"] = kustomization["namespace"]
    return documents


def read(path: Path) -> list[Any]:
    """The documents of a YAML file."""
    return list(yaml.safe_load_all(path.read_text()))


def _config_map(directory: Path, generator: Mapping[str, Any]) -> Document:
    if unknown := generator.keys() - {"name", "envs", "files", "options"}:
        raise KustomizationError(f"configMapGenerator: {', '.join(sorted(unknown))}")
    data = {name: (directory / name).read_text() for name in generator.get("files", ())}
    for name in generator.get("envs", ()):
        data |= environment((directory / name).read_text())
    labels = generator.get("options", {}).get("labels", {})
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": generator["name"], "labels": labels},
        "data": data,
    }


def environment(text: str) -> dict[str, str]:
    """The variables of an env file; neither kustomize nor this takes off quotes."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


def _apply(path: Path, target: Mapping[str, str] | None, documents: list[Document]) -> None:
    (patch,) = read(path)
    if isinstance(patch, list):
        if target is None:
            raise KustomizationError(f"{path}: operations without a target")
        document = _find(target["kind"], target["name"], documents)
        for operation in patch:
            _operate(operation, document)
    else:
        document = _find(patch["kind"], patch["metadata"]["name"], documents)
        document |= _merged(document, patch)


def _find(kind: str, name: str, documents: list[Document]) -> Document:
    found = [each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name]
    if len(found) != 1:
        raise KustomizationError(f"{len(found)} objects are {kind} {name}")
    return found[0]


def _merged(old: Document, patch: Document) -> Document:
    """A strategic merge."""
    new = dict(old)
    for key, value in patch.items():
        if value is None or key.startswith("$"):
            raise KustomizationError(f"deleting {key} by a strategic merge patch")
        if isinstance(value, dict):
            new[key] = _merged(old.get(key, {}), value)
        elif key in _LISTS_BY_KEY:
            new[key] = _merged_list(old.get(key, []), value, _LISTS_BY_KEY[key])
        else:
            new[key] = value
    return new


def _merged_list(old: list[Document], patch: list[Document], by: str) -> list[Document]:
    """Items that are new go first."""
    patches = {item[by]: item for item in patch}
    kept = [_merged(item, patches.pop(item[by], {})) for item in old]
    return [*patches.values(), *kept]


def _operate(operation: Mapping[str, Any], document: Document) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    match operation["op"]:
        case "add":
            _add(document, operation["path"], operation["value"])
        case "remove":
            _remove(document, operation["path"])
        case "replace":
            _remove(document, operation["path"])
            _add(document, operation["path"], operation["value"])
        case "move":
            _add(document, operation["path"], _remove(document, operation["from"]))
        case other:
            raise KustomizationError(f"the operation {other}")


def _add(document: Document, pointer: str, value: object) -> None:
    parent, key = _parent(document, pointer)
    if isinstance(parent, list):
        parent.insert(int(key), copy.deepcopy(value))
    else:
        parent[key] = copy.deepcopy(value)


def _remove(document: Document, pointer: str) -> object:
    parent, key = _parent(document, pointer)
    return parent.pop(int(key) if isinstance(parent, list) else key)


def _parent(document: Document, pointer: str) -> tuple[Any, str]:
    *steps, key = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    parent: Any = document
    for step in steps:
        parent = parent[int(step) if isinstance(parent, list) else step]
    return parent, key


def _rename(image: Mapping[str, str], documents: list[Document]) -> None:
    if unknown := image.keys() - {"name", "newName", "newTag"}:
        raise KustomizationError(f"images: {', '.join(sorted(unknown))}")
    for document in documents:
        pod = document.get("spec", {}).get("template", {}).get("spec", {})
        for container in (*pod.get("initContainers", ()), *pod.get("containers", ())):
            if container["image"].partition(":")[0] == image["name"]:
                container["image"] = f"{image.get('newName', image['name'])}:{image['newTag']}"
