"""However Secrets are written, whenever the sidecar dies, whatever fails to tell it of a change: it converges."""

import os
import signal
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from entrypoint.pcp import PcpAddress
from entrypoint.secret import Secret
from integration.conftest import CHECK_FORMER, FORMER, Scene, StartScene
from sidecar.pcp import Pcp, PcpError
from support import proc
from support.deadline import wait_until
from support.load import Load
from support.pod import Pod, sidecar_command
from support.postgres import PostgresServer

ROTATED, CHECK_ROTATED = "the rotated % password", "the rotated % password of the check role"


# --- a sidecar that dies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event", ["detected", "tried", "published", "reloaded", "proved", "retired", "verified", "state"]
)
def test_a_sidecar_killed_after_any_event_goes_on_where_it_was(scene: Scene, event: str) -> None:
    name = f"rotation.{event}"
    so_far = scene.sidecar.names().count(name)
    with Load(scene.pgpool, lambda: (scene.check, CHECK_FORMER), "postgres", sessions=1, logins=1) as load:
        scene.rotate(ROTATED)
        if event == "state":
            scene.sidecar.wait_until("in_sync", generation=scene.wanted())
        else:
            scene.sidecar.wait_until_logged(name, count=so_far + 1)
        assert scene.sidecar.stop(signal.SIGKILL) == -signal.SIGKILL
        # Until all children have read it, one knows the former password, and the next one the new.
        wait_until(
            lambda: scene.knows(FORMER) or scene.knows(ROTATED), timeout=5, failure=lambda: "pgpool knows neither"
        )
        for link in ("current", "verified", "booted"):
            assert "pool_passwd" in {file.name for file in (scene.pod.run_dir / link).iterdir()}
        scene.sidecar.start()
        scene.wait_in_sync()
    assert load.errors == []
    assert load.logins.done > 0
    assert scene.logins(ROTATED, 8) == {True}
    assert scene.logins(FORMER, 8) == {False}
    assert scene.alarms() == []


# --- the writers of Secrets ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [{}, {"username": b"whoever 100%"}, {"username": b"whoever 100%", "password": b""}])
def test_a_secret_that_loses_its_keys_changes_nothing_until_they_are_back(
    start_scene: StartScene, left: dict[str, bytes]
) -> None:
    scene = start_scene(layout="Secret each")
    scene.volumes[scene.role].write(left)
    status = scene.sidecar.wait_until("invalid")
    assert str(scene.volumes[scene.role].path) in status["reason"] or "password" in status["reason"]
    assert scene.logins(FORMER, 3) == {True}
    assert scene.sidecar.get("/readyz")[0] == 200
    scene.rotate(ROTATED)
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert not scene.knows(FORMER)


def truncated_in_place(file: Path, halfway: Callable[[], None]) -> None:
    with file.open("w") as stream:
        stream.write(ROTATED[:9])
        stream.flush()
        halfway()
        stream.write(ROTATED[9:])


def emptied_in_place(file: Path, halfway: Callable[[], None]) -> None:
    with file.open("w") as stream:
        halfway()
        stream.write(ROTATED)


def renamed_as_vault_agent_does(file: Path, halfway: Callable[[], None]) -> None:
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(ROTATED)
    temporary.rename(file)


def removed_and_made_again(file: Path, halfway: Callable[[], None]) -> None:
    file.unlink()
    halfway()
    file.write_text(ROTATED)


@pytest.mark.parametrize(
    "write", [truncated_in_place, emptied_in_place, renamed_as_vault_agent_does, removed_and_made_again]
)
def test_plain_files_may_be_written_in_any_way(
    start_scene: StartScene, write: Callable[[Path, Callable[[], None]], None]
) -> None:
    """A virtual machine's guest (Kata Containers) sees plain files, too, where the kubelet wrote links."""
    scene = start_scene(layout="files")

    def seen() -> None:
        events = len(scene.sidecar.events)
        scans = scene.sidecar.metric("pgpool_reloader_watch_events_total") or 0
        wait_until(
            lambda: (
                (scene.sidecar.metric("pgpool_reloader_watch_events_total") or 0) > scans
                or len(scene.sidecar.events) > events
            ),
            timeout=20,
            failure=lambda: scene.sidecar.log,
        )
        assert scene.knows(FORMER)

    scene.alter(ROTATED)
    write(scene.pod.users / scene.role, seen)
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert not scene.knows(FORMER)


