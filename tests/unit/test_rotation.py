"""Rotation against real files, with a pgpool and a PostgreSQL at the sidecar's own seams."""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from entrypoint.errors import ProgramUnusableError
from entrypoint.model import CURRENT
from entrypoint.publish import BOOTED, VERIFIED, mark, marked, publish
from entrypoint.tree import Tree
from sidecar.generation import marker, read_generation
from sidecar.heartbeat import HEARTBEAT_SECONDS
from sidecar.login import Outcome
from sidecar.pcp import PcpError
from sidecar.pool import hold_failover, holds_failover, release_failover
from sidecar.status import STATUS, State
from support.certificates import Authority
from support.fakes import Child, Killed
from support.secret_volume import SecretVolume
from support.simulation import World

CHECK, OLD, NEW = "check old 1%", "n8n old 1%", "n8n new 2%"
BEFORE = {"sr_check": CHECK, "n8n": OLD}
AFTER = {"sr_check": CHECK, "n8n": NEW}
DAY = 86400.0


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A pod that has just settled."""
    return settled(World(tmp_path, BEFORE))


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


# --- at the start ----------------------------------------------------------------------------------------------------


def test_before_a_boot_the_sidecar_waits(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    assert (world.step().state, world.status.settled) == (State.STARTING, False)
    assert world.rotation.due_seconds() <= 1
    assert (world.pgpool.logins, world.database.asked) == ([], [])
    world.boot()
    assert world.step().state is State.IN_SYNC


def test_after_a_boot_all_is_in_sync_at_once_without_a_reload(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.boot()
    status = world.step()
    assert (status.state, status.settled, status.restart) == (State.IN_SYNC, True, None)
    assert status.desired == status.applied == status.verified == live(world)
    assert world.faults(BEFORE) == []
    assert (world.pgpool.reloads, world.pgpool.retirements) == (0, 0)


def test_a_new_sidecar_beside_a_pgpool_at_work_changes_nothing(world: World) -> None:
    world.new_sidecar()
    assert world.step().state is State.IN_SYNC
    assert (world.pgpool.reloads, world.pgpool.retirements, world.pgpool.logins) == (0, 0, [])


def test_a_pgpool_that_is_still_starting_is_waited_for_without_noise(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.boot()
    world.pgpool.running = False
    world.run(30)
    assert (world.status.state, world.status.settled) == (State.APPLYING, False)
    world.pgpool.running = True
    assert world.run(61, in_sync(world, BEFORE))
    assert world.pgpool.reloads == 0
    assert world.events("level=error") == world.events("level=warning") == []


def test_a_first_set_that_postgresql_refuses_is_an_alarm_and_not_hammered(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.boot()
    world.change("sr_check", "other 100%")
    world.run(600)
    assert (world.status.state, world.status.settled) == (State.DEGRADED, False)
    assert "'sr_check'" in world.status.reason
    assert len(world.events("level=error")) == 1
    refused = asked(world)["sr_check", Outcome.REJECTED] + Counter(world.pgpool.logins)["sr_check", Outcome.REJECTED]
    assert 20 < refused < 90
    world.change("sr_check", CHECK)
    assert world.run(61, in_sync(world, BEFORE))


def test_a_bad_secret_of_one_role_keeps_no_new_pod_out_of_the_service(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.change("n8n", "changed behind our back 100%")
    world.boot()
    assert world.step().state is State.DEGRADED
    assert world.status.settled


def test_nor_one_whose_sidecar_is_started_together_with_pgpool(world: World) -> None:
    world.change("n8n", "changed behind our back 100%")
    world.boot()
    assert not world.new_sidecar().status.settled
    world.pgpool.running = False
    assert not world.step().settled, "this pgpool has proved nothing yet"
    world.pgpool.running = True
    world.run(61)
    assert (world.status.state, world.status.settled) == (State.DEGRADED, True)


def test_a_new_pod_that_does_not_reach_postgresql_is_not_ready(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.database.reachable = False
    world.boot()
    world.run(600)
    assert not world.status.settled


def test_a_new_pod_with_a_wrong_password_of_the_check_role_is_not_ready_whoever_else_gets_in(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.change("sr_check", "other 100%")
    world.boot()
    world.run(60)
    rotate(world)
    world.run(600)
    assert (world.status.state, world.status.settled) == (State.DEGRADED, False)
    assert "'sr_check'" in world.status.reason or "check role" in world.status.reason
    world.change("sr_check", CHECK)
    assert world.run(61, in_sync(world, AFTER))
    assert world.status.settled


# --- one role's password ---------------------------------------------------------------------------------------------


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


# --- roles that come and go ------------------------------------------------------------------------------------------


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


# --- the check role --------------------------------------------------------------------------------------------------


def in_one_secret(root: Path) -> tuple[World, SecretVolume]:
    world = World(root, {})
    volume = SecretVolume(world.users / "check")
    volume.write({"username": b"check a", "password": b"check a 1%\n"})
    world.secret("n8n", OLD)
    world.env |= {"PGPOOL_CHECK_USER_FILE": f"{volume.path}/username"}
    del world.env["PGPOOL_CHECK_USER"]
    world.database.passwords |= {"check a": "check a 1%", "n8n": OLD}
    return settled(world), volume


BOTH = {"check a": "check a 1%", "check b": "check b 2%", "n8n": OLD}
NEXT = {"check b": "check b 2%", "n8n": OLD}


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


# --- Secrets that cannot be used -------------------------------------------------------------------------------------


def break_by_removal(world: World) -> None:
    SecretVolume(world.users / "app").write({})


def break_by_a_missing_key(world: World) -> None:
    SecretVolume(world.users / "app").write({"username": b"app"})


def break_by_an_empty_file(world: World) -> None:
    SecretVolume(world.users / "app").write({"username": b"app", "password": b""})


def break_by_no_text(world: World) -> None:
    SecretVolume(world.users / "app").write({"username": b"app", "password": b"\xff %"})


def break_by_a_second_line(world: World) -> None:
    SecretVolume(world.users / "app").write({"username": b"app", "password": b"app \n 1%"})


@pytest.mark.parametrize(
    "damage",
    [break_by_removal, break_by_a_missing_key, break_by_an_empty_file, break_by_no_text, break_by_a_second_line],
)
def test_a_secret_that_cannot_be_used_changes_nothing_and_its_return_needs_no_reload(
    tmp_path: Path, damage: Callable[[World], None]
) -> None:
    world = World(tmp_path, BEFORE)
    good = {"username": b"app", "password": b"app 1%\n"}
    SecretVolume(world.users / "app").write(good)
    world.change("app", "app 1%")
    settled(world)
    before = live(world)
    damage(world)
    world.run(DAY / 24)
    assert (world.status.state, live(world), world.status.settled) == (State.INVALID, before, True)
    assert str(world.users / "app") in world.status.reason
    assert len(world.events("level=error")) == 1
    assert value(world, "config_apply_operations_total", result="invalid")
    SecretVolume(world.users / "app").write(good)
    world.run(20)
    assert world.faults({**BEFORE, "app": "app 1%"}) == []
    assert (world.pgpool.reloads, live(world)) == (0, before)


def test_a_users_secret_that_is_emptied_altogether_changes_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, {})
    volume = SecretVolume(world.users)
    good = {role: f"{password}\n".encode() for role, password in BEFORE.items()}
    volume.write(good)
    world.database.passwords |= BEFORE
    settled(world)
    volume.write({})
    world.run(1200)
    assert (world.status.state, world.faults(BEFORE)[1:]) == (State.INVALID, [])
    volume.write(good)
    world.run(61)
    assert (world.faults(BEFORE), world.pgpool.reloads) == ([], 0)


def test_what_pgpools_own_parser_refuses_is_not_published(world: World) -> None:
    before = live(world)
    hba = world.file("hba", "host all all 10.0.0.0/8 scram-sha-256\n")
    world.env["PGPOOL_HBA_FILE"] = str(hba)
    backends = world.file("backends", "postgres-1=127.0.0.2\n")
    del world.env["PGPOOL_BACKENDS"]
    world.env["PGPOOL_BACKENDS_FILE"] = str(backends)
    world.boot()
    world.step()
    before = live(world)
    world.parser_refuses = True
    backends.write_text("postgres-1=127.0.0.2?weight=3\n")
    world.run(600)
    assert (world.status.state, live(world), world.dry_runs) == (State.INVALID, before, 2)
    rotate(world)
    backends.write_text("postgres-1=127.0.0.2\n")
    assert world.run(20, in_sync(world, AFTER))


# --- pgpool, when it does not do as it is told -----------------------------------------------------------------------


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


def rejecting(world: World) -> None:
    """A new password that pgpool will not take; PostgreSQL, for once, accepts both, as with two servers."""
    world.secret("n8n", NEW)
    world.pgpool.refuses.add(NEW)
    world.database.also["n8n"] = {NEW}


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


# --- while nothing changes -------------------------------------------------------------------------------------------


def test_while_nothing_changes_only_the_slow_heartbeat_asks_postgresql(world: World) -> None:
    world.run(3600)
    assert world.pgpool.logins == []
    assert world.pgpool.reloads == 0
    times = {round(when / HEARTBEAT_SECONDS) for when, _, _ in world.database.asked}
    assert 11 <= len(times) <= 12
    assert len(world.database.asked) == len(times) * len(BEFORE)
    assert value(world, "config_apply_operations_total", result="noop")


def test_the_heartbeat_says_whose_password_postgresql_no_longer_accepts(world: World) -> None:
    world.change("n8n", "changed behind our back 100%")
    world.run(HEARTBEAT_SECONDS + 10)
    assert world.status.state is State.DEGRADED
    assert world.status.reason == "PostgreSQL does not accept the Secret's password of 'n8n'"
    assert value(world, "rejected_credentials") == 1
    world.run(600)
    assert asked(world)["n8n", Outcome.REJECTED] <= 3
    world.change("n8n", OLD)
    assert world.run(HEARTBEAT_SECONDS + 10, in_sync(world, BEFORE))
    assert value(world, "rejected_credentials") == 0


def test_with_many_roles_the_heartbeat_finds_every_wrong_one_and_forgets_none(tmp_path: Path) -> None:
    many = {"sr_check": CHECK} | {f"role {number:02}": f"pass {number} %" for number in range(60)}
    world = settled(World(tmp_path, many))
    for role in ("role 05", "role 55"):
        world.change(role, "changed behind our back 100%")
    world.run(5 * HEARTBEAT_SECONDS)
    assert "'role 05'" in world.status.reason
    assert "'role 55'" in world.status.reason
    world.database.reachable = False
    world.run(2 * HEARTBEAT_SECONDS)
    assert world.status.state is State.DEGRADED
    per_beat = Counter(round(when / HEARTBEAT_SECONDS) for when, _, _ in world.database.asked)
    assert max(per_beat.values()) <= 20


THREE = {**BEFORE, "grafana": "grafana old 1%"}


def beats(world: World, role: str = "sr_check") -> int:
    """How often PostgreSQL was asked about a role that nothing else asks about."""
    return sum(1 for _, each, _ in world.database.asked if each == role)


def test_while_one_role_is_held_the_others_are_still_asked_about(tmp_path: Path) -> None:
    world = settled(World(tmp_path, THREE))
    world.secret("grafana", "grafana new 2%")
    world.change("n8n", "changed behind our back 100%")
    world.run(3600)
    assert 11 <= beats(world) <= 13
    assert world.status.held.keys() == {"grafana"}
    assert world.status.state is State.DEGRADED
    assert "the Secret's password of 'n8n'" in world.status.reason
    assert value(world, "rejected_credentials") == 1
    world.change("n8n", OLD)
    world.run(HEARTBEAT_SECONDS + 61)
    assert (world.status.state, value(world, "rejected_credentials")) == (State.PENDING, 0)


def test_a_held_role_is_not_counted_twice(tmp_path: Path) -> None:
    world = settled(World(tmp_path, THREE))
    world.change("n8n", "changed behind our back 100%")
    world.run(HEARTBEAT_SECONDS + 10)
    world.secret("n8n", NEW)
    world.step()
    assert world.status.reason.count("'n8n'") == 1
    assert value(world, "rejected_credentials") == 1
    world.change("n8n", OLD)
    world.run(61)
    assert (world.status.state, value(world, "rejected_credentials")) == (State.PENDING, 0)


def test_while_the_secrets_cannot_be_used_postgresql_is_asked_about_what_is_served(world: World) -> None:
    world.secret("grafana", "")
    world.run(3600)
    assert world.status.state is State.INVALID
    assert 11 <= beats(world) <= 13
    world.change("n8n", "changed behind our back 100%")
    world.run(HEARTBEAT_SECONDS + 10)
    assert (world.status.state, value(world, "rejected_credentials")) == (State.INVALID, 1)
    world.change("n8n", OLD)
    world.run(HEARTBEAT_SECONDS + 10)
    assert (world.status.state, value(world, "rejected_credentials")) == (State.INVALID, 0)


def test_a_role_that_was_held_when_the_secrets_broke_is_counted_as_what_is_served(world: World) -> None:
    world.secret("n8n", NEW)
    world.change("n8n", "a third 100%")
    world.step()
    assert value(world, "rejected_credentials") == 1
    world.change("n8n", OLD)
    world.secret("grafana", "")
    world.run(HEARTBEAT_SECONDS + 10)
    assert (world.status.state, value(world, "rejected_credentials")) == (State.INVALID, 0)


def test_beside_what_was_put_back_postgresql_is_asked_about_what_is_served(world: World) -> None:
    rejecting(world)
    world.step()
    world.database.asked.clear()
    world.change("sr_check", "changed behind our back 100%")
    world.run(HEARTBEAT_SECONDS + 60)
    assert value(world, "rejected_credentials") == 1
    assert "the Secret's password of 'sr_check'" in world.status.reason


def test_a_password_that_the_heartbeat_found_wrong_is_healed_by_the_right_secret(world: World) -> None:
    world.change("n8n", NEW)
    world.run(HEARTBEAT_SECONDS + 10)
    world.secret("n8n", NEW)
    world.step()
    assert world.faults(AFTER) == []


def waits(world: World) -> bool:
    """Whether a change waits to be served, as the alert sees it."""
    since = value(world, "pending_since_timestamp_seconds")
    assert since is not None
    return not math.isnan(since)


def test_a_password_that_postgresql_refuses_without_any_change_is_no_change_that_waits(world: World) -> None:
    world.change("n8n", "changed behind our back 100%")
    world.run(HEARTBEAT_SECONDS + 10)
    assert (world.status.state, waits(world)) == (State.DEGRADED, False)
    world.secret("n8n", NEW)
    world.step()
    assert waits(world), "now there is one"
    world.change("n8n", NEW)
    world.run(61)
    assert not waits(world)


def test_a_change_waits_from_the_first_moment_until_it_is_served(world: World) -> None:
    world.secret("n8n", NEW)
    world.step()
    since = value(world, "pending_since_timestamp_seconds")
    world.run(600)
    rejecting(world)
    world.run(61)
    assert (len(world.status.rejected), waits(world)) == (1, True)
    world.secret("grafana", "")
    world.run(600)
    assert world.status.state is State.INVALID
    assert value(world, "pending_since_timestamp_seconds") == since
    (world.users / "grafana").unlink()
    world.secret("n8n", OLD)
    world.run(61)
    assert (world.status.state, waits(world)) == (State.IN_SYNC, False)


def test_secrets_that_cannot_be_used_are_a_change_that_waits(world: World) -> None:
    world.secret("grafana", "")
    world.step()
    assert waits(world)


# --- what only a restart applies -------------------------------------------------------------------------------------


def encrypted(root: Path, restart_spread: float = 60) -> World:
    world = World(root, BEFORE, restart_spread=restart_spread)
    world.env["PGPOOLKEYFILE"] = str(world.file("key", "key 1 100%\n"))
    return settled(world)


def with_tls(
    root: Path, *, valid_for: timedelta = timedelta(days=90), restart: str = "auto", restart_spread: float = 60
) -> World:
    world = World(root, BEFORE, restart=restart, restart_spread=restart_spread)
    SecretVolume(root / "tls").write(Authority().issue(valid_for=valid_for).files())
    world.env["PGPOOL_TLS_DIR"] = str(root / "tls")
    return settled(world)


def test_a_new_key_waits_for_this_pods_turn_and_is_never_used_before(tmp_path: Path) -> None:
    world = encrypted(tmp_path, restart_spread=600)
    world.file("key", "key 2 100%\n")
    status = world.step()
    assert status.restart is not None
    assert (status.restart.required_by, status.restart.policy) == (("PGPOOLKEYFILE",), "auto")
    turn = status.restart.in_seconds
    assert turn is not None
    assert 0 < turn < 600
    assert value(world, "restart_required") == 1
    rotate(world)
    world.run(turn - 20)
    assert world.readable()
    assert world.faults(AFTER) == []
    assert world.pgpool.stops == 0
    assert world.run(40, lambda: world.pgpool.stops == 1)
    world.boot()
    assert world.run(20, in_sync(world, AFTER))
    assert world.status.restart is None
    assert value(world, "restart_required") == 0
    assert value(world, "restarts_total", reason="configuration") == 1


def test_a_new_key_is_not_used_by_a_sidecar_that_does_not_know_the_old_one(tmp_path: Path) -> None:
    world = encrypted(tmp_path, restart_spread=60)
    before = live(world)
    world.file("key", "key 2 100%\n")
    world.new_sidecar()
    rotate(world)
    assert world.step().state is State.PENDING
    assert world.status.restart is not None
    assert (live(world), world.readable()) == (before, True)
    assert world.run(80, lambda: world.pgpool.stops == 1)
    world.boot()
    assert world.run(20, in_sync(world, AFTER))


def test_a_key_that_comes_back_needs_no_restart(tmp_path: Path) -> None:
    world = encrypted(tmp_path, restart_spread=6000)
    world.file("key", "key 2 100%\n")
    world.step()
    world.file("key", "key 1 100%\n")
    assert world.step().restart is None


def test_a_generation_that_a_boot_has_just_published_with_another_key_is_left_alone(tmp_path: Path) -> None:
    world = encrypted(tmp_path)
    world.file("key", "key 2 100%\n")
    tree = world.would_boot()
    publish(tree, world.run_dir)
    assert world.step().state is State.APPLYING
    assert live(world) == tree.digest
    mark(world.run_dir, BOOTED, tree.digest)
    world.boot()
    assert world.run(20, in_sync(world, BEFORE))


def test_a_new_certificate_restarts_pgpool_and_a_password_in_between_is_rotated(tmp_path: Path) -> None:
    world = with_tls(tmp_path, restart_spread=600)
    SecretVolume(tmp_path / "tls").write(Authority().issue().files())
    status = world.step()
    assert status.restart is not None
    assert status.restart.required_by == ("tls.crt", "tls.key", "ca.crt")
    assert status.restart.in_seconds is not None
    assert status.restart.in_seconds > 60
    rotate(world)
    world.run(20)
    assert world.faults(AFTER) == []
    assert world.pgpool.stops == 0
    assert world.run(600, lambda: world.pgpool.stops == 1)
    world.boot()
    assert world.run(20, in_sync(world, AFTER))
    assert world.status.restart is None


def test_with_never_the_status_says_so_and_pgpool_is_left_alone(tmp_path: Path) -> None:
    world = with_tls(tmp_path, restart="never")
    SecretVolume(tmp_path / "tls").write(Authority().issue().files())
    world.run(3600)
    assert world.pgpool.stops == 0
    assert world.status.restart is not None
    assert (world.status.restart.policy, world.status.restart.in_seconds) == ("never", None)
    assert value(world, "restart_required") == 1
    assert len(world.events("restart.required")) == 1
    rotate(world)
    world.run(20)
    assert world.faults(AFTER) == []


def test_a_restart_waits_while_something_is_held(tmp_path: Path) -> None:
    world = with_tls(tmp_path, restart_spread=0)
    world.secret("n8n", NEW)
    SecretVolume(tmp_path / "tls").write(Authority().issue().files())
    world.run(600)
    assert world.pgpool.stops == 0
    world.change("n8n", NEW)
    assert world.run(61, lambda: world.pgpool.stops == 1)


def test_a_password_that_is_wrong_anyway_keeps_no_certificate_from_being_renewed(tmp_path: Path) -> None:
    world = with_tls(tmp_path, restart_spread=0)
    world.change("n8n", "changed behind our back 100%")
    world.run(HEARTBEAT_SECONDS + 60)
    assert world.status.state is State.DEGRADED
    SecretVolume(tmp_path / "tls").write(Authority().issue().files())
    world.step()
    assert world.pgpool.stops == 1


def test_a_restart_waits_while_postgresql_cannot_be_asked_about_the_check_role(tmp_path: Path) -> None:
    world = with_tls(tmp_path, restart_spread=600)
    SecretVolume(tmp_path / "tls").write(Authority().issue().files())
    world.step()
    assert world.status.state is State.IN_SYNC
    world.database.reachable = False
    world.run(1800)
    assert (world.status.state, world.pgpool.stops) == (State.IN_SYNC, 0)
    world.database.reachable = True
    assert world.run(61, lambda: world.pgpool.stops == 1)


def test_a_certificate_that_expires_in_use_does_not_stop_a_rotation(tmp_path: Path) -> None:
    world = with_tls(tmp_path, valid_for=timedelta(minutes=65))  # which began an hour ago
    world.run(600)
    rotate(world)
    assert world.run(20, in_sync(world, AFTER))
    rotate(world, password="n8n third 3%")
    assert world.run(20, in_sync(world, {**BEFORE, "n8n": "n8n third 3%"}))
    assert world.pgpool.stops == 0


@pytest.mark.parametrize("valid_for", [timedelta(minutes=30), timedelta(minutes=65)])
def test_another_certificate_that_has_expired_does(tmp_path: Path, valid_for: timedelta) -> None:
    world = with_tls(tmp_path)
    world.run(600)
    SecretVolume(tmp_path / "tls").write(Authority().issue(valid_for=valid_for).files())
    before = live(world)
    rotate(world)
    assert (world.step().state, live(world)) == (State.INVALID, before)


# --- together with a boot --------------------------------------------------------------------------------------------


def test_what_is_published_equals_byte_for_byte_what_a_boot_publishes(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.env["PGPOOL_PCP_PASSWORD_FILE"] = str(world.file("pcp", "pcp pass 100%\n"))
    world.env["PGPOOLKEYFILE"] = str(world.file("key", "key 100%\n"))
    settled(world)
    rotate(world)
    rotate(world, "grafana", "grafana 1%")
    world.file("pcp", "another pcp pass 100%\n")
    world.step()
    directory = world.run_dir / CURRENT
    assert {file.name: file.read_bytes() for file in directory.iterdir()} == world.would_boot().files
    assert live(world) == world.boot().digest


def test_a_boot_at_the_same_moment_wins(world: World) -> None:
    rotate(world)
    publishing = world.seams.passed.__len__

    def boot() -> None:
        world.boot()

    world.clock.at(0.015, boot)  # between the probe and publishing
    before = publishing()
    assert world.step().state is State.APPLYING
    assert world.seams.passed[before:].count("pgpool.reload") == 0
    assert world.run(20, in_sync(world, AFTER))


def test_a_pgpool_that_boots_with_a_password_too_new_is_given_the_former_one(world: World) -> None:
    world.secret("n8n", NEW)
    world.step()
    world.boot()
    assert world.pgpool.children[0].entries["n8n"] == NEW
    world.step()
    assert world.status.state is State.PENDING
    assert all(child.entries["n8n"] == OLD for child in world.pgpool.children)
    world.change("n8n", NEW)
    assert world.run(61, in_sync(world, AFTER))


def test_a_rotated_pcp_password_is_published(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    world.env["PGPOOL_PCP_PASSWORD_FILE"] = str(world.file("pcp", "pcp pass 100%\n"))
    settled(world)
    before = (world.run_dir / CURRENT / "pcp.conf").read_bytes()
    world.file("pcp", "another pcp pass 100%\n")
    assert world.step().state is State.IN_SYNC
    assert (world.run_dir / CURRENT / "pcp.conf").read_bytes() != before
    assert world.pgpool.retirements == 0


# --- whatever happens ------------------------------------------------------------------------------------------------


def test_no_secret_is_ever_told(tmp_path: Path) -> None:
    world = World(tmp_path, {role: f"sentinel {role} 1%" for role in ("sr_check", "n8n")})
    world.env["PGPOOLKEYFILE"] = str(world.file("key", "sentinel key 1%\n"))
    world.env["PGPOOL_PCP_PASSWORD_FILE"] = str(world.file("pcp", "sentinel pcp 1%\n"))
    settled(world)
    documents = []

    def remember() -> bool:
        documents.append((world.run_dir / STATUS).read_text())
        documents.append(repr(world.status))
        documents.append(generate_latest(world.metrics.registry).decode())
        return False

    rotate(world, password="sentinel two 2%")
    world.run(20, remember)
    world.secret("n8n", "sentinel three 3%")
    world.run(20, remember)
    world.pgpool.refuses.add("sentinel three 3%")
    world.database.also["n8n"] = {"sentinel three 3%"}
    world.run(90, remember)
    assert world.status.rejected
    world.secret("n8n", "sentinel\nfour 4%")
    world.run(20, remember)
    assert world.status.state is State.INVALID
    world.secret("n8n", "sentinel five 5%")
    world.database.reachable = False
    world.run(90, remember)
    world.file("key", "sentinel key 2%\n")
    world.run(90, remember)
    assert len(world.lines) > 20
    assert "sentinel" not in "".join(world.lines) + "".join(documents)


def test_the_status_file_tells_what_the_sidecar_tells(world: World) -> None:
    world.secret("n8n", NEW)
    world.step()
    assert json.loads((world.run_dir / STATUS).read_bytes()) == json.loads(json.dumps(world.status.document()))


def test_a_run_directory_that_cannot_be_written_is_an_alarm_that_ends_by_itself(world: World) -> None:
    rotate(world)
    directory = world.run_dir / "generations"
    directory.chmod(0o500)
    assert world.step().state is State.DEGRADED
    assert "cannot write below PGPOOL_RUN_DIR" in world.status.reason
    assert world.pgpool.reloads == 0
    directory.chmod(0o700)
    assert world.run(61, in_sync(world, AFTER))


def passed(root: Path) -> list[str]:
    world = settled(World(root, BEFORE))
    del world.seams.passed[:]
    rotate(world)
    world.step()
    return world.seams.passed


def test_a_sidecar_that_is_killed_at_any_moment_is_continued_by_the_next(tmp_path: Path) -> None:
    moments = passed(tmp_path / "0")
    assert {"event rotation.published", "pgpool.reload", "pgpool.login", "pgpool.retire"} <= set(moments)
    for nth, moment in enumerate(moments, start=1):
        world = settled(World(tmp_path / str(nth), BEFORE))
        world.pgpool.children[0].busy = True
        rotate(world)
        world.seams.kill_in = nth
        world.run(20)
        world.pgpool.end_sessions()
        assert (world.deaths, world.faults(AFTER), world.rubbish()) == (1, [], []), moment


def test_the_fake_pgpool_refuses_what_its_child_has_not_read(world: World) -> None:
    world.pgpool.children = [Child({"n8n": "other 1%"})]
    assert world.faults(BEFORE)


# --- failover is held while health checks begin anew ---------------------------------------------------------------


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


def read_tree(world: World) -> Tree:
    generation = read_generation(world.run_dir, CURRENT)
    assert generation is not None
    return generation.tree


def test_releasing_gives_back_what_was_held(tmp_path: Path) -> None:
    tree = read_tree(encrypted(tmp_path))
    assert release_failover(hold_failover(tree, 3)) == tree
    assert holds_failover(hold_failover(tree, 3))
    assert not holds_failover(tree)


# --- what must not repeat, or get lost ---------------------------------------------------------------------


def in_vain(root: Path) -> World:
    """A pod in which a restart has not applied a new certificate."""
    world = with_tls(root, restart_spread=0)
    before = read_tree(world)
    SecretVolume(root / "tls").write(Authority().issue().files())
    world.step()
    assert world.pgpool.stops == 1
    world.boot()
    stubborn = Tree({**read_tree(world).files, "tls.crt": before.files["tls.crt"], "tls.key": before.files["tls.key"]})
    publish(stubborn, world.run_dir, booting=True)
    return world


def test_a_restart_that_does_not_help_is_not_repeated(tmp_path: Path) -> None:
    world = in_vain(tmp_path)
    world.step()
    since, told = world.status.since, len(world.events("rotation.state"))
    world.run(1800)
    assert world.pgpool.stops == 1
    assert world.status.state is State.DEGRADED
    assert "a restart did not apply tls.crt, tls.key" in world.status.reason
    assert (world.status.since, len(world.events("rotation.state"))) == (since, told), "told once"


def test_another_certificate_after_a_restart_that_did_not_help_is_tried(tmp_path: Path) -> None:
    world = in_vain(tmp_path)
    SecretVolume(tmp_path / "tls").write(Authority().issue().files())
    world.run(20)
    assert world.pgpool.stops == 2
    world.boot()
    assert world.run(20, in_sync(world, BEFORE))


def test_a_password_after_a_restart_that_did_not_help_is_no_reason_for_another(tmp_path: Path) -> None:
    world = in_vain(tmp_path)
    rotate(world)
    world.run(600)
    assert (world.pgpool.stops, world.status.state) == (1, State.DEGRADED)
    assert all(child.entries == AFTER for child in world.pgpool.children)


def test_after_a_restart_that_did_not_help_a_held_password_is_still_tried_again(tmp_path: Path) -> None:
    world = in_vain(tmp_path)
    world.secret("n8n", NEW)
    world.run(300)
    assert world.status.held.keys() == {"n8n"}
    assert value(world, "held_credentials") == 1
    world.change("n8n", NEW)
    assert world.run(61, lambda: not world.status.held)


def another_certificate(world: World, _: int) -> None:
    SecretVolume(world.root / "tls").write(Authority().issue().files())


def another_key(world: World, renewal: int) -> None:
    world.file("key", f"key {renewal + 1} 100%\n")


@pytest.mark.parametrize(("begin", "renew"), [(with_tls, another_certificate), (encrypted, another_key)])
def test_each_renewal_of_a_certificate_or_key_restarts_pgpool(
    tmp_path: Path, begin: Callable[..., World], renew: Callable[[World, int], None]
) -> None:
    world = begin(tmp_path, restart_spread=0)
    for renewal in range(1, 4):
        renew(world, renewal)
        world.run(20)
        assert world.pgpool.stops == renewal
        world.boot()
        assert world.run(20, in_sync(world, BEFORE))
        world.run(600)


def test_a_tool_that_cannot_be_run_for_a_moment_loses_no_change(tmp_path: Path) -> None:
    world = encrypted(tmp_path)

    def fail() -> None:
        raise ProgramUnusableError("pcp_reload_config cannot be executed: Resource temporarily unavailable")

    world.seams.on["pgpool.reload"] = fail
    rotate(world)
    assert world.step().state is State.DEGRADED
    world.seams.on.clear()
    assert world.run(20, in_sync(world, AFTER))


def test_a_bug_in_a_step_loses_no_change(tmp_path: Path) -> None:
    world = encrypted(tmp_path)

    def fail() -> None:
        raise ZeroDivisionError

    world.seams.on["pgpool.reload"] = fail
    rotate(world)
    with pytest.raises(ZeroDivisionError):
        world.step()
    world.seams.on.clear()
    assert world.run(20, in_sync(world, AFTER))


def test_a_set_that_seems_to_have_arrived_before_any_reload_is_reloaded_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PCP reads the file when it is next asked after a reload: which may be a file that was published later."""
    world = encrypted(tmp_path)
    monkeypatch.setattr(world.pgpool, "arrived", lambda _: True)
    before = world.pgpool.reloads
    rotate(world)
    world.step()
    assert world.pgpool.reloads > before
    assert world.faults(AFTER) == []
