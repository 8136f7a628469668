"""Pins what the image installs from the package index: every version, with the checksums of its files.

lock_requirements.py            write the files anew, with the newest versions that pyproject.toml allows
lock_requirements.py --check    only see whether they fit pyproject.toml; needs no network
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PYTHON = "3.13"  # the base image's
HEADER = "# Made by `make requirements` from pyproject.toml: {what}.\n"


class Pins(NamedTuple):
    """One file of pins, and what in pyproject.toml it has to satisfy."""

    path: Path
    what: str
    required: Sequence[str]


def main() -> None:
    """Write or check both files; exits with 1 and says what does not fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text())
    files = [
        Pins(HERE / "requirements.txt", "what our two programs need", project["project"]["dependencies"]),
        Pins(HERE / "build-requirements.txt", "what builds their wheel", project["build-system"]["requires"]),
    ]
    if check:
        sys.exit("\n".join(problem for pins in files for problem in misfits(pins)) or None)
    for pins in files:
        lock(pins)


def lock(pins: Pins) -> None:
    """Write a file of pins with uv, the checksums for every architecture included."""
    command = [
        "uv",
        "pip",
        "compile",
        "-",
        "--quiet",
        "--no-header",
        "--no-emit-index-url",
        "--no-annotate",
        "--upgrade",
    ]
    command += ["--generate-hashes", "--only-binary", ":all:", "--python-version", PYTHON, "--python-platform", "linux"]
    answer = subprocess.run(command, input="\n".join(pins.required), capture_output=True, text=True, check=False)
    if answer.returncode:
        sys.exit(answer.stderr)
    pins.path.write_text(HEADER.format(what=pins.what) + answer.stdout)


def misfits(pins: Pins) -> Iterator[str]:
    """What in a file of pins does not satisfy its requirements."""
    text = re.sub(r"\\\n", " ", pins.path.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    versions = {}
    for line in lines:
        pin, *hashes = line.split()
        name, _, version = pin.partition("==")
        versions[canonicalize_name(name)] = version
        if not version:
            yield f"{pins.path}: {pin} has no exact version."
        if not hashes or not all(each.startswith("--hash=sha256:") for each in hashes):
            yield f"{pins.path}: {pin} has no checksum."
    for requirement in map(Requirement, pins.required):
        pinned = versions.get(canonicalize_name(requirement.name))
        if not pinned or not requirement.specifier.contains(pinned):
            yield f"{pins.path}: pyproject.toml requires {requirement}, pinned is {pinned}."


if __name__ == "__main__":
    main()
