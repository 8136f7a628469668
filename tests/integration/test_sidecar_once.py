"""The sidecar's one pass tells whether what is live is what a boot at this moment would publish."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_ROLE, Pod, run_sidecar
from support.secret_volume import SecretVolume


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
        assert "holds no booted configuration" in result.stderr


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
