"""What a reload does not reach: certificates and the key, for which pgpool is restarted; and what pgpool refuses."""

import os
import socket
import time
from datetime import datetime
from pathlib import Path

import pytest

from integration.conftest import CHECK_FORMER, FORMER, CreateRole, Scene, StartScene
from sidecar.restart import turn_seconds
from support.certificates import Authority
from support.deadline import wait_until
from support.load import Load
from support.pod import Pod
from support.secret_volume import SecretVolume

ROTATED = "the rotated % password"
KEY, KEY_ROTATED = b"the former % key\n", b"the rotated % key\n"
RESTART_REQUIRED = "pgpool_reloader_restart_required"


class Volume:
    """A Secret that one setting names, mounted in a directory of its own."""

    def __init__(self, setting: str, payload: dict[str, bytes], *, key: str = "") -> None:
        """`key`: the setting names that file, not the directory."""
        self._setting, self._payload, self._key = setting, payload, key

    def __call__(self, pod: Pod) -> None:
        """Mount it."""
        path = pod.directory / self._setting.lower()
        self._volume = SecretVolume(path)
        self.write(self._payload)
        pod.environment[self._setting] = str(path / self._key)

    def write(self, payload: dict[str, bytes]) -> None:
        self._volume.write(payload)


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def restart_as_the_kubelet_does(scene: Scene) -> None:
    """Wait for the end that the sidecar brings about, start pgpool again, and wait until it serves."""
    assert scene.pgpool.wait_until_exit() == 0
    scene.pgpool.stop()
    scene.pgpool.start()
    scene.pgpool.wait_until_login(scene.role, FORMER)


def time_of(scene: Scene, event: str) -> float:
    return datetime.fromisoformat(scene.sidecar.wait_until_logged(event)["ts"]).timestamp()


def serves(scene: Scene, authority: Authority, password: str = FORMER) -> bool:
    """Whether a client that trusts this authority alone gets in."""
    file = scene.pod.write("trusted.crt", authority.certificate)
    return scene.pgpool.can_log_in(scene.role, password, sslmode="verify-ca", sslrootcert=str(file))


def test_a_new_certificate_restarts_pgpool_when_its_turn_has_come(
    start_scene: StartScene, authority: Authority
) -> None:
    other = Authority("Another authority")
    tls = Volume("PGPOOL_TLS_DIR", authority.issue().files())
    scene = start_scene(prepare=tls, sidecar={"PGPOOL_SIDECAR_RESTART_SPREAD": "1s"})
    assert serves(scene, authority)
    tls.write(other.issue().files())
    restart_as_the_kubelet_does(scene)
    waited = time_of(scene, "restart.stopping") - time_of(scene, "restart.required")
    assert waited >= turn_seconds(socket.gethostname(), 1.0) - 0.01
    scene.wait_in_sync()
    assert serves(scene, other)
    assert not serves(scene, authority)
    assert scene.sidecar.status()["restart"] is None
    assert scene.sidecar.metric(RESTART_REQUIRED) == 0
    assert scene.sidecar.metric('pgpool_reloader_restarts_total{reason="configuration"}') == 1
    assert scene.sidecar.names().count("restart.stopping") == 1
    assert scene.alarms() == []


def test_where_restarts_are_forbidden_the_certificate_waits_and_passwords_do_not(
    start_scene: StartScene, authority: Authority
) -> None:
    other = Authority("Another authority")
    tls = Volume("PGPOOL_TLS_DIR", authority.issue().files())
    scene = start_scene(prepare=tls, sidecar={"PGPOOL_SIDECAR_RESTART": "never"})
    tls.write(other.issue().files())
    scene.sidecar.wait_until_logged("restart.required")
    scene.wait_in_sync()
    by = ["tls.crt", "tls.key", "ca.crt"]
    assert scene.sidecar.status()["restart"] == {"required_by": by, "policy": "never", "in_seconds": None}
    assert scene.sidecar.metric(RESTART_REQUIRED) == 1
    scene.rotate(ROTATED)
    scene.wait_in_sync()
    assert serves(scene, authority, ROTATED)
    assert not scene.knows(FORMER)
    assert scene.sidecar.status()["restart"]["policy"] == "never"
    scene.pgpool.assert_running()
    assert "restart.stopping" not in scene.sidecar.names()


def test_a_new_key_restarts_pgpool_and_until_then_no_login_fails(start_scene: StartScene) -> None:
    keys = Volume("PGPOOLKEYFILE", {"key": KEY}, key="key")
    scene = start_scene(prepare=keys, sidecar={"PGPOOL_SIDECAR_RESTART_SPREAD": "1s"})
    with Load(scene.pgpool, lambda: (scene.check, CHECK_FORMER), "postgres", sessions=0, logins=2) as load:
        wait_until(lambda: load.logins.done > 5, timeout=20, failure=lambda: str(load.logins))
        keys.write({"key": KEY_ROTATED})
        restart_as_the_kubelet_does(scene)
        back = time.time()
        scene.wait_in_sync()
        enough = load.logins.done + 5
        wait_until(lambda: load.logins.done > enough, timeout=20, failure=lambda: str(load.logins))
    assert [error for error in load.errors if not time_of(scene, "restart.stopping") - 0.1 < error[0] < back] == []
    assert scene.alarms() == []


