"""pgpool, when it does not do as it is told."""

from pathlib import Path

import pytest

from entrypoint.publish import VERIFIED, marked
from sidecar.heartbeat import HEARTBEAT_SECONDS
from sidecar.login import Outcome
from sidecar.status import State
from support.settled import AFTER, BEFORE, NEW, OLD, asked, in_sync, live, rejecting, rotate, settled, value
from support.simulation import World


def test_a_reload_that_is_lost_is_repeated_until_it_arrives(world: World) -> None:
    rotate(world)
    world.pgpool.lose = 3
    world.step()
    assert world.status.state is State.APPLYING
    assert value(world, "last_reload_successful") == 0
    assert world.run(120, in_sync(world, AFTER))
    assert world.pgpool.reloads == 4
    assert value(world, "last_reload_successful") == 1
    assert world.events("level=error") == []


def test_a_reload_that_was_lost_with_its_pgpool_is_no_failure_once_the_next_one_is_proved(world: World) -> None:
    rotate(world)
    world.pgpool.away = True
    world.step()
    assert value(world, "last_reload_successful") == 0
    world.pgpool.away = False
    world.boot()
    assert world.run(20, in_sync(world, AFTER))
    assert (world.pgpool.reloads, value(world, "last_reload_successful")) == (0, 1)


@pytest.mark.parametrize("attribute", ["away", "running"])
def test_while_pgpool_is_away_there_is_no_noise_and_the_change_is_applied_when_it_is_back(
    world: World, attribute: str
) -> None:
    setattr(world.pgpool, attribute, attribute == "away")
    rotate(world)
    world.run(600)
    assert (world.status.state, world.status.settled) == (State.APPLYING, True)
    assert world.events("level=error") == world.events("level=warning") == []
    assert len(world.events("rotation.published")) == 1
    setattr(world.pgpool, attribute, attribute != "away")
    assert world.run(61, in_sync(world, AFTER))


def test_a_refusal_now_and_then_is_no_verdict(world: World) -> None:
    rotate(world)
    world.pgpool.flaps = 2
    assert world.step().state is State.IN_SYNC
    assert world.faults(AFTER) == []
    assert world.status.rejected == ()


def test_what_pgpool_refuses_for_good_is_put_back_and_not_tried_again(world: World) -> None:
    before = live(world)
    rejecting(world)
    assert (world.step().state, live(world)) == (State.DEGRADED, before)
    assert all(child.entries == BEFORE for child in world.pgpool.children)
    assert world.status.verified == before
    assert len(world.status.rejected) == 1
    assert value(world, "rollbacks_total", reason="refused") == 1
    reloads = world.pgpool.reloads
    world.new_sidecar()
    world.run(3600)
    assert (world.status.state, live(world), world.pgpool.reloads) == (State.DEGRADED, before, reloads)
    assert len(world.events("rotation.rolled_back")) == 1


def test_a_child_in_a_session_keeps_nothing_of_what_was_put_back(world: World) -> None:
    before = world.pgpool.marker
    stale = world.pgpool.children[0]

    def open_session() -> None:
        stale.busy = True

    world.seams.on["event rotation.rolled_back"] = open_session
    rejecting(world)
    world.step()
    assert stale.entries["n8n"] == NEW
    world.pgpool.end_sessions()
    assert all(child.entries == BEFORE for child in world.pgpool.children)
    assert world.pgpool.marker == before


def test_new_content_is_tried_at_once_after_one_was_put_back(world: World) -> None:
    rejecting(world)
    world.step()
    rotate(world, password="n8n third 3%")
    world.step()
    assert world.faults({**BEFORE, "n8n": "n8n third 3%"}) == []


def test_beside_a_set_that_was_put_back_a_held_role_is_tried_as_often_as_ever(tmp_path: Path) -> None:
    world = settled(World(tmp_path, {**BEFORE, "grafana": "grafana old 1%"}))
    rejecting(world)
    world.secret("grafana", "grafana new 2%")
    assert (world.step().state, len(world.status.rejected)) == (State.DEGRADED, 1)
    assert world.status.held.keys() == {"n8n", "grafana"}
    assert value(world, "held_credentials") == 2
    world.run(600)
    assert value(world, "held_credentials") == 2
    assert asked(world)["grafana", Outcome.REJECTED] > 10
    assert len(world.events("rotation.rolled_back")) == 1
    world.pgpool.refuses.clear()
    world.change("grafana", "grafana new 2%")
    assert world.run(61, in_sync(world, {**AFTER, "grafana": "grafana new 2%"}))
    assert value(world, "held_credentials") == 0


