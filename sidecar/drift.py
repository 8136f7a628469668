"""What of a tree is not live."""

from dataclasses import dataclass
from pathlib import Path

from entrypoint.model import CURRENT
from entrypoint.tree import Tree


@dataclass(frozen=True, slots=True)
class Drift:
    """The live generation beside the one that the inputs of this moment give."""

    live: str
    desired: str
    changed: tuple[str, ...]
    """Names of the files that differ."""


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
