"""Whether a kubectl command of the documents fits the manifests: what it names is there, under that name.

It knows what the documents use, and raises on anything else.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import kubernetes_validate  # type: ignore[import-untyped]

from deploy.conftest import DEPLOY, containers, one, pod_of, variant
from support.kustomize import build

NAMESPACE = one("base", "Deployment")["metadata"]["namespace"]
LABELS = one("base", "Deployment")["spec"]["template"]["metadata"]["labels"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def check(words: Sequence[str], run_inside: Callable[[Sequence[str]], None]) -> str:
    """Check the arguments of kubectl, and return its verb; `run_inside` checks what it executes in a container.

    Raises AssertionError or ValueError.
    """
    ours, _, inner = _split(words)
    given = _parser().parse_args(ours)
    _CHECKS[given.verb](given)
    if given.verb == "exec":
        run_inside(inner)
    of_the_namespace = given.verb not in ("apply", "label")
    assert given.namespace == (NAMESPACE if of_the_namespace else None), f"{words} is for the namespace {NAMESPACE}"
    return str(given.verb)


def _split(words: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    at = list(words).index("--") if "--" in words else len(words)
    return list(words[:at]), at < len(words), list(words[at + 1 :])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(allow_abbrev=False)
    parser.add_argument("-n", dest="namespace")
    verbs = parser.add_subparsers(dest="verb", required=True, parser_class=_Parser)

    def verb(name: str, *positional: str, **options: tuple[str, ...]) -> None:
        its = verbs.add_parser(name, allow_abbrev=False)
        for argument in positional:
            its.add_argument(argument)
        for dest, names in options.items():
            action = "append" if dest == "from_file" else "store_true" if dest in ("overwrite", "previous") else "store"
            its.add_argument(*names, dest=dest, action=action)

    pods = {"selector": ("--selector",)}
    verb("get", "kind", output=("--output",), **pods)
    verb("exec", "target", container=("-c",))
    verb("logs", "target", container=("-c",), previous=("--previous",))
    verb("port-forward", "target", "port")
    verb("create", "kind", "of", "name", from_file=("--from-file",), dry_run=("--dry-run",), output=("--output",))
    verb("apply", filename=("--filename",), directory=("-k",))
    verb("label", "kind", "name", "label")
    verb("describe", "kind", "name")
    verb("rollout", "what", "kind", "name")
    verb("scale", "kind", "name", replicas=("--replicas",))
    verb("patch", "kind", "name", type=("--type",), patch=("--patch",))
    annotate = verbs.add_parser("annotate", allow_abbrev=False)
    annotate.add_argument("kind")
    annotate.add_argument("names", nargs="+")
    annotate.add_argument("--selector")
    annotate.add_argument("--overwrite", action="store_true")
    return parser


def _there(kind: str, name: str) -> dict[str, Any]:
    (found,) = (
        each for each in variant("everything") if each["kind"].lower() == kind and each["metadata"]["name"] == name
    )
    return found


def _pods(selector: str | None) -> None:
    if selector is not None:
        name, _, value = selector.partition("=")
        assert LABELS[name] == value


def _target(target: str) -> None:
    kind, _, name = target.partition("/")
    assert target == "$pod" or (kind == "deploy" and _there("deployment", name))


def _container(given: argparse.Namespace) -> None:
    _target(given.target)
    assert given.container is None or given.container in {each["name"] for each in containers(pod_of("everything"))}


def _forwarded(given: argparse.Namespace) -> None:
    _target(given.target)
    ports = [port["containerPort"] for each in containers(pod_of("everything")) for port in each.get("ports", ())]
    assert int(given.port) in ports


def _get(given: argparse.Namespace) -> None:
    assert given.kind == "pods"
    _pods(given.selector)


def _create(given: argparse.Namespace) -> None:
    """Every key is one that the pods mount, and none is missing."""
    assert (given.kind, given.of) == ("secret", "generic")
    keys = {each.partition("=")[0] for each in given.from_file}
    assert keys == mounted_keys()[given.name]


def mounted_keys() -> dict[str, set[str]]:
    """The keys of Secrets that the pods have as files, by the Secret's name."""
    mounted: dict[str, set[str]] = {}
    for volume in pod_of("base")["volumes"]:
        sources = volume.get("projected", {}).get("sources", [])
        for secret in (volume.get("secret"), *(each.get("secret") for each in sources)):
            if secret:
                keys = {item["key"] for item in secret["items"]}
                mounted.setdefault(secret.get("name", secret.get("secretName")), set()).update(keys)
    return mounted


def _apply(given: argparse.Namespace) -> None:
    assert given.filename == "-" or build(DEPLOY.parent / given.directory)


def _label(given: argparse.Namespace) -> None:
    assert given.kind == "namespace"
    name, _, value = given.label.partition("=")
    peers = [peer for rule in one("base", "NetworkPolicy")["spec"]["ingress"] for peer in rule["from"]]
    assert {name: value} in [peer["namespaceSelector"]["matchLabels"] for peer in peers]


def _annotate(given: argparse.Namespace) -> None:
    assert given.overwrite, "the second time, it would be refused"
    *names, annotation = given.names
    assert "=" in annotation
    if given.kind == "pods":
        assert not names
        assert given.selector
        _pods(given.selector)
    else:
        for name in names:
            _there(given.kind, name)


def _described(given: argparse.Namespace) -> None:
    _there(given.kind, given.name)


def _rollout(given: argparse.Namespace) -> None:
    assert given.what in ("status", "restart")
    _there(given.kind, given.name)


def _scale(given: argparse.Namespace) -> None:
    assert int(given.replicas) in (0, _there(given.kind, given.name)["spec"]["replicas"])


def _patch(given: argparse.Namespace) -> None:
    """The port for clients stays, and the result is one that Kubernetes takes. Its labels are no pod's of ours."""
    service = _there(given.kind, given.name)
    patch = json.loads(given.patch)
    assert given.type == "merge"
    assert patch.keys() == {"spec"}
    changed = service["spec"] | patch["spec"]
    kubernetes_validate.validate({**service, "spec": changed}, "1.29", strict=True)
    assert {port["port"] for port in changed["ports"]} == {port["port"] for port in service["spec"]["ports"]}
    assert changed["selector"].keys() == service["spec"]["selector"].keys(), "a merge keeps the other labels"
    assert not changed["selector"].items() <= LABELS.items()


_CHECKS: dict[str, Callable[[argparse.Namespace], None]] = {
    "get": _get,
    "exec": _container,
    "logs": _container,
    "port-forward": _forwarded,
    "create": _create,
    "apply": _apply,
    "label": _label,
    "annotate": _annotate,
    "describe": _described,
    "rollout": _rollout,
    "scale": _scale,
    "patch": _patch,
}
