"""Passwords rotate under a real pgpool, whose real sidecar notices, tries, publishes, reloads, proves and retires."""

import json
from contextlib import ExitStack
from datetime import datetime
from itertools import cycle
from pathlib import Path
from threading import Event, Lock, Thread

import pytest
from psycopg import sql

from integration.conftest import FORMER, CreateRole, Role, Scene, StartScene
from sidecar.access import Access
from sidecar.pcp import Pcp
from support.deadline import wait_until
from support.load import Load
from support.pod import run_sidecar
from support.postgres import NewServer

ROTATED = "the rotated % password"
WRONG = "a % password that PostgreSQL never had"

RELOADS = 'pgpool_reloader_reloads_total{result="success"}'
ROTATIONS = "pgpool_reloader_rotation_duration_seconds_count"
LAST_VERIFIED = "pgpool_reloader_last_verified_timestamp_seconds"
NOTHING_TO_DO = 'pgpool_reloader_config_apply_operations_total{result="noop"}'

STAGES = ["detected", "tried", "published", "reloaded", "proved", "retired", "verified"]


def stages(scene: Scene) -> list[str]:
    """What happened since the first change was detected."""
    names = [name.removeprefix("rotation.") for name in scene.sidecar.names() if name.startswith("rotation.")]
    return [name for name in names[names.index("detected") :] if name != "state"]


def test_a_rotated_password_replaces_the_former_one_and_no_session_ends(scene: Scene) -> None:
    with scene.pgpool.connect(scene.role, FORMER) as session:
        before = {name: scene.sidecar.metric(name) or 0 for name in (RELOADS, ROTATIONS, LAST_VERIFIED)}
        scene.rotate(ROTATED)
        status = scene.wait_in_sync()
        assert session.execute("SELECT 1").fetchone() == (1,)
    assert scene.logins(ROTATED) == {True}
    assert scene.logins(FORMER) == {False}
    assert stages(scene) == STAGES
    assert status["held"] == status["unproven"] == {}
    drift = json.loads(run_sidecar(scene.pod).stdout)
    assert drift == {"live": scene.pod.generation.name, "desired": scene.pod.generation.name, "changed": []}
    assert status["verified"] == status["applied"] == drift["live"][:12]
    assert scene.sidecar.metric(RELOADS) == before[RELOADS] + 1
    assert scene.sidecar.metric(ROTATIONS) == before[ROTATIONS] + 1
    assert (scene.sidecar.metric(LAST_VERIFIED) or 0) > before[LAST_VERIFIED]


def test_a_password_that_postgresql_does_not_know_yet_waits_and_is_seldom_tried(start_scene: StartScene) -> None:
    scene = start_scene(sidecar={"PGPOOL_SIDECAR_REREAD": "200ms"})
    scene.publish(ROTATED)
    status = scene.sidecar.wait_until("pending")
    assert list(status["held"]) == [scene.role]
    begin = scene.sidecar.metric(NOTHING_TO_DO) or 0
    wait_until(
        lambda: (scene.sidecar.metric(NOTHING_TO_DO) or 0) > begin + 4,
        timeout=20,
        failure=lambda: scene.sidecar.log,
    )
    assert scene.refused() <= 6
    assert scene.logins(FORMER, 4) == {True}
    assert not scene.knows(ROTATED)
    scene.alter(ROTATED)
    assert scene.wait_in_sync()["held"] == {}
    assert scene.logins(ROTATED) == {True}
    assert scene.alarms() == []


def test_two_roles_that_take_turns_cost_no_client_an_error(start_scene: StartScene, create_role: CreateRole) -> None:
    scene = start_scene(PGPOOL_PARAMS_NUM_INIT_CHILDREN="12")
    inactive, active = create_role(), Role(scene.role, FORMER)
    in_use = [active]
    with Load(scene.pgpool, lambda: in_use[-1], "postgres", sessions=4, logins=2) as load:
        for number in range(6):
            former, active = active, Role(inactive.name, f"{number} % of {inactive.name}")
            scene.server.alter_password(*active)
            scene.mount({former.name: None, active.name: active.password})
            scene.wait_in_sync()
            assert scene.pgpool.can_log_in(*former), "it stays for the grace period"
            in_use.append(active)
            inactive = former
            load.wait_for_turnover(timeout=30)
    assert load.errors == []
    assert load.statements.done > 100


