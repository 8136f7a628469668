"""What only a restart applies."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from entrypoint.errors import ProgramUnusableError
from entrypoint.model import CURRENT
from entrypoint.publish import BOOTED, mark, publish
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.heartbeat import HEARTBEAT_SECONDS
from sidecar.status import State
from support.certificates import Authority
from support.secret_volume import SecretVolume
from support.settled import AFTER, BEFORE, CHECK, NEW, encrypted, in_sync, live, read_tree, rotate, settled, value
from support.simulation import World


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


def test_the_check_role_is_known_although_the_key_is_not(tmp_path: Path) -> None:
    """Else the nodes would be out of sight until a restart, which with `never` does not come."""
    world = encrypted(tmp_path)
    assert world.rotation.check_role() == ("sr_check", Secret(CHECK))
    world.file("key", "key 2 100%\n")
    sidecar = world.new_sidecar()
    assert sidecar.check_role() is None
    world.step()
    assert sidecar.check_role() == ("sr_check", Secret(CHECK))


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
    expired = world.clock.now().timestamp() * 1e9  # when the certificate was published again
    os.utime(world.run_dir / CURRENT, ns=(int(expired), int(expired)), follow_symlinks=False)
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


def test_pgpool_is_not_stopped_while_a_boot_would_refuse_what_it_serves(tmp_path: Path) -> None:
    """Such as a certificate that has expired in use, beside a new key."""
    world = World(tmp_path, BEFORE, restart_spread=60)
    volume = SecretVolume(tmp_path / "tls")
    volume.write(Authority().issue(valid_for=timedelta(minutes=65)).files())
    world.env |= {"PGPOOL_TLS_DIR": str(volume.path), "PGPOOLKEYFILE": str(world.file("key", "key 1 100%\n"))}
    settled(world)
    world.run(600)
    world.file("key", "key 2 100%\n")
    world.run(600)
    assert world.pgpool.stops == 0
    assert world.status.state is State.DEGRADED
    assert "a restart would end in refusal" in world.status.reason
    assert "expired" in world.status.reason
    volume.write(Authority().issue().files())
    assert world.run(600, lambda: world.pgpool.stops == 1)
    assert world.reboot()


@pytest.mark.parametrize("name", ["LISTEN_ADDRESSES", "PORT"])
def test_where_pgpool_listens_is_changed_by_a_person(tmp_path: Path, name: str) -> None:
    """A boot refuses an address that this host has not, or a port that is taken, and pgpool would be gone."""
    world = World(tmp_path, BEFORE, restart_spread=0)
    file = world.file("param", "localhost" if name == "LISTEN_ADDRESSES" else "9999")
    world.env[f"PGPOOL_PARAMS_{name}_FILE"] = str(file)
    settled(world)
    file.write_text("192.0.2.77" if name == "LISTEN_ADDRESSES" else "9998")
    world.run(400)
    assert world.pgpool.stops == 0
    assert world.status.restart is not None
    assert (world.status.restart.required_by, world.status.restart.policy) == ((name.lower(),), "never")


def test_an_expired_certificate_that_was_renewed_after_the_boot_stops_no_rotation(tmp_path: Path) -> None:
    world = with_tls(tmp_path, restart="never")
    world.clock.sleep(86400)
    begins = world.clock.now() - datetime.now(UTC) - timedelta(hours=1)
    pair = Authority().issue(valid_from=begins, valid_for=timedelta(days=10))
    SecretVolume(tmp_path / "tls").write(pair.files())
    world.run(400)
    assert world.status.restart is not None
    world.clock.sleep(11 * 86400.0)
    rotate(world)
    assert world.run(400, in_sync(world, AFTER))
    assert world.status.state is State.IN_SYNC
