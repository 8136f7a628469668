"""Secrets that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.generation import marker
from sidecar.status import STATUS, State
from support.secret_volume import SecretVolume
from support.settled import AFTER, BEFORE, DAY, in_sync, live, read_tree, rotate, settled, value
from support.simulation import World


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


def test_a_directory_whose_name_is_not_utf_8_is_told(tmp_path: Path) -> None:
    world = settled(World(tmp_path, BEFORE))
    bad = world.users / "of-\udcff"
    bad.mkdir()
    (bad / "password").write_bytes(b"app 1%")
    world.run(20)
    assert world.status.state is State.INVALID
    written = json.loads((world.run_dir / STATUS).read_bytes())
    assert written["state"] == "invalid"
    assert f"{bad}" in written["reason"]
    (line,) = world.events("level=error")
    assert "of-\\udcff" in line
    (bad / "password").unlink()
    bad.rmdir()
    world.run(20)
    assert world.faults(BEFORE) == []


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


def test_a_role_whose_removal_is_due_meanwhile_is_no_reason_to_look_all_the_time(tmp_path: Path) -> None:
    world = settled(World(tmp_path, {**BEFORE, "grafana": "g 1 100%"}, removal_grace=600))
    (world.users / "grafana").unlink()
    world.step()
    (world.users / "n8n").write_text("")
    world.hints = False
    world.run(700)
    before = value(world, "config_apply_operations_total", result="invalid")
    world.run(600)
    after = value(world, "config_apply_operations_total", result="invalid")
    assert before is not None
    assert after is not None
    assert after - before <= 600 / world.options.reread + 1
    world.secret("n8n", BEFORE["n8n"])
    assert world.run(120, in_sync(world, BEFORE)), "it is removed when it can be"


def test_a_lost_reload_is_sent_again_although_pgpools_parser_rejects_the_next_set(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    file = world.file("param", "3")
    world.env["PGPOOL_PARAMS_RESERVED_CONNECTIONS_FILE"] = str(file)
    settled(world)
    rotate(world)
    world.pgpool.away = True
    assert world.step().state is State.APPLYING
    world.pgpool.away = False
    world.parser_refuses = True
    file.write_text("2")
    world.run(400)
    assert world.status.state is State.INVALID
    assert world.pgpool.marker == marker(read_tree(world))