def test_a_role_that_left_the_secret_leaves_pgpool_after_the_grace_period(
    start_scene: StartScene, create_role: CreateRole
) -> None:
    scene, other = start_scene(sidecar={"PGPOOL_SIDECAR_REMOVAL_GRACE": "3s"}), create_role(password="other % role")
    scene.mount({scene.role: None, other.name: other.password})
    scene.wait_in_sync()
    assert scene.knows(FORMER)
    scene.sidecar.wait_until_logged("rotation.verified", count=3)
    kept = [
        event["ts"] for event in scene.sidecar.events if event["event"] in {"rotation.detected", "rotation.published"}
    ]
    assert (datetime.fromisoformat(kept[-1]) - datetime.fromisoformat(kept[0])).total_seconds() >= 3
    assert not scene.knows(FORMER)
    assert json.loads(run_sidecar(scene.pod).stdout)["changed"] == []
    assert scene.pgpool.can_log_in(*other)
    scene.mount({scene.role: FORMER})
    scene.wait_in_sync()
    assert scene.logins(FORMER, 3) == {True}


def test_a_wrong_secret_is_held_back_until_it_is_corrected(scene: Scene) -> None:
    scene.publish(WRONG)
    scene.sidecar.wait_until("pending")
    assert scene.logins(FORMER, 4) == {True}
    scene.publish(FORMER)
    scene.wait_in_sync()
    assert stages(scene)[:2] == ["detected", "tried"]
    assert "published" not in stages(scene)
    assert scene.alarms() == []


def test_that_neither_password_works_is_an_alarm_until_one_does(scene: Scene) -> None:
    scene.alter(ROTATED)
    scene.publish(WRONG)
    status = scene.sidecar.wait_until("degraded")
    assert "neither" in status["held"][scene.role]
    assert [event["event"] for event in scene.alarms()] == ["rotation.state"]
    assert scene.sidecar.metric("pgpool_reloader_rejected_credentials") == 1
    scene.publish(ROTATED)
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}
    assert scene.sidecar.metric("pgpool_reloader_rejected_credentials") == 0


def test_a_password_that_postgresql_accepts_now_and_then_is_served_in_the_end(scene: Scene) -> None:
    """Whatever a trial, a proof or the login after the retirement happens to be told meanwhile."""
    stop, altering = Event(), Lock()

    def flap() -> None:
        role = sql.Identifier(scene.role)
        with scene.server.connect() as admin:
            for until in cycle(["2000-01-01", "infinity"]):
                with altering:
                    admin.execute(sql.SQL("ALTER ROLE {} VALID UNTIL {}").format(role, sql.Literal(until)))
                if stop.wait(0.03) and until == "infinity":
                    break

    flapping = Thread(target=flap)
    flapping.start()
    try:
        for number in range(6):
            with altering:
                scene.rotate(f"{ROTATED} {number}")
            stop.wait(0.7)
    finally:
        stop.set()
        flapping.join()
    assert scene.refused() > 0
    status = scene.wait_in_sync()
    assert status["held"] == status["unproven"] == {}
    assert scene.logins(f"{ROTATED} 5") == {True}
    assert not scene.knows(FORMER)


# --- PostgreSQL, or pgpool, goes away ------------------------------------------------------------------------------


def nodes(scene: Scene) -> list[str]:
    return [node.status_name for node in Pcp(Access(scene.pod.run_dir, {}), scene.pgpool.environment).nodes()]


