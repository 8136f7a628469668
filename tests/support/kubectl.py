"""As much of kubectl as the recipes of docs/operations.md use, for one pod on this machine.

What is executed "in" a container is a process with its environment; Secrets are the pod's volumes. Anything else is an
error. The scene is a JSON file that KUBECTL_SCENE names; `install` writes it, and a `kubectl` to be put on PATH.
"""

import argparse
import base64
import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.secret_volume import SecretVolume

POD = "pod/pgpool-1"


def install(
    directory: Path,
    *,
    environments: Mapping[str, Mapping[str, str]],
    logs: Mapping[str, Path],
    secrets: Mapping[str, tuple[Path, Mapping[str, str]]],
) -> dict[str, str]:
    """Make a `kubectl` in a directory, and return the variables that it needs.

    Args:
        directory: where to put it.
        environments: of each container.
        logs: of each container.
        secrets: for each Secret its volume, and the path in it of each key.
    """
    scene = {
        "environments": {name: dict(environment) for name, environment in environments.items()},
        "logs": {name: str(path) for name, path in logs.items()},
        "secrets": {name: (str(volume), dict(items)) for name, (volume, items) in secrets.items()},
    }
    (directory / "scene.json").write_text(json.dumps(scene))
    program = directory / "kubectl"
    program.write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, __file__])} "$@"\n')
    program.chmod(0o755)
    return {"KUBECTL_SCENE": str(directory / "scene.json"), "PATH": f"{directory}:/usr/bin:/bin"}


def main() -> None:
    scene = json.loads(Path(os.environ["KUBECTL_SCENE"]).read_text())
    words = sys.argv[1:]
    at = words.index("--") if "--" in words else len(words)
    given = _parser().parse_args(words[:at])
    match given.verb:
        case "get":
            assert (given.kind, given.output, given.selector) == ("pods", "name", "app.kubernetes.io/name=pgpool")
            print(POD)
        case "logs":
            print(Path(scene["logs"][given.container]).read_text())
        case "exec":
            inner = words[at + 1 :]
            os.execvpe(inner[0], inner, scene["environments"][given.container])
        case "create":
            assert (given.kind, given.of, given.dry_run, given.output) == ("secret", "generic", "client", "yaml")
            print(yaml.safe_dump(_secret(given.name, given.from_file)))
        case "apply":
            assert given.filename == "-"
            _mount(yaml.safe_load(sys.stdin), scene["secrets"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("-n")
    verbs = parser.add_subparsers(dest="verb", required=True)
    get, logs, execute, create, apply = map(verbs.add_parser, ("get", "logs", "exec", "create", "apply"))
    get.add_argument("kind")
    get.add_argument("--selector")
    get.add_argument("--output")
    for parser_of_container in (logs, execute):
        parser_of_container.add_argument("target", choices=(POD, "deploy/pgpool"))
        parser_of_container.add_argument("-c", dest="container", default="pgpool")
    for argument in ("kind", "of", "name", "--from-file", "--dry-run", "--output"):
        create.add_argument(argument, **({"action": "append"} if argument == "--from-file" else {}))  # type: ignore[arg-type]
    apply.add_argument("--filename")
    return parser


def _secret(name: str, files: list[str]) -> dict[str, Any]:
    pairs = (file.split("=", 1) if "=" in file else (Path(file).name, file) for file in files)
    data = {key: base64.b64encode(Path(path).read_bytes()).decode() for key, path in pairs}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data}


def _mount(secret: Mapping[str, Any], volumes: Mapping[str, tuple[str, Mapping[str, str]]]) -> None:
    directory, items = volumes[secret["metadata"]["name"]]
    payload = {items[key]: base64.b64decode(value) for key, value in secret["data"].items()}
    SecretVolume(Path(directory)).write(payload)


if __name__ == "__main__":
    main()