def test_what_was_put_back_is_tried_again_when_it_comes_back_after_the_former_one(world: World) -> None:
    rejecting(world)
    world.step()
    world.secret("n8n", OLD)
    assert (world.step().state, world.status.rejected) == (State.IN_SYNC, ())
    world.pgpool.refuses.clear()
    world.secret("n8n", NEW)
    world.step()
    assert world.faults(AFTER) == []


def test_what_was_put_back_is_tried_again_when_it_comes_back_after_another_one(tmp_path: Path) -> None:
    world = settled(World(tmp_path, {**BEFORE, "grafana": "grafana old 1%"}))
    rejecting(world)
    world.step()
    rotate(world, password="n8n third 3%")
    world.secret("grafana", "grafana new 2%")
    assert (world.step().state, world.status.rejected) == (State.PENDING, ())
    world.pgpool.refuses.clear()
    world.secret("grafana", "grafana old 1%")
    rotate(world)
    world.step()
    assert world.faults({**AFTER, "grafana": "grafana old 1%"}) == []


def test_what_was_put_back_is_tried_again_once_postgresql_refuses_the_former_password(world: World) -> None:
    before = live(world)
    rejecting(world)
    world.step()
    world.database.reachable = False
    world.run(700)
    assert live(world) == before, "a silence is no refusal"
    world.database.reachable = True
    world.change("n8n", NEW)
    world.run(HEARTBEAT_SECONDS + 60)
    assert (world.status.state, live(world) != before) == (State.DEGRADED, True)
    published = len(world.events("rotation.published"))
    world.run(1800)
    assert len(world.events("rotation.published")) == published, "neither is put back for the other"
    world.pgpool.refuses.clear()
    assert world.run(61, in_sync(world, AFTER))
    assert world.status.rejected == ()


def test_about_what_was_put_back_postgresql_is_seldom_asked(world: World) -> None:
    rejecting(world)
    world.step()
    world.run(3600)
    assert asked(world)["n8n", Outcome.ACCEPTED] < 60


def test_an_added_role_that_pgpool_refuses_is_taken_back(world: World) -> None:
    before = live(world)
    rotate(world, "grafana", "grafana 1%")
    world.pgpool.refuses.add("grafana 1%")
    assert (world.step().state, live(world)) == (State.DEGRADED, before)


def test_nothing_is_put_back_that_postgresql_no_longer_accepts(world: World) -> None:
    rotate(world)
    world.pgpool.refuses.add(NEW)
    before = live(world)
    world.run(120)
    assert (world.status.state, world.status.rejected) == (State.DEGRADED, ())
    assert live(world) != before
    world.pgpool.refuses.clear()
    assert world.run(61, in_sync(world, AFTER))


def test_nothing_is_put_back_while_another_changed_role_needs_the_new_set(world: World) -> None:
    rotate(world, "sr_check", "check new 2%")
    rejecting(world)
    assert (world.step().state, world.status.rejected) == (State.DEGRADED, ())
    assert all(child.entries["sr_check"] == "check new 2%" for child in world.pgpool.children)


def test_what_was_put_back_is_tried_again_by_a_pgpool_that_was_started_with_it(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.env["PGPOOL_PCP_PASSWORD_FILE"] = str(world.file("pcp", "pcp pass 100%\n"))
    world.env["PGPOOLKEYFILE"] = str(world.file("key", "key 100%\n"))
    settled(world)
    rejecting(world)
    world.step()
    world.pgpool.refuses.clear()
    world.change("n8n", NEW)
    world.boot()
    assert world.run(61, in_sync(world, AFTER))
    assert world.status.rejected == ()


@pytest.mark.parametrize("nth", range(1, 40))
def test_a_return_to_the_former_set_that_is_interrupted_anywhere_is_finished(world: World, nth: int) -> None:
    before = live(world)
    rejecting(world)
    world.seams.kill_in = nth
    world.run(300)
    assert (world.status.state, live(world), marked(world.run_dir, VERIFIED)) == (State.DEGRADED, before, before)
    assert all(child.entries == BEFORE for child in world.pgpool.children)
    assert world.rubbish() == []
