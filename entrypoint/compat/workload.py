"""The variables and mounted Secrets of a container, as far as a manifest of Kubernetes tells them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from entrypoint.errors import Problem

UNKNOWN = "value-of-"
"""Begins what stands for a value that is in a Secret, and not here."""

RUNNING = "pipe the environment of the running container in: kubectl exec POD -- env | pgpool-entrypoint migrate"

_MAY_BE_UNKNOWN = re.compile(
    r".+_(USERNAME|PASSWORD)|PGPOOL_(PARAMS_)?(SR|HEALTH)_CHECK_USER|PGPOOL_PCP_USER"
    r"|PGPOOL_AES_KEY|PGPOOL_PARAMS_WD_AUTHKEY"
)
"""What goes from one Secret into another, or names a role; all else must be known to be translated."""

COUNTS = re.compile(r"PGPOOL.*|.+_(USERNAME|PASSWORD)(_FILE)?")
_REFERENCE = re.compile(r"\$\$|\$\(([^)]*)\)")


@dataclass(slots=True)
class Variables:
    """What is known of a container's environment."""

    environment: dict[str, str] = field(default_factory=dict)
    references: dict[str, str] = field(default_factory=dict)
    """By variable: the key of which Secret its value is, in words."""
    problems: list[Problem] = field(default_factory=list)


def read_variables(container: Mapping[str, Any], namespace: str) -> Variables:
    """The environment of a container; `namespace`: that of its pod, empty when it is not known."""
    found = Variables()
    first: dict[str, str] = {}  # one key of a Secret is one value, whatever variables have it
    for each in container.get("env") or ():
        name, origin = str(each["name"]), each.get("valueFrom") or {}
        found.environment.pop(name, None)  # of two with one name, the last counts
        found.references.pop(name, None)
        words = _secret_key(each, found.references)
        value: str | None = None
        if words:
            found.references[name] = words
            value = f"{UNKNOWN}{first.setdefault(words, name)}" if _MAY_BE_UNKNOWN.fullmatch(name) else None
        elif (origin.get("fieldRef") or {}).get("fieldPath") == "metadata.namespace":
            value = namespace or None
        elif not origin:
            known = {known: text for known, text in found.environment.items() if known not in found.references}
            value = _expanded(_text(each.get("value")), known)
        if value is not None:
            found.environment[name] = value
        elif COUNTS.fullmatch(name):
            found.problems.append(Problem(name, "manifest", "has a value that is not here", RUNNING))
    if container.get("envFrom"):
        found.problems.append(Problem("envFrom", "manifest", "has variables that are not here", RUNNING))
    return found


def _text(value: object) -> str:
    """A value, quoted or not: YAML makes of a bare `no` a boolean."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _secret_key(variable: Mapping[str, Any], references: Mapping[str, str]) -> str:
    """Which key of which Secret a variable is, itself or because it is but `$(NAME)` of one; empty: none."""
    origin = variable.get("valueFrom") or {}
    if "secretKeyRef" in origin:
        reference = origin["secretKeyRef"]
        return f"key {reference['key']} of the Secret {reference['name']}"
    whole = _REFERENCE.fullmatch(str(variable.get("value") or ""))
    return references.get(whole[1] or "", "") if whole else ""


def _expanded(value: str, known: Mapping[str, str]) -> str | None:
    """A value with each `$(NAME)` filled in, as Kubernetes does; None when one is not known."""
    names = {match[1] for match in _REFERENCE.finditer(value) if match[1] is not None}
    if not names <= known.keys():
        return None
    return _REFERENCE.sub(lambda match: "$" if match[1] is None else known[match[1]], value)


def secret_files(container: Mapping[str, Any], volumes: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """The paths of mounted Secrets, and which key of which each is; a path that ends in `/` has a file for each key."""
    files = {str(volume["name"]): dict(_files(volume)) for volume in volumes}
    for mount in container.get("volumeMounts") or ():
        directory, sub = str(mount["mountPath"]).rstrip("/"), mount.get("subPath")
        for path, words in files.get(str(mount.get("name")), {}).items():
            if sub is None:
                yield f"{directory}/{path}", words
            elif path in ("", sub):
                yield directory, words if path else f"key {sub} of {words}"


def _files(volume: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """By path in a volume, which key of which Secret; the empty path stands for all keys under their names."""
    sources = (volume.get("projected") or {}).get("sources") or [volume]
    for secret in (each["secret"] for each in sources if "secret" in each):
        name, items = secret.get("secretName") or secret.get("name"), secret.get("items")
        for item in items or ():
            yield str(item["path"]), f"key {item['key']} of the Secret {name}"
        if not items:
            yield "", f"the Secret {name}"
