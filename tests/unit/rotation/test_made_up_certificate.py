"""TLS without a certificate, in the official image's words: what boot makes up, and what the sidecar makes of that."""

from pathlib import Path

import pytest

from sidecar.status import State
from support.certificates import Authority
from support.settled import AFTER, BEFORE, in_sync, live, read_tree, rotate
from support.simulation import World

CONF = """
backend_hostname0 = '127.0.0.2'
backend_port0 = 5432
backend_application_name0 = 'postgres-1'
sr_check_user = 'sr_check'
enable_pool_hba = on
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """What is mounted at /config."""
    (directory := tmp_path / "config").mkdir()
    return directory


@pytest.fixture
def world(tmp_path: Path, config: Path) -> World:
    world = World(tmp_path, BEFORE)
    world.env = {
        "PGPOOL_CONF_VOLUME": str(config),
        "PGPOOL_USERS_DIR": str(world.users),
        "PGPOOL_RUN_DIR": str(world.run_dir),
    }
    return world


def boot(world: World, config: Path, *, ssl: str) -> None:
    (config / "pgpool.conf").write_text(f"{CONF}ssl = {ssl}\n")
    world.boot()
    world.run(20)
    assert world.status.state is State.IN_SYNC


def test_it_stays_while_pgpool_runs(world: World, config: Path) -> None:
    boot(world, config, ssl="on")
    digest, certificate = live(world), read_tree(world).files["tls.crt"]
    world.run(400)
    assert live(world) == digest
    rotate(world)
    assert world.run(20, in_sync(world, AFTER))
    assert read_tree(world).files["tls.crt"] == certificate
    assert world.status.restart is None


def test_tls_that_is_switched_on_later_is_made_up_once_and_waits_for_a_restart(world: World, config: Path) -> None:
    boot(world, config, ssl="off")
    (config / "pgpool.conf").write_text(f"{CONF}ssl = on\n")
    world.run(30)
    certificate = read_tree(world).files["tls.crt"]
    rotate(world)
    assert world.run(20, in_sync(world, AFTER))
    assert read_tree(world).files["tls.crt"] == certificate
    assert world.run(80, lambda: world.pgpool.stops == 1)
    world.boot()
    world.run(20)
    assert (world.status.state, world.status.restart) == (State.IN_SYNC, None)


def test_it_takes_no_place_of_a_mounted_one_that_is_gone(world: World, config: Path) -> None:
    Authority().issue().write(config / "tls")
    boot(world, config, ssl="on")
    before = read_tree(world)
    for file in (config / "tls").iterdir():
        file.unlink()
    world.run(400)
    assert world.status.state is State.INVALID
    assert "the certificate is gone that was mounted" in world.status.reason
    assert read_tree(world) == before
    assert world.pgpool.stops == 0
