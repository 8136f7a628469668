"""The sidecar's one pass makes pgpool serve what the Secrets say; a dry one tells what differs."""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import CreateRole, Role, Scene
from support.certificates import Authority
from support.deadline import wait_until
from support.pgpool_process import REPOSITORY, Pgpool, complete_environment
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_ROLE, Pod, run_sidecar, sidecar_command
from support.postgres import PostgresServer
from support.secret_volume import SecretVolume

FORMER, ROTATED = "the former % password", "the rotated % password"


@pytest.fixture
def secret(pod: Pod) -> SecretVolume:
    """The application's Secret, mounted below the users directory."""
    (pod.users / APP_ROLE).unlink()
    volume = SecretVolume(pod.users / "app-secret", mode=0o440)
    volume.write({"username": APP_ROLE.encode(), "password": APP_PASSWORD.encode()})
    return volume


def once(pod: Pod, code: int, **changes: str) -> dict[str, Any]:
    result = run_sidecar(pod, **changes)
    assert result.returncode == code, result.stdout + result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def boot_once(pod: Pod) -> str:
    """Serve, stop, and return the generation that was live."""
    with pod.pgpool() as pgpool:
        pgpool.wait_until_logged("successfully started")
        return pod.generation.name


def test_after_a_boot_nothing_differs(pod: Pod, secret: SecretVolume) -> None:
    live = boot_once(pod)
    assert once(pod, 0) == {"live": live, "desired": live, "changed": []}


def test_the_desired_generation_is_what_a_restart_publishes(pod: Pod, secret: SecretVolume) -> None:
    """Byte-identical to a fresh boot: the digest is over all files."""
    pod.environment["PGPOOL_PCP_PASSWORD_FILE"] = str(pod.write("pcp", "a pcp % password"))
    pod.encrypt()
    first = boot_once(pod)
    secret.write({"username": APP_ROLE.encode(), "password": b"a new % password"})
    drift = once(pod, 1)
    assert drift["live"] == first
    assert drift["changed"] == ["pgpool.conf", "pool_passwd"]
    assert drift["desired"] != first
    assert boot_once(pod) == drift["desired"]
    assert once(pod, 0)["changed"] == []


def test_every_kind_of_change_is_named(pod: Pod, secret: SecretVolume) -> None:
    authority = Authority()
    pod.environment |= {
        "PGPOOL_TLS_DIR": str(authority.issue().write(pod.directory / "tls")),
        "PGPOOL_HBA_FILE": str(pod.write("hba", "local all all scram-sha-256\n")),
        "PGPOOL_PCP_PASSWORD_FILE": str(pod.write("pcp", "a pcp % password")),
        "PGPOOL_CHECK_USER_FILE": str(pod.write("check_user", CHECK_ROLE)),
    }
    boot_once(pod)
    authority.issue(valid_for=timedelta(days=60)).write(pod.directory / "tls")
    pod.write("hba", "local all all scram-sha-256\nhost all all 127.0.0.0/8 scram-sha-256\n")
    pod.write("pcp", "a new pcp % password")
    pod.write("check_user", APP_ROLE)
    pod.write_user("another", "an other % password")
    changed = ["pcp.conf", "pgpool.conf", "pool_hba.conf", "pool_passwd", "tls.crt", "tls.key"]
    assert once(pod, 1)["changed"] == changed


def test_a_random_pcp_password_is_no_difference(pod: Pod) -> None:
    assert boot_once(pod) != boot_once(pod)
    assert once(pod, 0)["changed"] == []


def test_an_unusable_secret_is_told_and_changes_nothing(pod: Pod, secret: SecretVolume) -> None:
    boot_once(pod)
    before = pod.fingerprint()
    secret.write({"username": APP_ROLE.encode(), "password": b"two %\nlines"})
    result = run_sidecar(pod)
    assert result.returncode == 78
    assert "contains a newline" in result.stderr
    assert result.stdout == ""
    assert pod.fingerprint() == before


