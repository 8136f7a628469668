"""What pgpool-entrypoint left in the run directory is gone, or not what it was."""

from pathlib import Path

import pytest

from entrypoint.credentials import pcp_hash
from entrypoint.model import CURRENT
from sidecar.status import State
from support.settled import BEFORE, read_tree, settled
from support.simulation import World


@pytest.mark.parametrize("name", ["pool_passwd", "pool_hba.conf", "pgpool.conf", "pcp.conf"])
@pytest.mark.parametrize("content", [None, b""])
def test_a_damaged_live_generation_is_made_whole(tmp_path: Path, name: str, content: bytes | None) -> None:
    world = settled(World(tmp_path, BEFORE))
    before = read_tree(world)
    file = world.run_dir / CURRENT / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    world.run(400)
    assert read_tree(world) == before
    assert world.faults(BEFORE) == []
    assert world.pgpool.stops == 0


@pytest.mark.parametrize("name", ["pcp_password", "check_key"])
def test_a_lost_file_of_the_boots_is_told_and_nothing_is_published_without_it(tmp_path: Path, name: str) -> None:
    """An empty PCP password would be everybody's."""
    world = settled(World(tmp_path, BEFORE))
    (world.run_dir / name).unlink()
    world.run(400)
    files = read_tree(world).files
    assert pcp_hash("").encode() not in files["pcp.conf"]
    assert b"sr_check_password" in files["pgpool.conf"]
    assert world.status.state is State.STARTING
    assert f"{name} is gone; restart pgpool" in world.status.reason
    world.reboot()
    world.run(20)
    assert world.faults(BEFORE) == []