# --- many changes ----------------------------------------------------------------------------------------------------


def passes(seconds: float) -> None:
    """The time between two changes: what is tested is that they come so fast, or so slowly."""
    until = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= until, timeout=seconds + 1, failure=lambda: "time stands still")


@pytest.mark.parametrize("apart", [0.1, 2.0])
def test_two_secrets_that_change_one_after_the_other_are_both_applied(start_scene: StartScene, apart: float) -> None:
    scene = start_scene(layout="Secret each")
    scene.rotate(ROTATED)
    passes(apart)
    scene.server.alter_password(scene.check, CHECK_ROTATED)
    scene.mount({scene.check: CHECK_ROTATED})
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert scene.pgpool.can_log_in(scene.check, CHECK_ROTATED)
    assert not scene.pgpool.can_log_in(scene.check, CHECK_FORMER)
    assert not scene.knows(FORMER)


def test_a_check_role_whose_secret_comes_late_costs_no_node(start_scene: StartScene) -> None:
    """PostgreSQL has both new passwords; the kubelet brings one Secret at once, and the other later."""
    scene = start_scene(layout="Secret each")
    scene.server.alter_password(scene.check, CHECK_ROTATED)
    scene.rotate(ROTATED)
    scene.sidecar.wait_until_logged("rotation.proved", count=2)
    passes(4.0)
    assert "degenerate" not in scene.pgpool.log
    scene.mount({scene.check: CHECK_ROTATED})
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert "degenerate" not in scene.pgpool.log


def test_of_fifty_changes_a_second_the_last_one_wins_and_postgresql_is_hardly_asked(scene: Scene) -> None:
    for number in range(150):
        scene.publish(f"wrong % number {number}")
        passes(0.02)
    scene.rotate(ROTATED)
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert 1 <= scene.refused() <= 20


# --- nobody tells of changes -----------------------------------------------------------------------------------------


