"""One role's password, and roles that come and go."""

from collections import Counter
from itertools import count, pairwise
from pathlib import Path

from entrypoint.model import CURRENT
from sidecar.login import Outcome
from sidecar.status import State
from support.secret_volume import SecretVolume
from support.settled import AFTER, BEFORE, CHECK, NEW, OLD, THREE, asked, in_sync, live, rotate, settled, value
from support.simulation import World

BOTH = {"check a": "check a 1%", "check b": "check b 2%", "n8n": OLD}
NEXT = {"check b": "check b 2%", "n8n": OLD}


def test_a_password_that_changed_in_postgresql_first_is_applied_at_once(world: World) -> None:
    world.change("n8n", NEW)
    world.run(90)
    world.secret("n8n", NEW)
    began = world.clock()
    assert world.step().state is State.IN_SYNC
    assert world.clock() - began < 1
    assert world.faults(AFTER) == []
    assert world.pgpool.logins[:3] == [("n8n", Outcome.ACCEPTED)] * 3
    assert value(world, "rotation_duration_seconds_count") == 1
    assert value(world, "config_apply_operations_total", result="applied") == 2


def test_after_the_former_children_are_gone_each_changed_role_logs_in_three_times_again(tmp_path: Path) -> None:
    world = settled(World(tmp_path, THREE))
    rotate(world)
    rotate(world, "grafana", "grafana new 2%")
    world.seams.on["pgpool.retire"] = world.pgpool.logins.clear
    world.step()
    assert Counter(world.pgpool.logins) == {("n8n", Outcome.ACCEPTED): 3, ("grafana", Outcome.ACCEPTED): 3}


def test_a_child_that_missed_the_reload_is_retired_without_ending_its_session(world: World) -> None:
    stale = world.pgpool.children[0]
    stale.busy = True
    rotate(world)
    assert world.step().state is State.IN_SYNC
    assert stale.entries["n8n"] == OLD
    world.pgpool.end_sessions()
    assert world.faults(AFTER) == []


def test_a_password_that_changed_in_the_secret_first_is_held_until_postgresql_accepts_it(world: World) -> None:
    before = live(world)
    world.secret("n8n", NEW)
    world.run(3600)
    status = world.status
    assert (status.state, live(world), world.pgpool.reloads) == (State.PENDING, before, 0)
    assert status.held == {
        "n8n": "PostgreSQL does not accept the Secret's password yet, and does accept the one in use"
    }
    assert status.desired != status.applied == status.verified == before
    assert value(world, "held_credentials") == 1
    # Full jitter: half a minute between two probes, on average.
    assert 60 < asked(world)["n8n", Outcome.REJECTED] < 260
    assert asked(world)["n8n", Outcome.REJECTED] == asked(world)["n8n", Outcome.ACCEPTED]
    world.change("n8n", NEW)
    assert world.run(61, in_sync(world, AFTER))
    assert world.status.held == {}
    assert value(world, "held_credentials") == 0


def test_probes_of_a_held_password_slow_down(world: World) -> None:
    world.secret("n8n", NEW)
    world.run(3600)
    times = [when for when, _, outcome in world.database.asked if outcome is Outcome.REJECTED]
    gaps = [after - before for before, after in pairwise(times)]
    assert gaps[0] <= 1.1
    assert max(gaps) <= 60.1
    assert sum(gaps[:4]) < sum(gaps[-4:])


def test_when_postgresql_accepts_neither_password_somebody_is_told_and_nothing_changes(world: World) -> None:
    before = live(world)
    world.secret("n8n", NEW)
    world.change("n8n", "a third 100%")
    world.run(600)
    assert (world.status.state, live(world), world.pgpool.reloads) == (State.DEGRADED, before, 0)
    assert "accepts neither" in world.status.held["n8n"]
    assert len(world.events("level=error")) == 1
    assert value(world, "rejected_credentials") == 1
    world.change("n8n", NEW)
    assert world.run(61, in_sync(world, AFTER))
    assert value(world, "rejected_credentials") == 0


def test_while_postgresql_cannot_be_asked_a_change_is_held(world: World) -> None:
    before = live(world)
    rotate(world)
    world.database.reachable = False
    world.run(300)
    assert (world.status.state, live(world)) == (State.PENDING, before)
    assert world.status.held == {"n8n": "PostgreSQL could not be asked: not reachable"}
    assert world.events("level=error") == []
    world.database.reachable = True
    assert world.run(61, in_sync(world, AFTER))


