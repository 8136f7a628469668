"""Failover is held while health checks begin anew."""

from pathlib import Path

from entrypoint.model import CURRENT
from entrypoint.publish import publish
from sidecar.generation import marker, read_generation
from sidecar.pcp import PcpError
from sidecar.pool import hold_failover, holds_failover, release_failover
from sidecar.status import State
from support.fakes import Killed
from support.settled import encrypted, read_tree
from support.simulation import World


def rotate_check_role(world: World) -> None:
    world.change("sr_check", "check two 100%")
    world.secret("sr_check", "check two 100%")


def held(world: World) -> bool:
    generation = read_generation(world.run_dir, CURRENT)
    assert generation is not None
    return holds_failover(generation.tree)


def test_failover_is_held_while_the_checks_are_renewed_and_at_no_other_time(tmp_path: Path) -> None:
    world = encrypted(tmp_path)
    seen: list[tuple[str, bool]] = []
    for seam in ("pgpool.renew_checks", "pgpool.login", "pgpool.retire"):
        world.seams.on[seam] = lambda seam=seam: seen.append((seam, held(world)))  # type: ignore[misc]
    rotate_check_role(world)
    world.step()
    assert seen[0] == ("pgpool.renew_checks", True)
    assert {held for seam, held in seen[1:]} == {False}
    assert {seam for seam, _ in seen[1:]} == {"pgpool.login", "pgpool.retire"}
    assert not held(world)


def test_a_hold_that_a_killed_sidecar_left_is_ended_whatever_the_secrets_say(tmp_path: Path) -> None:
    world = encrypted(tmp_path)

    def die() -> None:
        raise Killed("here")

    world.seams.on["pgpool.renew_checks"] = die
    rotate_check_role(world)
    world.step()
    assert not held(world), "on its way out it gives up the hold"

    generation = read_generation(world.run_dir, CURRENT)
    assert generation is not None
    publish(hold_failover(generation.tree, 3), world.run_dir)  # as kill -9 leaves it
    world.seams.on.clear()
    world.secret("n8n", "")
    world.new_sidecar()
    assert world.step().state is State.INVALID
    assert not held(world)


def test_a_hold_ends_when_the_checks_cannot_be_renewed(tmp_path: Path) -> None:
    world = encrypted(tmp_path)

    def fail() -> None:
        raise PcpError("pcp_health_check_stats", "no answer", away=True)

    world.seams.on["pgpool.renew_checks"] = fail
    rotate_check_role(world)
    assert world.step().state is State.APPLYING
    assert not held(world)
    assert world.pgpool.marker == marker(read_tree(world))
    world.seams.on.clear()
    assert world.run(20, lambda: world.status.state is State.IN_SYNC)


def test_releasing_gives_back_what_was_held(tmp_path: Path) -> None:
    tree = read_tree(encrypted(tmp_path))
    assert release_failover(hold_failover(tree, 3)) == tree
    assert holds_failover(hold_failover(tree, 3))
    assert not holds_failover(tree)
