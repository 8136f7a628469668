"""While nothing changes."""

import json
import math
from collections import Counter
from errno import ENOSPC
from pathlib import Path

import pytest

from sidecar.heartbeat import HEARTBEAT_SECONDS
from sidecar.login import Outcome
from sidecar.status import State, Status
from support.settled import AFTER, BEFORE, CHECK, NEW, OLD, THREE, asked, in_sync, rejecting, settled, value
from support.simulation import World


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


def test_the_status_is_told_once_the_disk_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = settled(World(tmp_path, BEFORE))
    write = Status.write

    def full(self: Status, run_dir: Path) -> None:
        raise OSError(ENOSPC, "No space left on device")

    monkeypatch.setattr(Status, "write", full)
    world.secret("n8n", "wrong 100%")
    world.step()
    assert world.status.state is State.PENDING
    monkeypatch.setattr(Status, "write", write)
    world.run(400)
    assert json.loads((world.run_dir / "status.json").read_bytes())["state"] == "pending"