def test_a_postgresql_that_does_not_answer_is_not_asked_about_every_role(tmp_path: Path) -> None:
    many = {"sr_check": CHECK} | {f"role {number}": f"pass {number} %" for number in range(10)}
    world = settled(World(tmp_path, many))
    for role in many:
        rotate(world, role, many[role] + " 2")
    world.database.reachable = False
    assert world.step().held.keys() == many.keys()
    assert len(world.database.asked) == 3


def test_with_many_changed_roles_some_are_proved_through_pgpool_the_check_role_first(tmp_path: Path) -> None:
    many = {"sr_check": CHECK} | {f"role {number:02}": f"pass {number} %" for number in range(30)}
    world = settled(World(tmp_path, many))
    after = {role: f"{password} 2" for role, password in many.items()}
    for role, password in after.items():
        rotate(world, role, password)
    assert world.step().state is State.IN_SYNC
    assert world.pgpool.logins[:3] == [("sr_check", Outcome.ACCEPTED)] * 3
    assert len(set(world.pgpool.logins)) == 16
    assert world.faults(after) == []


def test_one_held_role_does_not_hold_back_another(tmp_path: Path) -> None:
    world = settled(World(tmp_path, {**BEFORE, "grafana": "grafana old 1%"}))
    world.secret("grafana", "grafana new 2%")
    rotate(world)
    assert world.step().state is State.PENDING
    assert world.status.held.keys() == {"grafana"}
    serving = {**AFTER, "grafana": "grafana old 1%"}
    assert all(child.entries == serving for child in world.pgpool.children)
    rotate(world, password="n8n third 3%")
    world.step()
    assert all(child.entries == {**serving, "n8n": "n8n third 3%"} for child in world.pgpool.children)
    world.change("grafana", "grafana new 2%")
    assert world.run(61, in_sync(world, {**serving, "n8n": "n8n third 3%", "grafana": "grafana new 2%"}))


def test_the_sidecars_own_publishing_is_no_reason_to_probe_a_held_role_again(tmp_path: Path) -> None:
    world = settled(World(tmp_path, {**BEFORE, "grafana": "grafana old 1%"}))
    world.secret("grafana", "grafana new 2%")
    rotate(world)
    world.step()
    due = world.rotation.due_seconds()
    probes = asked(world)
    world.step()
    assert asked(world) == probes
    assert world.rotation.due_seconds() <= due


def test_the_newest_content_wins_while_an_older_one_is_tried_again(world: World) -> None:
    rotate(world)
    world.pgpool.away = True
    world.run(300)
    assert world.status.state is State.APPLYING
    rotate(world, password="n8n third 3%")
    world.pgpool.away = False
    world.step()
    assert world.faults({**BEFORE, "n8n": "n8n third 3%"}) == []


def test_new_content_begins_again_with_short_waits(world: World) -> None:
    world.secret("n8n", NEW)
    world.run(1800)
    waits = []
    for number in range(5):
        world.secret("n8n", f"n8n guess {number} %")
        world.step()
        waits.append(world.rotation.due_seconds())
    assert max(waits) <= 1


def test_content_that_comes_back_is_served_again_by_every_child(world: World) -> None:
    rotate(world)
    world.clock.at(0.2, lambda: rotate(world, password=OLD))
    world.pgpool.flaps = 2
    world.step()
    for child in world.pgpool.children[:2]:
        child.busy = True
    rotate(world, password=OLD)
    assert world.run(120, lambda: world.status.state is State.IN_SYNC)
    world.pgpool.end_sessions()
    assert world.faults(BEFORE) == []


def test_an_added_role_is_served(world: World) -> None:
    rotate(world, "grafana", "grafana 1%")
    assert world.step().state is State.IN_SYNC
    assert world.faults({**BEFORE, "grafana": "grafana 1%"}) == []
    assert ("grafana", Outcome.ACCEPTED) in world.pgpool.logins


def test_an_added_role_that_postgresql_does_not_know_yet_is_served_and_proved_later(world: World) -> None:
    world.secret("grafana", "grafana 1%")
    status = world.step()
    assert (status.state, list(status.unproven)) == (State.IN_SYNC, ["grafana"])
    assert all(child.entries["grafana"] == "grafana 1%" for child in world.pgpool.children)
    world.run(600)
    assert list(world.status.unproven) == ["grafana"]
    world.change("grafana", "grafana 1%")
    assert world.run(61, lambda: not world.status.unproven)
    assert len(world.events("rotation.new_role_proved")) == 1
    assert ("grafana", Outcome.ACCEPTED) in world.pgpool.logins