def test_while_a_new_key_waits_passwords_are_encrypted_with_the_running_one(start_scene: StartScene) -> None:
    keys = Volume("PGPOOLKEYFILE", {"key": KEY}, key="key")
    scene = start_scene(prepare=keys, sidecar={"PGPOOL_SIDECAR_RESTART": "never"})
    with Load(scene.pgpool, lambda: (scene.check, CHECK_FORMER), "postgres", sessions=1, logins=1) as load:
        keys.write({"key": KEY_ROTATED})
        scene.sidecar.wait_until_logged("restart.required")
        scene.rotate(ROTATED)
        scene.sidecar.wait_until_logged("rotation.verified", count=2)
        assert scene.logins(ROTATED, 4) == {True}
        # A sidecar that has never seen the former key touches nothing.
        scene.sidecar.stop()
        scene.sidecar.start()
        assert "PGPOOLKEYFILE" in scene.sidecar.wait_until("pending")["reason"]
        scene.rotate(FORMER)
        scene.sidecar.wait_until_logged("restart.required", count=2)
        assert scene.knows(ROTATED)
    assert load.errors == []
    scene.pgpool.stop()
    scene.pgpool.start()
    scene.wait_in_sync()
    assert scene.logins(FORMER, 4) == {True}
    assert scene.sidecar.status()["restart"] is None


# --- what pgpool refuses although PostgreSQL accepts it --------------------------------------------------------------

OPEN = b"local all all scram-sha-256\nhost all all 127.0.0.1/32 scram-sha-256\n"


def closed(scene: Scene) -> bytes:
    """The role is not let in any more; our check of the file finds no fault with that."""
    role = scene.role
    return f"local all {role} reject\nhost all {role} 127.0.0.1/32 reject\n".encode() + OPEN


def test_a_pool_hba_conf_that_locks_a_role_out_is_named_until_it_is_corrected(start_scene: StartScene) -> None:
    """No password is wrong here, so there is none to go back to."""
    hba = Volume("PGPOOL_HBA_FILE", {"hba": OPEN}, key="hba")
    scene = start_scene(prepare=hba)
    hba.write({"hba": closed(scene)})
    scene.rotate(ROTATED)
    wait_until(
        lambda: "pool_hba.conf does not let the role in" in scene.sidecar.status()["reason"],
        timeout=20,
        failure=lambda: scene.sidecar.log,
    )
    assert scene.pgpool.can_log_in(scene.check, CHECK_FORMER)
    hba.write({"hba": OPEN})
    scene.wait_in_sync()
    assert scene.logins(ROTATED, 3) == {True}


def test_a_pool_hba_conf_that_locks_pgpools_own_role_out_is_put_back(start_scene: StartScene) -> None:
    hba = Volume("PGPOOL_HBA_FILE", {"hba": OPEN}, key="hba")
    scene = start_scene(prepare=hba)
    good = scene.pod.generation.name
    lines = "".join(f"{kind} all {scene.check} {where}reject\n" for kind, where in (("local", ""), ("host", "all ")))
    hba.write({"hba": lines.encode() + OPEN})
    scene.sidecar.wait_until_logged("rotation.rolled_back")
    scene.sidecar.wait_until("degraded")
    assert scene.pod.generation.name == good
    assert scene.pgpool.can_log_in(scene.check, CHECK_FORMER)
    hba.write({"hba": OPEN + b"host all all 127.0.0.2/32 scram-sha-256\n"})
    scene.wait_in_sync()
    assert scene.pgpool.can_log_in(scene.check, CHECK_FORMER)


def spoiling(pod: Pod, programs: Path, role: str) -> dict[str, str]:
    """An environment in which a reload finds another password of this role than was published."""
    directory = pod.directory / "bin"
    directory.mkdir()
    wrapper = directory / "pcp_reload_config"
    spoil = f"sed -i 's/^{role}:.*/{role}:TEXTanother % password/' {pod.run_dir}/current/pool_passwd"
    wrapper.write_text(f'#!/bin/sh\n{spoil}\nexec {programs}/{wrapper.name} "$@"\n')
    wrapper.chmod(0o755)
    return {"PATH": f"{directory}:{programs}:{os.defpath}"}


def test_what_pgpool_refuses_though_postgresql_accepts_it_is_put_back(
    start_scene: StartScene, create_role: CreateRole, pgpool_bin: Path
) -> None:
    other = create_role()
    sidecar: dict[str, str] = {}
    scene = start_scene(prepare=lambda pod: sidecar.update(spoiling(pod, pgpool_bin, other.name)), sidecar=sidecar)
    former = scene.pod.generation.name
    with Load(scene.pgpool, lambda: (scene.role, FORMER), "postgres", sessions=1, logins=1) as load:
        scene.mount({other.name: other.password})
        refused = scene.wanted()[:12]
        scene.sidecar.wait_until_logged("rotation.rolled_back")
        status = scene.sidecar.wait_until("degraded")
        assert status["rejected"] == [refused]
        assert status["applied"] == status["verified"] == former[:12]
        assert scene.logins(FORMER, 4) == {True}
        assert scene.sidecar.metric('pgpool_reloader_rollbacks_total{reason="refused"}') == 1
        (scene.pod.directory / "bin/pcp_reload_config").unlink()
        scene.server.alter_password(other.name, ROTATED)
        scene.mount({other.name: ROTATED})
        scene.wait_in_sync()
    assert load.errors == []
    assert scene.pgpool.can_log_in(other.name, ROTATED)
    assert len(scene.alarms()) == 2  # the return, and the state