def test_without_inotify_changes_are_found_by_reading_again(
    start_scene: StartScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    none_left = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    none_left += ['echo 0 >/proc/sys/user/max_inotify_instances && exec "$@"', "sh", *sidecar_command()]
    monkeypatch.setattr("support.sidecar_process.sidecar_command", lambda: none_left)
    scene = start_scene(sidecar={"PGPOOL_SIDECAR_REREAD": "1s"})
    scene.sidecar.wait_until_logged("watch.mode")
    scene.rotate(ROTATED)
    begin = time.time()
    found = scene.sidecar.wait_until_logged("rotation.detected")
    assert datetime.fromisoformat(found["ts"]).timestamp() - begin < 3
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert scene.sidecar.metric('pgpool_reloader_watch_mode{mode="poll"}') == 1
    assert (scene.sidecar.metric("pgpool_reloader_watch_errors_total") or 0) >= 1


# --- PCP, many roles, and where no secret is -------------------------------------------------------------------------


def kept_at(name: str, content: str) -> Callable[[Pod], Path]:
    """A Secret of one key, mounted in a directory of its own and named by PGPOOL_…_FILE."""

    def prepare(pod: Pod) -> Path:
        directory = pod.directory / name.lower()
        directory.mkdir()
        file = pod.write(f"{name.lower()}/secret", content)
        pod.environment[name] = str(file)
        return file

    return prepare


PCP_FORMER, PCP_ROTATED = "the former % password of PCP", "the rotated % password of PCP"


def pcp(scene: Scene, password: str) -> int | str:
    """How many nodes there are, or why that is not told."""
    address = PcpAddress(scene.pod.run_dir, scene.pod.pcp_port, "pgpool", Secret(password))
    try:
        return Pcp(lambda: address, scene.pgpool.environment).node_count()
    except PcpError as error:
        return str(error)


def test_the_password_of_pcp_is_rotated(start_scene: StartScene) -> None:
    scene = start_scene(prepare=kept_at("PGPOOL_PCP_PASSWORD_FILE", PCP_FORMER))
    assert pcp(scene, PCP_FORMER) == 1
    scene.pod.write("pgpool_pcp_password_file/secret", PCP_ROTATED)
    scene.wait_in_sync()
    assert pcp(scene, PCP_ROTATED) == 1
    assert "authentication failed" in str(pcp(scene, PCP_FORMER))
    scene.rotate(ROTATED)
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert scene.sidecar.get("/pgpool/livez")[0] == 200
    assert scene.alarms() == []


@pytest.fixture
def crowd(postgres: PostgresServer) -> Iterator[dict[str, str]]:
    """A thousand roles by password, which is the same for all, so that one hash serves them all."""
    first, *others = names = [f"member % {number}" for number in range(1000)]
    postgres.create_role(first, FORMER)
    [(verifier,)] = postgres.sql("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [first])
    postgres.create_roles(dict.fromkeys(others, verifier))
    yield dict.fromkeys(names, FORMER)
    postgres.drop_roles(names)


def resident(pid: int) -> int:
    """MiB of memory."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) // 1024


def test_one_of_a_thousand_roles_is_rotated_and_some_come_and_go(
    crowd: dict[str, str], start_scene: StartScene
) -> None:
    *there, late, later = crowd
    grace = {"PGPOOL_SIDECAR_REMOVAL_GRACE": "5s"}
    scene = start_scene(roles=dict.fromkeys(there, FORMER), sidecar=grace)

    def applied(change: Callable[[], None], verified: int) -> float:
        begin = time.monotonic()
        count = scene.sidecar.names().count("rotation.verified") + verified
        change()
        scene.sidecar.wait_until_logged("rotation.verified", count=count)
        return time.monotonic() - begin

    rotated = applied(lambda: scene.rotate(ROTATED), 1)
    assert scene.logins(ROTATED, 3) == {True}
    assert not scene.knows(FORMER)
    # Once with those who come, once without those who have gone.
    exchanged = applied(lambda: scene.mount({late: FORMER, later: FORMER, there[0]: None, there[1]: None}), 2)
    assert scene.pgpool.can_log_in(late, FORMER)
    assert not scene.pgpool.can_log_in(there[0], FORMER)
    assert scene.wait_in_sync()["held"] == {}
    memory = resident(scene.sidecar.pid)
    print(f"rotated in {rotated:.1f} s, exchanged in {exchanged:.1f} s, {memory} MiB")
    assert rotated < 20
    assert memory < 400


def recorded(programs: Path, directory: Path) -> Path:
    """A directory with these programs, each of which writes down its command line and environment first."""
    for program in programs.iterdir():
        file = directory / program.name
        file.write_text(f'#!/bin/sh\ncat /proc/$$/cmdline /proc/$$/environ >>{directory}/seen\nexec {program} "$@"\n')
        file.chmod(0o755)
    return directory


KEY = "the % key of pool_passwd"


def test_no_secret_is_in_what_the_sidecar_writes_serves_or_starts(
    start_scene: StartScene, pgpool_bin: Path, tmp_path: Path
) -> None:
    mount_pcp = kept_at("PGPOOL_PCP_PASSWORD_FILE", PCP_FORMER)
    mount_key = kept_at("PGPOOLKEYFILE", KEY)
    path = {"PATH": f"{recorded(pgpool_bin, tmp_path)}:{os.defpath}"}
    scene = start_scene(prepare=lambda pod: (mount_pcp(pod), mount_key(pod)), sidecar=path)
    secrets = [FORMER, ROTATED, CHECK_FORMER, CHECK_ROTATED, PCP_FORMER, PCP_ROTATED, KEY, "wrong % guess"]
    needles = [each.encode() for each in secrets] + [b64encode(each.encode()) for each in secrets]
    scene.publish("wrong % guess")
    scene.sidecar.wait_until("pending")
    scene.rotate(ROTATED)
    scene.server.alter_password(scene.check, CHECK_ROTATED)
    scene.mount({scene.check: CHECK_ROTATED})
    scene.pod.write("pgpool_pcp_password_file/secret", PCP_ROTATED)
    scene.wait_in_sync()
    scene.publish("")
    scene.sidecar.wait_until("invalid")
    scene.publish(ROTATED)
    scene.wait_in_sync()
    assert [place for each in needles for place in proc.find_in_processes([scene.sidecar.pid], each)] == []
    children = (tmp_path / "seen").read_bytes()
    assert b"pcp_reload_config" in children
    assert [needle for needle in needles if needle in children] == []
    pages = [scene.sidecar.get(path)[1] for path in ("/metrics", "/status", "/livez", "/readyz", "/pgpool/readyz")]
    status = (scene.pod.run_dir / "status.json").read_text()
    told = "".join([scene.sidecar.log, status, *pages]).encode()
    assert b"rotation.verified" in told
    assert b"pgpool_reloader_reloads_total" in told
    assert [needle for needle in needles if needle in told] == []
