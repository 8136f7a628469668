"""As much of Vault's client as the documents use: one value, from standard input, into a KV store of one file."""

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.kubectl import put_program

Store = dict[str, dict[str, str]]
"""Properties by mount and path, such as `secret/db/pgpool`."""


def install(directory: Path, content: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Make a `vault` in a directory, whose store has this content, and return the variable that it needs."""
    (directory / "vault.json").write_text(json.dumps(content))
    put_program(directory, "vault", [sys.executable, __file__])
    return {"VAULT_STORE": str(directory / "vault.json")}


def stored(directory: Path) -> Store:
    """What is in the store of the `vault` in this directory."""
    content: Store = json.loads((directory / "vault.json").read_text())
    return content


def main() -> None:
    parser = argparse.ArgumentParser(prog="vault", allow_abbrev=False)
    parser.add_argument("engine", choices=["kv"])
    parser.add_argument("verb", choices=["patch"])
    parser.add_argument("-mount", required=True)
    parser.add_argument("path")
    parser.add_argument("pair")
    given = parser.parse_args()
    file = Path(os.environ["VAULT_STORE"])
    content: Store = json.loads(file.read_text())
    place = f"{given.mount}/{given.path}"
    if place not in content:
        sys.exit(f"No value found at {given.mount}/data/{given.path}")
    name, separator, value = given.pair.partition("=")
    if not separator or value != "-":
        sys.exit(f"{given.pair}: this stand-in takes a value from standard input alone: {name}=-")
    content[place][name] = sys.stdin.read()
    file.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
