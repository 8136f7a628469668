"""As much of docker as docs/migration.md uses: a container of another image, and ours, which runs on this machine.

The container stands in the file that DOCKER_SCENE names, as `docker inspect` prints it. Of our image, only the
entrypoint is there; unlike a container, it sees the files of this machine.
"""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.kubectl import put_program

DOCKERFILE = Path(__file__).parents[2] / "Dockerfile"


def install(directory: Path, name: str, environment: Mapping[str, str], entrypoint: Sequence[str]) -> dict[str, str]:
    """Make a `docker` in a directory, and return the variables that it needs.

    Args:
        directory: where to put it.
        name: the container's.
        environment: the container's.
        entrypoint: what stands for `pgpool-entrypoint` of the image.
    """
    variables = [f"{variable}={value}" for variable, value in environment.items()]
    config = {"Hostname": "9f86d081884c", "Env": variables, "Cmd": ["/run.sh"], "Image": "another/image"}
    scene = {"container": {"Name": f"/{name}", "Config": config}, "entrypoint": list(entrypoint)}
    (directory / "docker.json").write_text(json.dumps(scene))
    put_program(directory, "docker", [sys.executable, __file__])
    return {"DOCKER_SCENE": str(directory / "docker.json"), "PATH": f"{directory}:/usr/bin:/bin"}


def main() -> None:
    scene = json.loads(Path(os.environ["DOCKER_SCENE"]).read_text())
    parser = argparse.ArgumentParser(allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("inspect").add_argument("name")
    run = verbs.add_parser("run", allow_abbrev=False)
    for switch in ("--rm", "--interactive"):
        run.add_argument(switch, action="store_true", required=True)  # without, migrate would get no input
    run.add_argument("image", choices=["pgpool-entrypoint"])
    run.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    if given.verb == "inspect":
        assert f"/{given.name}" == scene["container"]["Name"]
        print(json.dumps([scene["container"]], indent=4))
        return
    (entrypoint,) = re.findall(r"^ENTRYPOINT (.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    assert json.loads(entrypoint) == ["tini", "--", "pgpool-entrypoint"]
    command = [*scene["entrypoint"], *given.arguments]
    os.execvpe(command[0], command, {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(DOCKERFILE.parent)})


if __name__ == "__main__":
    main()
