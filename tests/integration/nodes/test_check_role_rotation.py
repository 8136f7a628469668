"""The dangerous role is pgpool's own: when it cannot log in, pgpool takes healthy nodes for dead."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest

from integration.conftest import CreateRole, Role
from support.deadline import wait_until
from support.load import Load
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_ROLE, NewPod, Pod
from support.postgres import PostgresServer
from support.secret_volume import SecretVolume
from support.sidecar_process import Sidecar

BETWEEN = 90.0
"""Seconds between PostgreSQL and the Secret: what a kubelet may take."""
AFTERWARDS = 50.0
"""Seconds to go on watching: a health check that goes on with a former password gives up 125 s after its change."""
ROTATED = "the rotated % password"


@dataclass(frozen=True)
class Scene:
    """A pod of its own, and the two sides of a change of its check role."""

    name: str
    pod: Pod
    first: Callable[[], None]
    second: Callable[[], None]


@pytest.fixture
def scenes(new_pod: NewPod, postgres: PostgresServer, create_role: CreateRole) -> list[Scene]:
    def scene(name: str, role: Role, new: Role, in_postgres: Callable[[], None], *, secret_first: bool) -> Scene:
        pod = new_pod()
        (pod.users / CHECK_ROLE).unlink()
        volume = SecretVolume(pod.users / "check", mode=0o400)
        volume.write(content(role))
        pod.encrypt()
        pod.environment |= {
            "PGPOOL_CHECK_USER_FILE": str(pod.users / "check/username"),
            "PGPOOL_PARAMS_NUM_INIT_CHILDREN": "6",
        }

        def in_secret() -> None:
            volume.write(content(new))

        return Scene(name, pod, *((in_secret, in_postgres) if secret_first else (in_postgres, in_secret)))

    def same_role(name: str, *, secret_first: bool) -> Scene:
        role = create_role(monitor=True)

        def alter() -> None:
            postgres.alter_password(role.name, ROTATED)

        return scene(name, role, Role(role.name, ROTATED), alter, secret_first=secret_first)

    def other_role(name: str, *, secret_first: bool) -> Scene:
        role, new = create_role(monitor=True), Role(f"new {name}", ROTATED)

        def create() -> None:
            create_role(*new, monitor=True)

        return scene(name, role, new, create, secret_first=secret_first)

    return [
        same_role("PostgreSQL first", secret_first=False),
        same_role("Secret first", secret_first=True),
        other_role("new role, PostgreSQL first", secret_first=False),
        other_role("new role, Secret first", secret_first=True),
    ]


def content(role: Role) -> dict[str, bytes]:
    return {"username": role.name.encode(), "password": role.password.encode()}


@pytest.mark.timeout(300)
def test_a_change_of_the_check_role_detaches_no_node_and_refuses_no_client(scenes: list[Scene]) -> None:
    """With 90 s between the two sides, in either order, and as a new role; all at once, as each takes minutes."""
    with ThreadPoolExecutor(len(scenes)) as together:
        for faults in together.map(play, scenes):
            assert faults == []


def play(scene: Scene) -> list[str]:
    """What went wrong."""
    pod, never = scene.pod, threading.Event()
    sidecar = Sidecar(pod)
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        with sidecar, Load(pgpool, lambda: (APP_ROLE, APP_PASSWORD), "postgres", sessions=1, logins=1) as load:
            sidecar.wait_until("in_sync")
            scene.first()
            never.wait(BETWEEN)  # the time itself is what is tested
            scene.second()
            verified = sidecar.wait_until_logged("rotation.verified", count=2, timeout=90)
            sidecar.wait_until("in_sync", timeout=90)  # PostgreSQL is asked again after a minute at most
            never.wait(AFTERWARDS)
            status, (_, metrics) = sidecar.status(), sidecar.get("/metrics")
        wait_until(lambda: pgpool.can_log_in(APP_ROLE, APP_PASSWORD), timeout=5, failure=lambda: pgpool.log)
        faults = [f"{scene.name}: {words}" for _, words in load.errors]
        if load.logins.done < 100:
            faults.append(f"{scene.name}: only {load.logins.done} logins")
        if status["state"] != "in_sync" or not verified:
            faults.append(f"{scene.name}: {status}\n{sidecar.log}")
        if not re.search(r"^pgpool2_pool_nodes_status\{.*\} 1.0$", metrics, re.MULTILINE):
            faults.append(f"{scene.name}: the node is down, or nothing is known of it\n{metrics}")
        never_said = ("Starting degeneration", "failed to find primary node")
    faults += [f"{scene.name}: {words}\n{pgpool.log}" for words in never_said if words in pgpool.log]
    return faults
