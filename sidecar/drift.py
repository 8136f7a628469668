"""One pass: does what is published still say what the inputs say now?"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from entrypoint import inputs
from entrypoint.catalogue import Catalogue
from entrypoint.errors import Problems
from entrypoint.model import CURRENT
from entrypoint.pipeline import resolve
from entrypoint.render import render
from entrypoint.secret import Secret
from entrypoint.settings import Settings
from entrypoint.tree import Tree


@dataclass(frozen=True, slots=True)
class Drift:
    """The live generation beside the one that the inputs of this moment give."""

    live: str
    desired: str
    changed: tuple[str, ...]
    """Names of the files that differ."""


def desired_tree(
    boot: inputs.Inputs, env: Mapping[str, str], run_dir: Path, catalogue: Catalogue, now: datetime
) -> tuple[Settings, Tree]:
    """What a boot at this moment would publish. Raises ConfigurationError, or OSError.

    Args:
        boot: what the entrypoint resolved when it booted.
        env: our own environment, for the secrets that boot withheld.
        run_dir: the shared run directory.
        catalogue: the parameters of the running pgpool.
        now: the time to judge certificates by, with a time zone.
    """
    problems = Problems()
    for name in boot.withheld:
        if name not in env:
            what = "was given to pgpool-entrypoint, but not to this program"
            problems.add(name, "not set", what, f"give it to both containers, or to both as {name}_FILE")
    problems.raise_if_any()
    withheld = {name: env[name] for name in boot.withheld}
    made = run_dir / inputs.PCP_PASSWORD
    password = Secret(made.read_text() if made.exists() else "")
    resolved = resolve({**boot.environment, **withheld}, catalogue, pcp_password=password, now=now)
    return resolved.settings, render(resolved.model)


def compare(tree: Tree, run_dir: Path) -> Drift:
    """What of `tree` is not live. Raises OSError when nothing is."""
    generation = run_dir / CURRENT
    names = sorted({*tree.files, *(path.name for path in generation.iterdir())})
    changed = [name for name in names if _content(generation / name) != tree.files.get(name)]
    return Drift(generation.readlink().name, tree.digest, tuple(changed))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