def test_a_damaged_generation_differs(pod: Pod) -> None:
    live = boot_once(pod)
    (pod.generation / "pool_hba.conf").unlink()
    (pod.generation / "extra").write_text("x")
    assert once(pod, 1) == {"live": live, "desired": live, "changed": ["extra", "pool_hba.conf"]}
    boot_once(pod)
    assert once(pod, 0)["changed"] == []


def test_before_the_first_boot_it_says_so(pod: Pod) -> None:
    for directory in (pod.run_dir, Path("/nowhere")):
        result = run_sidecar(pod, PGPOOL_RUN_DIR=str(directory))
        assert result.returncode == 73
        assert f"holds no booted configuration: {directory}/inputs.json does not exist\n" in result.stderr


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff"])
def test_inputs_that_are_not_ours_are_refused(pod: Pod, content: bytes) -> None:
    (pod.run_dir / "inputs.json").write_bytes(content)
    result = run_sidecar(pod)
    assert result.returncode == 73
    assert "holds no booted configuration" in result.stderr


def test_a_pgpool_it_does_not_know_is_refused(pod: Pod) -> None:
    boot_once(pod)
    inputs = pod.run_dir / "inputs.json"
    inputs.write_text(inputs.read_text().replace('"pgpool": "4.6.', '"pgpool": "3.7.'))
    result = run_sidecar(pod)
    assert result.returncode == 126
    assert "pgpool 3.7" in result.stderr


def test_a_withheld_secret_is_to_be_given_to_the_sidecar_too(pod: Pod) -> None:
    pod.environment["PGPOOL_PCP_PASSWORD"] = "a pcp % password"
    boot_once(pod)
    assert json.loads((pod.run_dir / "inputs.json").read_text())["withheld"] == ["PGPOOL_PCP_PASSWORD"]
    assert once(pod, 0, PGPOOL_PCP_PASSWORD="a pcp % password")["changed"] == []


# --- a pass that acts -----------------------------------------------------------------------------------------------


def start_pass(pod: Pod, **changes: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*sidecar_command(), "--once"],
        env=complete_environment({"PGPOOL_RUN_DIR": str(pod.run_dir), **changes}, pod.pgpool_bin),
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish_pass(process: subprocess.Popen[str], code: int) -> dict[str, Any]:
    out, log = process.communicate(timeout=60)
    assert process.returncode == code, out + log
    assert FORMER not in out + log
    assert ROTATED not in out + log
    document: dict[str, Any] = json.loads(out)
    return document


def one_pass(pod: Pod, code: int, **changes: str) -> dict[str, Any]:
    return finish_pass(start_pass(pod, **changes), code)


@pytest.fixture
def role(pod: Pod, create_role: CreateRole) -> Role:
    """Whose password a test rotates."""
    role = create_role(password=FORMER)
    pod.write_user(*role)
    return role


@pytest.fixture
def pgpool(pod: Pod, role: Role) -> Iterator[Pgpool]:
    with pod.pgpool(PGPOOL_PARAMS_NUM_INIT_CHILDREN="6") as pgpool:
        pgpool.wait_until_login(*role)
        yield pgpool


def test_a_pass_over_what_is_in_sync_proves_it_and_changes_nothing(pod: Pod, pgpool: Pgpool) -> None:
    live = pod.generation.name
    for _ in range(2):
        status = one_pass(pod, 0)
        assert status["state"] == "in_sync"
        assert status["desired"] == status["applied"] == status["verified"] == live[:12]
        assert pod.generation.name == live


def test_a_pass_applies_and_proves_a_rotated_secret(
    pod: Pod, postgres: PostgresServer, role: Role, pgpool: Pgpool
) -> None:
    one_pass(pod, 0)
    before = pod.generation.name
    postgres.alter_password(role.name, ROTATED)
    pod.write_user(role.name, ROTATED)
    status = one_pass(pod, 0)
    assert status["state"] == "in_sync"
    assert status["verified"] == pod.generation.name[:12] != before[:12]
    assert {pgpool.can_log_in(role.name, ROTATED) for _ in range(12)} == {True}
    assert not pgpool.can_log_in(role.name, FORMER)
    assert once(pod, 0)["changed"] == []