def test_while_postgresql_is_down_nothing_is_applied_and_no_node_is_detached(
    start_scene: StartScene, new_server: NewServer
) -> None:
    server = new_server()
    scene = start_scene(server)
    scene.alter(ROTATED)
    server.stop()
    scene.publish(ROTATED)
    status = scene.sidecar.wait_until("pending")
    assert "could not be asked" in status["held"][scene.role]
    scene.sidecar.wait_until_logged("rotation.tried", count=3)
    server.start()
    scene.wait_in_sync()
    assert scene.logins(ROTATED) == {True}
    assert nodes(scene) == ["up"]
    assert "degenerate" not in scene.pgpool.log
    assert scene.alarms() == []


@pytest.mark.parametrize("end", ["SIGINT", "SIGKILL"])
def test_pgpool_may_end_during_and_between_rotations(scene: Scene, end: str) -> None:
    def restart() -> None:
        if end == "SIGINT":
            scene.pgpool.stop()
        else:
            scene.pgpool.kill_group()
        scene.pgpool.start()

    scene.rotate(ROTATED)
    scene.sidecar.wait_until_logged("rotation.published")
    restart()
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 4) == {True}
    restart()
    scene.pgpool.wait_until_login(scene.role, ROTATED)
    scene.rotate(FORMER)
    scene.wait_in_sync()
    assert scene.logins(FORMER, 4) == {True}
    assert scene.alarms() == []


def test_a_reload_that_gets_lost_is_sent_again(start_scene: StartScene, tmp_path: Path, pgpool_bin: Path) -> None:
    """Although pcp_reload_config said that all was well."""
    lose, tool = tmp_path / "lose the next reload", tmp_path / "pcp_reload_config"
    tool.write_text(
        f'#!/bin/sh\nrm "{lose}" 2>/dev/null && echo "pcp_reload_config -- Command Successful" && exit\n'
        f'exec "{pgpool_bin}/pcp_reload_config" "$@"\n'
    )
    tool.chmod(0o755)
    scene = start_scene(sidecar={"PATH": f"{tmp_path}:{pgpool_bin}:/usr/bin:/bin"})
    lose.touch()
    scene.rotate(ROTATED)
    scene.wait_in_sync()
    assert not lose.exists(), "no reload was lost"
    assert scene.sidecar.metric('pgpool_reloader_reloads_total{result="failure"}') == 1
    assert scene.logins(ROTATED) == {True}
    assert scene.logins(FORMER) == {False}
    assert scene.alarms() == []


# --- children that are in a session ----------------------------------------------------------------------------------


def children(scene: Scene) -> set[int]:
    return {child.pid for child in scene.pod.pcp().processes()}


def wait_until_replaced(scene: Scene, former: set[int]) -> None:
    wait_until(lambda: former.isdisjoint(children(scene)), timeout=10, failure=lambda: scene.pgpool.log)


def test_children_in_a_session_are_retired_with_its_end(start_scene: StartScene) -> None:
    scene = start_scene(PGPOOL_PARAMS_NUM_INIT_CHILDREN="4")
    with ExitStack() as stack:
        sessions = [stack.enter_context(scene.pgpool.connect(scene.role, FORMER)) for _ in range(3)]
        former = children(scene)
        scene.rotate(ROTATED)
        scene.wait_in_sync()
        assert [session.execute("SELECT 1").fetchone() for session in sessions] == [(1,)] * 3
        assert len(former & children(scene)) >= 3, "those with a session stay"
    wait_until_replaced(scene, former)
    assert scene.logins(FORMER) == {False}
    assert scene.logins(ROTATED) == {True}


def test_a_rotation_waits_for_a_child_when_all_are_in_a_session(start_scene: StartScene) -> None:
    scene = start_scene(PGPOOL_PARAMS_NUM_INIT_CHILDREN="4")
    with ExitStack() as stack:
        *sessions, last = [stack.enter_context(scene.pgpool.connect(scene.role, FORMER)) for _ in range(4)]
        former = children(scene)
        scene.rotate(ROTATED)
        scene.sidecar.wait_until("applying")
        last.close()
        scene.wait_in_sync()
        assert [session.execute("SELECT 1").fetchone() for session in sessions] == [(1,)] * 3
    wait_until_replaced(scene, former)
    assert scene.logins(FORMER) == {False}
    assert scene.logins(ROTATED) == {True}
    assert scene.alarms() == []
