"""A world of the simulation that has settled, and what tests of rotations ask of it."""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from entrypoint.model import CURRENT
from entrypoint.publish import marked
from entrypoint.tree import Tree
from sidecar.generation import read_generation
from sidecar.login import Outcome
from support.simulation import World

CHECK, OLD, NEW = "check old 1%", "n8n old 1%", "n8n new 2%"
BEFORE = {"sr_check": CHECK, "n8n": OLD}
AFTER = {"sr_check": CHECK, "n8n": NEW}
DAY = 86400.0
THREE = {**BEFORE, "grafana": "grafana old 1%"}


def settled(world: World) -> World:
    world.boot()
    world.step()
    assert world.faults(world.database.passwords) == []
    world.database.asked.clear()
    world.pgpool.logins.clear()
    return world


def rotate(world: World, role: str = "n8n", password: str = NEW) -> None:
    """Both in PostgreSQL and in the Secret."""
    world.change(role, password)
    world.secret(role, password)


def asked(world: World) -> Counter[tuple[str, Outcome]]:
    """Direct logins so far."""
    return Counter((role, outcome) for _, role, outcome in world.database.asked)


def in_sync(world: World, passwords: Mapping[str, str]) -> Callable[[], bool]:
    return lambda: world.faults(passwords) == []


def live(world: World) -> str | None:
    return marked(world.run_dir, CURRENT)


def value(world: World, name: str, **labels: str) -> float | None:
    return world.metrics.registry.get_sample_value(f"pgpool_reloader_{name}", labels)


def encrypted(root: Path, restart_spread: float = 60) -> World:
    world = World(root, BEFORE, restart_spread=restart_spread)
    world.env["PGPOOLKEYFILE"] = str(world.file("key", "key 1 100%\n"))
    return settled(world)


def read_tree(world: World) -> Tree:
    generation = read_generation(world.run_dir, CURRENT)
    assert generation is not None
    return generation.tree


def rejecting(world: World) -> None:
    """A new password that pgpool will not take; PostgreSQL, for once, accepts both, as with two servers."""
    world.secret("n8n", NEW)
    world.pgpool.refuses.add(NEW)
    world.database.also["n8n"] = {NEW}