def test_a_pass_leaves_the_status_file_to_the_sidecar_that_runs(scene: Scene) -> None:
    status = scene.pod.run_dir / "status.json"
    before = status.read_text(), status.stat().st_mtime_ns
    pass_ = one_pass(scene.pod, 0)
    assert pass_["state"] == "in_sync"
    assert (status.read_text(), status.stat().st_mtime_ns) == before
    assert scene.sidecar.stop() == 0
    status.unlink()
    assert one_pass(scene.pod, 0)["state"] == "in_sync"
    assert not status.exists()


def test_a_pass_publishes_nothing_that_postgresql_does_not_accept(pod: Pod, role: Role, pgpool: Pgpool) -> None:
    one_pass(pod, 0)
    before = pod.generation.name
    pod.write_user(role.name, ROTATED)
    status = one_pass(pod, 1)
    assert status["state"] == "pending"
    assert list(status["held"]) == [role.name]
    assert pod.generation.name == before
    assert pgpool.can_log_in(role.name, FORMER)


def test_a_pass_over_unusable_secrets_says_why(pod: Pod, role: Role, pgpool: Pgpool) -> None:
    before = pod.generation.name
    pod.write_user(role.name, f"{ROTATED}\ntwo lines")
    status = one_pass(pod, 1)
    assert status["state"] == "invalid"
    assert "contains a newline" in status["reason"]
    assert role.name in status["reason"]
    assert pod.generation.name == before
    assert pgpool.can_log_in(role.name, FORMER)


def test_a_pass_without_a_boot_has_nothing_to_do(pod: Pod) -> None:
    for directory in (pod.run_dir, Path("/nowhere")):
        process = start_pass(pod, PGPOOL_RUN_DIR=str(directory))
        out, log = process.communicate(timeout=30)
        assert process.returncode == 73, log
        assert out == ""
        assert "pgpool-entrypoint has not booted here" in log


def test_a_pass_beside_a_pgpool_that_is_gone_proves_nothing(pod: Pod, role: Role, pgpool: Pgpool) -> None:
    one_pass(pod, 0)
    pgpool.stop()
    status = one_pass(pod, 1)
    assert status["reason"] == "the check role cannot log in through pgpool: not reachable"
    assert status["state"] == "degraded"
    with pod.pgpool() as again:
        again.wait_until_login(*role)
        assert one_pass(pod, 0)["state"] == "in_sync"


def test_a_pass_waits_for_a_pgpool_that_is_just_starting(pod: Pod, role: Role) -> None:
    with pod.pgpool() as pgpool:
        wait_until((pod.run_dir / "booted").is_symlink, timeout=10, failure=lambda: pgpool.log)
        assert one_pass(pod, 0)["state"] == "in_sync"


def test_a_pass_tells_of_a_restart_that_is_needed(pod: Pod, role: Role) -> None:
    authority = Authority()
    directory = authority.issue().write(pod.directory / "tls")
    with pod.pgpool(PGPOOL_TLS_DIR=str(directory)) as pgpool:
        pgpool.wait_until_login(*role)
        one_pass(pod, 0)
        authority.issue(valid_for=timedelta(days=60)).write(directory)
        status = one_pass(pod, 1, PGPOOL_SIDECAR_RESTART="never")
        assert status["restart"] == {"required_by": ["tls.crt", "tls.key"], "policy": "never", "in_seconds": None}
        pgpool.assert_running()


def test_passes_and_a_running_sidecar_take_turns(scene: Scene) -> None:
    live: Mapping[str, Any] = {}
    for password in ("a second % password", "a third % password"):
        scene.rotate(password)
        begin = time.monotonic()
        for process in [start_pass(scene.pod) for _ in range(2)]:
            live = finish_pass(process, 0)
            assert live["state"] == "in_sync"
        assert time.monotonic() - begin < 45
        scene.wait_in_sync()
        assert scene.wanted() == scene.pod.generation.name
        assert scene.logins(password) == {True}
    assert live["verified"] == scene.pod.generation.name[:12]
    assert [event for event in scene.sidecar.events if event["level"] == "error"] == []
