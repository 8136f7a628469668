"""What deploy/ makes of itself, rendered once."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from support.kustomize import Document, build

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPONENTS = DEPLOY / "components"
OPERATORS = ("external-secrets", "monitoring", "tls")
BEFORE_1_29 = "before-1.29"
VARIANTS = {
    "base": (),
    **{component: (component,) for component in (*OPERATORS, BEFORE_1_29)},
    "everything": OPERATORS,
    "everything before 1.29": (*OPERATORS, BEFORE_1_29),
}


@cache
def variant(name: str) -> tuple[Document, ...]:
    """The objects of the base with the components that this variant has."""
    with TemporaryDirectory() as directory:
        return tuple(_with_components(Path(directory), VARIANTS[name]))


def _with_components(directory: Path, components: tuple[str, ...]) -> list[Document]:
    kustomization = {
        "resources": [str(DEPLOY / "base")],
        "components": [str(COMPONENTS / component) for component in components],
        "namespace": "db",
    }
    (directory / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(directory)


def one(name: str, kind: str, called: str = "") -> Document:
    """The only object of a kind in a variant, or the only one that is called so."""
    (document,) = (each for each in variant(name) if each["kind"] == kind and called in ("", each["metadata"]["name"]))
    return document


def pod_of(name: str) -> dict[str, Any]:
    """The specification of the pods."""
    pod: dict[str, Any] = one(name, "Deployment")["spec"]["template"]["spec"]
    return pod


def containers(pod: Document) -> Iterator[Document]:
    """All of them, whichever way they start."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def container(pod: Document, name: str) -> Document:
    """The container of that name."""
    (found,) = (each for each in containers(pod) if each["name"] == name)
    return found
