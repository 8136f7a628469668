"""As much of kubectl as the documents use, for a cluster of one file and the processes of this machine.

What is executed "in" a container is a process with its environment; Secrets that are mounted are volumes here; all
other objects stand in a file (kubectl_objects). Anything else is an error. The scene is a JSON file that KUBECTL_SCENE
names; `install` writes it, and a `kubectl` to be put on PATH.
"""

import argparse
import base64
import json
import os
import shlex
import socket
import socketserver
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.kubectl_objects import ClusterError, Document, Objects, described
from support.kustomize import build
from support.secret_volume import SecretVolume


def install(
    directory: Path,
    *,
    objects: Iterable[Document],
    environments: Mapping[str, Mapping[str, str]] | None = None,
    logs: Mapping[str, Path] | None = None,
    secrets: Mapping[str, tuple[Path, Mapping[str, str]]] | None = None,
    ports: Mapping[int, int] | None = None,
) -> dict[str, str]:
    """Make a `kubectl` in a directory, and return the variables that it needs.

    Args:
        directory: where to put it.
        objects: what the cluster has.
        environments: of each container.
        logs: of each container.
        secrets: for each Secret that is mounted its volume, and the path in it of each key.
        ports: where this machine has each port of a pod.
    """
    scene = {
        "environments": {name: dict(environment) for name, environment in (environments or {}).items()},
        "logs": {name: str(path) for name, path in (logs or {}).items()},
        "ports": dict(ports or {}),
        "secrets": {name: (str(volume), dict(items)) for name, (volume, items) in (secrets or {}).items()},
    }
    Objects.create(directory / "objects.json", objects)
    (directory / "scene.json").write_text(json.dumps(scene))
    put_program(directory, "kubectl", [sys.executable, __file__])
    return {"KUBECTL_SCENE": str(directory / "scene.json"), "PATH": f"{directory}:/usr/bin:/bin"}


def put_program(directory: Path, name: str, command: Sequence[str]) -> None:
    """A program of this name that is another command."""
    program = directory / name
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    program.chmod(0o755)


def main() -> None:
    path = Path(os.environ["KUBECTL_SCENE"])
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    given = _parser().parse_args(words[:at])
    try:
        _run(given, words[at + 1 :], json.loads(path.read_text()), Objects(path.with_name("objects.json"), given.n))
    except ClusterError as error:
        sys.exit(f"error: {error}")


def _run(given: argparse.Namespace, inner: list[str], scene: Mapping[str, Any], objects: Objects) -> None:
    match given.verb:
        case "get":
            _get(given, objects)
        case "logs":
            _exists(given.target, objects)
            print(Path(scene["logs"][given.container]).read_text())
        case "exec":
            _exists(given.target, objects)
            os.execvpe(inner[0], inner, scene["environments"][given.container])
        case "port-forward":
            _exists(given.target, objects)
            _forward(given.port, scene["ports"][str(given.port)])
        case "create":
            assert (given.kind, given.of) == ("secret", "generic")
            secret = _secret(given.name, given.n, given.from_file)
            if given.dry_run:
                assert (given.dry_run, given.output) == ("client", "yaml")
                print(yaml.safe_dump(secret))
            else:
                objects.add(secret)
        case "apply":
            assert (given.filename == "-") != bool(given.k)
            documents = build(Path(given.k)) if given.k else list(yaml.safe_load_all(sys.stdin))
            objects.apply(documents)
            for secret in (each for each in documents if each["metadata"]["name"] in scene["secrets"]):
                if secret["kind"] == "Secret":
                    _mount(secret, scene["secrets"])
        case _:
            _change(given, objects)


def _change(given: argparse.Namespace, objects: Objects) -> None:
    match given.verb:
        case "patch":
            assert given.type == "merge"
            objects.patch(given.kind, given.name, json.loads(given.patch))
        case "scale":
            objects.patch(given.kind, given.name, {"spec": {"replicas": given.replicas}})
        case "rollout":
            assert given.kind == "deployment"
            if given.what == "status":  # all are ready here
                objects.find(given.kind, given.name)
                print(f'deployment "{given.name}" successfully rolled out')
            else:
                assert given.what == "restart"
                objects.restart(given.name)
        case "label" | "annotate":
            *names, note = given.names
            targets = [objects.find(given.kind, name) for name in names] or objects.pods(_labels(given.selector))
            assert targets
            for each in targets:
                where = "labels" if given.verb == "label" else "annotations"
                objects.note(where, each, note, overwrite=given.overwrite)
        case "describe":
            print("\n".join(described(objects.find(given.kind, given.name))))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("-n")
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, *positional: str, options: Iterable[str] = (), switches: Iterable[str] = ()) -> Any:  # noqa: ANN401  # argparse's
        its = verbs.add_parser(name, allow_abbrev=False)
        for argument in (*positional, *options):
            its.add_argument(argument)
        for switch in switches:
            its.add_argument(switch, action="store_true")
        return its

    verb("get", "kind", options=("--selector", "--output")).add_argument("name", nargs="?")
    for each in (verb("logs", "target", switches=["--previous"]), verb("exec", "target")):
        each.add_argument("-c", dest="container", default="pgpool")
    create = verb("create", "kind", "of", "name", options=("--dry-run", "--output"))
    create.add_argument("--from-file", action="append")
    verb("apply", options=("--filename", "-k"))
    verb("patch", "kind", "name", options=("--type", "--patch"))
    verb("scale", "kind", "name").add_argument("--replicas", type=int, required=True)
    verb("rollout", "what", "kind", "name")
    verb("describe", "kind", "name")
    verb("port-forward", "target").add_argument("port", type=int)
    for name in ("label", "annotate"):
        verb(name, "kind", options=["--selector"], switches=["--overwrite"]).add_argument("names", nargs="+")
    return parser


def _get(given: argparse.Namespace, objects: Objects) -> None:
    if given.name:
        assert given.output == "yaml"
        print(yaml.safe_dump(objects.find(given.kind, given.name)))
        return
    assert (given.kind, given.output or "name") == ("pods", "name")
    for pod in objects.pods(_labels(given.selector)):
        print(f"pod/{pod['metadata']['name']}")


def _labels(selector: str | None) -> dict[str, str]:
    return dict([selector.split("=", 1)]) if selector else {}


def _exists(target: str, objects: Objects) -> None:
    kind, _, name = target.partition("/")
    objects.find(kind, name)


def _forward(port: int, there: int) -> NoReturn:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            """Hand over one request, and its answer."""
            with socket.create_connection(("127.0.0.1", there)) as pod:
                pod.sendall(self.request.recv(65_536))
                while answer := pod.recv(65_536):
                    self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", port), Handler) as server:
        print(f"Forwarding from 127.0.0.1:{port} -> {port}", flush=True)
        server.serve_forever()
    raise AssertionError


def _secret(name: str, namespace: str | None, files: list[str]) -> dict[str, Any]:
    pairs = (file.split("=", 1) if "=" in file else (Path(file).name, file) for file in files)
    data = {key: base64.b64encode(Path(path).read_bytes()).decode() for key, path in pairs}
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


def _mount(secret: Mapping[str, Any], volumes: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
    directory, items = volumes[secret["metadata"]["name"]]
    payload = {items[key]: base64.b64decode(value) for key, value in secret["data"].items()}
    SecretVolume(Path(directory)).write(payload)


if __name__ == "__main__":
    main()
