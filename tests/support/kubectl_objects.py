"""The objects that the stand-in for kubectl keeps, in a JSON file, and what its verbs make of them.

A Deployment has its pods at once and all of them are ready: nothing is scheduled, and nothing runs. Fields merge as
Kubernetes merges them where the documents need it; lists are replaced.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

Document = dict[str, Any]

_SHORT = {"deploy": "deployment"}
RESTARTED = "kubectl.kubernetes.io/restartedAt"


class ClusterError(Exception):
    """Says what Kubernetes would refuse."""


class Objects:
    """What a cluster has; each change is written at once."""

    def __init__(self, path: Path, namespace: str | None = None) -> None:
        """Open a cluster for commands of a namespace; None is where an object without one is."""
        self._path, self._namespace = path, namespace
        self._all: list[Document] = json.loads(path.read_text())

    @classmethod
    def create(cls, path: Path, documents: Iterable[Document], namespace: str | None = None) -> Self:
        """A cluster with these objects."""
        path.write_text(json.dumps([]))
        objects = cls(path, namespace)
        objects.apply(documents)
        return objects

    def find(self, kind: str, name: str) -> Document:
        """The object, in this namespace or in none at all. Raises ClusterError."""
        found = self._live(_SHORT.get(kind, kind.removesuffix("s")), name, self._namespace)
        if found is None:
            raise ClusterError(f"{kind} {name} is not found in namespace {self._namespace}")
        return found

    def pods(self, labels: Mapping[str, str]) -> list[Document]:
        """The pods of this namespace that have these labels."""
        here = (each for each in self._all if each["metadata"].get("namespace") == self._namespace)
        return [each for each in here if each["kind"] == "Pod" and labels.items() <= each["metadata"]["labels"].items()]

    def apply(self, documents: Iterable[Document]) -> None:
        """Make what is not there; what is gets these fields, and keeps others that somebody has added."""
        for document in documents:
            if (live := self._same(document)) is None:
                self._all.append(document)
            else:
                live |= merged(live, document)
        self._write()

    def add(self, document: Document) -> None:
        """Make an object that must not be there yet."""
        if self._same(document) is not None:
            raise ClusterError(f"{document['kind']} {document['metadata']['name']} is there already")
        self.apply([document])

    def patch(self, kind: str, name: str, patch: object) -> None:
        """A merge patch (RFC 7386)."""
        live = self.find(kind, name)
        new = merged(live, patch)
        live.clear()
        live.update(new)
        self._write()

    def note(self, where: str, target: Document, assignment: str, *, overwrite: bool) -> None:
        """Set a label or an annotation; another value of it is kept unless it may be overwritten."""
        key, equals, value = assignment.partition("=")
        notes = target["metadata"].setdefault(where, {})
        if not equals or (not overwrite and notes.get(key, value) != value):
            raise ClusterError(f"{assignment}: has a value already, and --overwrite is not given")
        notes[key] = value
        self._write()

    def restart(self, name: str) -> None:
        """What `kubectl rollout restart` does: an annotation of the template, and so new pods."""
        annotations = {RESTARTED: datetime.now(UTC).isoformat()}
        self.patch("deployment", name, {"spec": {"template": {"metadata": {"annotations": annotations}}}})

    def _same(self, document: Document) -> Document | None:
        metadata = document["metadata"]
        return self._live(document["kind"].lower(), metadata["name"], metadata.get("namespace"))

    def _live(self, kind: str, name: str, namespace: str | None) -> Document | None:
        for each in self._all:
            if (each["kind"].lower(), each["metadata"]["name"]) == (kind, name) and (
                kind == "namespace" or each["metadata"].get("namespace") == namespace
            ):
                return each
        return None

    def _write(self) -> None:
        for deployment in [each for each in self._all if each["kind"] == "Deployment"]:
            self._follow(deployment)
        self._path.write_text(json.dumps(self._all))

    def _follow(self, deployment: Document) -> None:
        """Have as many pods as it says, of its template."""
        name, template = deployment["metadata"]["name"], deployment["spec"]["template"]
        digest = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:8]
        wanted = [f"{name}-{digest}-{number}" for number in range(deployment["spec"].get("replicas", 1))]
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}
        others = [each for each in self._all if owner not in each["metadata"].get("ownerReferences", ())]
        kept = {each["metadata"]["name"]: each for each in self._all if each not in others}
        place = {"namespace": deployment["metadata"].get("namespace"), "ownerReferences": [owner]}
        self._all[:] = [*others, *(kept.get(each) or _pod({"name": each, **place}, template) for each in wanted)]


def _pod(metadata: Document, template: Document) -> Document:
    own = json.loads(json.dumps(template))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {**own["metadata"], **metadata}, "spec": own["spec"]}


def merged(old: Any, patch: Any) -> Any:  # noqa: ANN401  # JSON
    """A merge patch, applied: null removes, a list or a word replaces."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


def described(value: object, indent: int = 0) -> Iterator[str]:
    """An object as `kubectl describe` tells of one whose kind it does not know: names in words, values beside them."""
    margin = "  " * indent
    for each in value if isinstance(value, list) else [value]:
        if not isinstance(each, dict):
            yield f"{margin}{each}"
            continue
        for key, inner in each.items():
            words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key)
            label = f"{margin}{words[:1].upper()}{words[1:]}:"
            if isinstance(inner, dict | list):
                yield label
                yield from described(inner, indent + 1)
            else:
                yield f"{label}  {inner}"
