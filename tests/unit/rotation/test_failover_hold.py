"""Failover is held while health checks begin anew."""

import threading
from pathlib import Path

from entrypoint.model import CURRENT
from entrypoint.publish import publish, turn
from sidecar.generation import marker, read_generation
from sidecar.pcp import PcpError
from sidecar.pool import hold_failover, holds_failover, release_failover
from sidecar.rotation import Rotation
from sidecar.status import State
from support.fakes import Killed
from support.settled import CHECK, encrypted, read_tree, rotate
from support.simulation import World

OTHER = "check two 100%"


def rotate_check_role(world: World) -> None:
    rotate(world, "sr_check", OTHER)


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

    leave_held(world)
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


def leave_held(world: World) -> None:
    """As kill -9 in the midst of a hold leaves it."""
    publish(hold_failover(read_tree(world), 3), world.run_dir)
    world.pgpool.reload()


def test_a_lost_reload_at_the_end_of_a_left_hold_is_sent_again_whatever_the_secrets_say(tmp_path: Path) -> None:
    for restarted in (False, True):
        world = encrypted(tmp_path / str(restarted))
        leave_held(world)
        world.secret("n8n", "")
        world.new_sidecar()
        world.pgpool.lose = 1
        world.step()
        assert not held(world)
        assert world.pgpool.marker == "failover-held", "it got lost"
        if restarted:
            world.new_sidecar()
        world.run(120)
        assert world.status.state is State.INVALID
        assert world.pgpool.marker == marker(read_tree(world))


def test_the_hold_of_another_sidecar_that_is_at_work_is_left_alone(tmp_path: Path) -> None:
    """Such as `--once` beside the running one: it would be ended in the midst of a failing health check."""
    world = encrypted(tmp_path)
    with turn(world.run_dir, 0):
        leave_held(world)
        status = Rotation(world.surroundings(), patience=0.1).step()
        assert (status.state, "another sidecar" in status.reason) == (State.APPLYING, True)
        assert held(world)
    world.new_sidecar()
    assert world.step().state is State.IN_SYNC
    assert not held(world)


def test_one_sidecar_waits_for_the_step_of_another(tmp_path: Path) -> None:
    world = encrypted(tmp_path)
    in_it, go_on, seen = threading.Event(), threading.Event(), list[bool]()

    def wait() -> None:
        in_it.set()
        go_on.wait(10)
        seen.append(held(world))

    world.seams.on["pgpool.renew_checks"] = wait
    rotate_check_role(world)
    first = threading.Thread(target=world.step)
    first.start()
    assert in_it.wait(10)
    second = threading.Thread(target=Rotation(world.surroundings()).step)
    second.start()
    second.join(0.3)
    assert second.is_alive()
    go_on.set()
    for each in (first, second):
        each.join(10)
    assert seen == [True], "renewed once, and held all the while"
    assert not held(world)
    assert world.new_sidecar().step().state is State.IN_SYNC


def test_checks_begin_anew_with_each_password_of_their_role_though_one_of_them_was_never_proved(tmp_path: Path) -> None:
    """A check that goes on with another is deaf to reloads, and detaches its node minutes later."""
    world = encrypted(tmp_path)
    renewed: list[str] = []
    world.seams.on["pgpool.renew_checks"] = lambda: renewed.append(world.database.passwords["sr_check"])
    rotate(world, "sr_check", OTHER)
    for child in world.pgpool.children:
        child.busy = True  # nothing can be proved
    world.run(30)
    rotate(world, "sr_check", CHECK)
    world.run(30)
    for child in world.pgpool.children:
        child.busy = False
    world.run(120)
    assert world.status.state is State.IN_SYNC
    assert renewed == [OTHER, CHECK]
    rotate(world, "sr_check", OTHER)
    world.run(120)
    assert world.status.state is State.IN_SYNC
    assert renewed == [OTHER, CHECK, OTHER]
