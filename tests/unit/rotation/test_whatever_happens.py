"""Whatever happens: kills, a full disk, secrets that nobody may see."""

import json
from pathlib import Path

from prometheus_client import generate_latest

from sidecar.status import STATUS, State
from support.fakes import Child
from support.settled import AFTER, BEFORE, NEW, in_sync, rotate, settled
from support.simulation import World


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
