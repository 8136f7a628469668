"""A sidecar that starts, beside a pgpool that starts or is at work."""

from collections import Counter
from pathlib import Path

from entrypoint.inputs import INPUTS
from entrypoint.model import CURRENT
from sidecar.login import Outcome
from sidecar.status import State
from support.settled import AFTER, BEFORE, CHECK, NEW, OLD, asked, in_sync, live, rotate, settled
from support.simulation import World


def test_before_a_boot_the_sidecar_waits(tmp_path: Path) -> None:
    world = World(tmp_path, BEFORE)
    assert (world.step().state, world.status.settled) == (State.STARTING, False)
    assert world.status.reason == "pgpool-entrypoint has not booted here"
    assert world.rotation.due_seconds() <= 1
    assert (world.pgpool.logins, world.database.asked) == ([], [])
    world.boot()
    assert world.step().state is State.IN_SYNC


def test_what_a_boot_left_and_cannot_be_read_is_told(world: World) -> None:
    content = (world.run_dir / INPUTS).read_text()
    for bad, said in (("{}", "KeyError('pgpool')"), ("no JSON", "Expecting value"), (None, "No such file")):
        (world.run_dir / INPUTS).unlink() if bad is None else (world.run_dir / INPUTS).write_text(bad)
        assert world.step().state is State.STARTING
        assert said in world.status.reason
        assert "has not booted" not in world.status.reason
    (world.run_dir / INPUTS).write_text(content)
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