def test_a_role_that_postgresql_does_not_know_yet_may_get_another_password(world: World) -> None:
    world.secret("grafana", "grafana 1%")
    world.step()
    world.secret("grafana", "grafana 2%")
    assert (world.step().state, list(world.status.unproven), world.status.held) == (State.IN_SYNC, ["grafana"], {})
    world.change("grafana", "grafana 2%")
    assert world.run(61, lambda: not world.status.unproven)
    assert world.faults({**BEFORE, "grafana": "grafana 2%"}) == []


def test_a_removed_role_stays_for_the_grace_period_and_then_goes(world: World) -> None:
    (world.users / "n8n").unlink()
    world.run(590)
    assert world.faults(BEFORE) == []
    assert world.pgpool.reloads == 0
    assert world.run(21, in_sync(world, {"sr_check": CHECK}))


def test_the_end_of_a_grace_period_is_not_overslept(tmp_path: Path) -> None:
    world = settled(World(tmp_path, BEFORE, removal_grace=130))
    (world.users / "n8n").unlink()
    world.run(125)
    assert world.faults(BEFORE) == []
    assert world.run(10, in_sync(world, {"sr_check": CHECK}))


def test_a_removed_role_that_comes_back_was_never_gone(world: World) -> None:
    for _ in range(3):
        (world.users / "n8n").unlink()
        world.run(500)
        world.secret("n8n", OLD)
        world.run(200)
    assert world.faults(BEFORE) == []
    assert world.pgpool.reloads == 0


def test_a_removed_role_stops_no_other_ones_rotation(world: World) -> None:
    (world.users / "n8n").unlink()
    rotate(world, "sr_check", "check new 2%")
    assert world.step().state is State.IN_SYNC
    assert world.faults({"sr_check": "check new 2%", "n8n": OLD}) == []


def in_one_secret(root: Path) -> tuple[World, SecretVolume]:
    world = World(root, {})
    volume = SecretVolume(world.users / "check")
    volume.write({"username": b"check a", "password": b"check a 1%\n"})
    world.secret("n8n", OLD)
    world.env |= {"PGPOOL_CHECK_USER_FILE": f"{volume.path}/username"}
    del world.env["PGPOOL_CHECK_USER"]
    world.database.passwords |= {"check a": "check a 1%", "n8n": OLD}
    return settled(world), volume


def test_another_check_role_that_postgresql_knows_is_applied_at_once(tmp_path: Path) -> None:
    world, volume = in_one_secret(tmp_path)
    world.change("check b", "check b 2%")
    volume.write({"username": b"check b", "password": b"check b 2%\n"})
    assert world.step().state is State.IN_SYNC
    assert world.faults(BOTH) == []
    assert b"sr_check_user = 'check b'" in (world.run_dir / CURRENT / "pgpool.conf").read_bytes()
    assert world.run(700, in_sync(world, NEXT))


def test_another_check_role_that_postgresql_does_not_know_yet_is_no_check_role_yet(tmp_path: Path) -> None:
    world, volume = in_one_secret(tmp_path)
    volume.write({"username": b"check b", "password": b"check b 2%\n"})
    world.run(900)
    assert world.status.held.keys() == {"check b"}
    assert world.status.state is State.PENDING
    assert b"sr_check_user = 'check a'" in (world.run_dir / CURRENT / "pgpool.conf").read_bytes()
    world.change("check b", "check b 2%")
    # The grace period of the former one is over by then.
    assert world.run(700, in_sync(world, NEXT))
    assert b"sr_check_user = 'check b'" in (world.run_dir / CURRENT / "pgpool.conf").read_bytes()


def test_a_former_check_role_that_postgresql_refuses_first_does_not_stop_the_new_one(tmp_path: Path) -> None:
    world, volume = in_one_secret(tmp_path)
    del world.database.passwords["check a"]
    world.change("check b", "check b 2%")
    world.run(90)
    volume.write({"username": b"check b", "password": b"check b 2%\n"})
    assert world.step().state is State.IN_SYNC
    assert ("check b", Outcome.ACCEPTED) in world.pgpool.logins
    assert world.run(700, in_sync(world, NEXT))


def test_a_password_that_postgresql_learns_between_two_questions_is_nobodys_alarm(world: World) -> None:
    """The Secret first: the new one is refused, then PostgreSQL is changed, and then the former one is refused."""
    questions = count()

    def alter() -> None:
        if next(questions) == 1:
            world.change("n8n", NEW)

    world.seams.on["database.attempt"] = alter
    world.secret("n8n", NEW)
    assert world.step().state is State.IN_SYNC
    assert world.faults(AFTER) == []
    assert not [line for line in world.lines if "degraded" in line]
