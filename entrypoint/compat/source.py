"""What `migrate` is given: a list of variables, a container as docker describes it, a workload as Kubernetes does."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from entrypoint.compat import workload
from entrypoint.compat.translate import image_of
from entrypoint.errors import ConfigurationError, Problem
from entrypoint.settings import COMPAT

_NAME = re.compile(r"[A-Za-z_][\w.%-]*")
"""Of a variable, whoever's it is: also a function that bash exports, or a key of a ConfigMap."""

_MANIFEST = re.compile(r"([ \t\r]*(#.*)?\n)*(---\s*\n|\w+:)")
"""How a manifest of Kubernetes begins, and no list of variables does."""

_IMAGE = re.compile(r"(?:^|/)(pgpool|bitnami\w*)/pgpool(?=$|[:@])")

_DROPPED = ("command", "args", "lifecycle", "startupProbe")


@dataclass(frozen=True, slots=True)
class Source:
    """An environment; where it refers to a Secret, the value says so."""

    environment: Mapping[str, str]
    references: Mapping[str, str]
    """By variable, or path of a file: the key of which Secret it has, in words. A path that ends in `/` is a directory
    with a file for each key."""
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
    except (AttributeError, KeyError, TypeError, RecursionError):
        what = "describes a container in another form than Kubernetes or docker does"
        raise _refused("input", what, "give what one of them prints") from None
    speaking = [source for source in sources if image_of(source.environment, here=source.here) is not None]
    if len(speaking) > 1:
        raise _refused("input", f"has {len(speaking)} containers of pgpool", "give one of them")
    if not sources and isinstance(document, list) and any(isinstance(d, dict) and "services" in d for d in document):
        raise _refused("input", "is a compose file, whose values compose fills in", "give what docker inspect prints")
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
        except RecursionError:
            raise _refused("input", "is JSON of too many levels", remedy) from None
    if not _MANIFEST.match(content):
        return None
    try:
        return list(yaml.safe_load_all(content))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Its words may quote the text, and there may be a secret.
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        raise _refused("input", f"is no YAML{f' (line {mark.line + 1})' if mark else ''}", remedy) from None


def _listed(content: str) -> Iterator[tuple[str, str]]:
    last = COMPAT.name  # a list does not begin with the rest of a value
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            name, equals, value = line.removeprefix("export ").partition("=")
            if equals and _NAME.fullmatch(name.strip()):
                last = name.strip()
                yield last, value
            elif workload.COUNTS.fullmatch(last) or "PGPOOL" in line:
                # After another variable, it may be the rest of a value with line ends, as `env` prints it.
                what = "is no NAME=value, or the rest of a value with line ends"
                raise _refused(f"line {number}", what, "give a list as `env` prints it, without -e, or JSON")


def _described(document: Any, namespace: str = "") -> Iterator[Source]:  # noqa: ANN401  # JSON
    """Every container in what docker or kubectl printed."""
    if isinstance(document, list) and document and all(isinstance(each, str) for each in document):
        yield _inspected({"Env": document}, ())
    elif isinstance(document, list):
        for each in document:
            yield from _described(each, namespace)
    elif isinstance(document, dict):
        namespace = str((document.get("metadata") or {}).get("namespace") or namespace)
        if "Env" in document:
            yield _inspected(document, ())
        elif isinstance(config := document.get("Config"), dict) and "Env" in config:
            yield _inspected(config, document.get("Mounts") or ())
        elif isinstance(containers := document.get("containers"), list):
            volumes = document.get("volumes") or ()
            yield from (_container(each, volumes, namespace) for each in containers)
        else:
            for key in ("items", "spec", "template", "jobTemplate"):
                yield from _described(document.get(key), namespace)


def _inspected(config: Mapping[str, Any], mounts: Iterable[Mapping[str, Any]]) -> Source:
    environment = dict(str(each).partition("=")[::2] for each in config["Env"] or ())
    return Source(
        _speaking(environment, config.get("Image")),
        {},
        here=False,
        mounts=tuple(str(each["Destination"]) for each in mounts),
    )


def _speaking(environment: dict[str, str], image: object) -> dict[str, str]:
    """With whose words they are, where the name of the image alone tells it."""
    name = _IMAGE.search(str(image or ""))
    if name is None or image_of(environment, here=False) is not None:
        return environment
    return {COMPAT.name: "official" if name[1] == "pgpool" else "bitnami", **environment}


def _container(container: Mapping[str, Any], volumes: Iterable[Mapping[str, Any]], namespace: str) -> Source:
    variables = workload.read_variables(container, namespace)
    return Source(
        _speaking(variables.environment, container.get("image")),
        variables.references | dict(workload.secret_files(container, volumes)),
        here=False,
        mounts=tuple(str(each["mountPath"]) for each in container.get("volumeMounts") or ()),
        container=str(container.get("name") or "pgpool"),
        dropped=tuple(field for field in _DROPPED if container.get(field)),
        problems=tuple(variables.problems),
    )


def _refused(setting: str, what: str, remedy: str) -> ConfigurationError:
    return ConfigurationError([Problem(setting, "migrate", what, remedy)])
