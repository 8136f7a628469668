"""What `migrate` is given: a list of variables, a container as docker describes it, a workload as Kubernetes does."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from entrypoint.compat.translate import image_of
from entrypoint.errors import ConfigurationError, Problem

_MANIFEST = re.compile(r"([ \t\r]*(#.*)?\n)*(---\s*\n|\w+:)")
"""How a manifest of Kubernetes begins, and no list of variables does."""

UNKNOWN = "value-of-"
"""Begins what stands for a value that is in a Secret, and not here."""

_MAY_BE_UNKNOWN = re.compile(
    r".+_(USERNAME|PASSWORD)|PGPOOL_(PARAMS_)?(SR|HEALTH)_CHECK_USER|PGPOOL_PCP_USER"
    r"|PGPOOL_AES_KEY|PGPOOL_PARAMS_WD_AUTHKEY"
)
"""What goes from one Secret into another, or names a role; all else must be known to be translated."""

_COUNTS = re.compile(r"PGPOOL.*|.+_(USERNAME|PASSWORD)(_FILE)?")

_DROPPED = ("command", "args", "lifecycle", "startupProbe")

RUNNING = "pipe the environment of the running container in: kubectl exec POD -- env | pgpool-entrypoint migrate"


@dataclass(frozen=True, slots=True)
class Source:
    """An environment; where it refers to a Secret, the value says so."""

    environment: Mapping[str, str]
    references: Mapping[str, str]
    """By variable: the key of which Secret its value is, in words."""
    here: bool = True
    """Whether what may be mounted beside it is looked for on this machine."""
    mounts: tuple[str, ...] = ()
    container: str = "pgpool"
    """Its name in the pod."""
    dropped: tuple[str, ...] = ()
    """The fields of the container that the native configuration does without."""
    problems: tuple[Problem, ...] = ()
    """What is set, but not here."""


def read_source(content: str) -> Source:
    """The environment that a text describes. Raises ConfigurationError."""
    document = _document(content)
    if document is None:
        return Source(dict(_listed(content)), {})
    try:
        sources = list(_described(document))
    except (AttributeError, KeyError, TypeError):
        what = "describes a container in another form than Kubernetes or docker does"
        raise _refused("input", what, "give what one of them prints") from None
    speaking = [source for source in sources if image_of(source.environment, here=source.here) is not None]
    if len(speaking) > 1:
        raise _refused("input", f"has {len(speaking)} containers of pgpool", "give one of them")
    if not sources:
        remedy = "give what `docker inspect CONTAINER` or `kubectl get deployment NAME --output yaml` prints"
        raise _refused("input", "describes no container", remedy)
    return (speaking or [source for source in sources if source.problems] or sources)[0]


def _document(content: str) -> Any:  # noqa: ANN401  # JSON or YAML
    """What a text describes; None when it is a list of variables. Raises ConfigurationError, without the text."""
    remedy = "give what docker inspect or kubectl printed, or the whole manifest"
    if content.lstrip().startswith(("{", "[")):
        try:
            return json.loads(content)
        except ValueError as error:
            raise _refused("input", f"is no JSON: {error}", remedy) from None
    if not _MANIFEST.match(content):
        return None
    try:
        return list(yaml.safe_load_all(content))
    except yaml.YAMLError as error:
        # Its words may quote the text, and there may be a secret.
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        raise _refused("input", f"is no YAML{f' (line {mark.line + 1})' if mark else ''}", remedy) from None


def _listed(content: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.removeprefix("export ").partition("=")
            if equals and name.strip().isidentifier():
                yield name.strip(), value
            elif number == 1:
                # A later one may be the rest of a value with line ends, as `env` prints it.
                raise _refused(f"line {number}", "is no NAME=value", "give a list such as `env` prints, or JSON")


def _described(document: Any) -> Iterator[Source]:  # noqa: ANN401  # JSON
    """Every container in what docker or kubectl printed."""
    if isinstance(document, list):
        for each in document:
            yield from _described(each)
    elif isinstance(document, dict):
        if "Env" in document:
            yield _inspected(document, ())
        elif isinstance(config := document.get("Config"), dict) and "Env" in config:
            yield _inspected(config, document.get("Mounts") or ())
        elif isinstance(containers := document.get("containers"), list):
            yield from map(_container, containers)
        else:
            for key in ("items", "spec", "template", "jobTemplate"):
                yield from _described(document.get(key))


def _inspected(config: Mapping[str, Any], mounts: Iterable[Mapping[str, Any]]) -> Source:
    environment = dict(str(each).partition("=")[::2] for each in config["Env"] or ())
    return Source(environment, {}, here=False, mounts=tuple(str(each["Destination"]) for each in mounts))


def _container(container: Mapping[str, Any]) -> Source:
    environment: dict[str, str] = {}
    references: dict[str, str] = {}
    problems = []
    first: dict[str, str] = {}  # one key of a Secret is one value, whatever variables have it
    for each in container.get("env") or ():
        name, origin = str(each["name"]), each.get("valueFrom") or {}
        if "secretKeyRef" in origin and _MAY_BE_UNKNOWN.fullmatch(name):
            reference = origin["secretKeyRef"]
            references[name] = f"key {reference['key']} of the Secret {reference['name']}"
            environment[name] = f"{UNKNOWN}{first.setdefault(references[name], name)}"
        elif origin and _COUNTS.fullmatch(name):
            problems.append(Problem(name, "valueFrom", "has a value that is not here", RUNNING))
        elif not origin:
            environment[name] = str(each.get("value") or "")
    if container.get("envFrom"):
        problems.append(Problem("envFrom", "manifest", "has variables that are not here", RUNNING))
    return Source(
        environment,
        references,
        here=False,
        mounts=tuple(str(each["mountPath"]) for each in container.get("volumeMounts") or ()),
        container=str(container.get("name") or "pgpool"),
        dropped=tuple(field for field in _DROPPED if container.get(field)),
        problems=tuple(problems),
    )


def _refused(setting: str, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError([Problem(setting, "migrate", what, remedy)])
