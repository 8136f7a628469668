"""The example for people without Kubernetes."""

import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.conftest import DEPLOY
from entrypoint import settings
from entrypoint.catalogue import load_catalogue
from entrypoint.model import MadeUp
from entrypoint.pipeline import resolve
from entrypoint.secret import Secret

COMPOSE = DEPLOY / "compose"
DOCUMENT: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
SERVICES, VOLUMES = DOCUMENT["services"], DOCUMENT["volumes"]
ROLES = {"sr_check", "n8n"}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy, with its secrets made."""
    copy = shutil.copytree(COMPOSE, tmp_path / "compose", ignore=shutil.ignore_patterns("secrets"))
    subprocess.run(["bash", "-c", 'umask 077; exec "$0"', copy / "make-secrets"], check=True)
    return copy


def test_it_is_a_compose_file() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    result = subprocess.run([*check, COMPOSE / "compose.yaml"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_both_programs_have_one_image_the_same_settings_and_mounts() -> None:
    pgpool, sidecar = SERVICES["pgpool"], SERVICES["sidecar"]
    for key in ("image", "environment", "volumes", "read_only", "cap_drop", "security_opt"):
        assert pgpool[key] == sidecar[key]
    assert sidecar["command"] == ["pgpool-sidecar"]


def test_podman_and_podman_compose_of_debian_12_take_it() -> None:
    """They know sysctls as a list alone, and take the size of a volume in memory for a quota; found by running them."""
    assert SERVICES["pgpool"]["sysctls"] == ["kernel.shm_rmid_forced=1"]
    assert "size=" not in VOLUMES["run"]["driver_opts"]["o"]


def test_the_entrypoint_takes_it_as_it_is(example: Path) -> None:
    (example / "run").mkdir()
    mounts = [volume.split(":") for volume in SERVICES["pgpool"]["volumes"]]

    def on_this_machine(value: str) -> str:
        for source, target, *_ in mounts:
            if value.startswith(target):
                return f"{example / source}{value.removeprefix(target)}"
        return value

    defaults = {each.name: str(each.default) for each in (settings.USERS_DIR, settings.RUN_DIR)}
    env = {name: on_this_machine(value) for name, value in (defaults | SERVICES["pgpool"]["environment"]).items()}
    made_up = MadeUp(Secret("made up"), Secret("made up, too"))
    resolved = resolve(env, load_catalogue("4.6"), made_up=made_up, now=datetime.now(UTC))
    assert {credential.role for credential in resolved.model.credentials} == ROLES
    assert resolved.model.key is not None
    assert list(resolved.model.warnings) == []


def test_postgresql_is_told_the_same_roles() -> None:
    statements = (COMPOSE / "roles.sql").read_text()
    assert all(f"CREATE ROLE {role} LOGIN PASSWORD :'{role}'" in statements for role in ROLES)
    assert "GRANT pg_monitor TO sr_check" in statements


def test_secrets_are_made_up_once_and_hidden_from_other_users(example: Path) -> None:
    files = {path: path.read_text() for path in (example / "secrets").rglob("*") if path.is_file()}
    assert {path.name for path in files} == ROLES | {"postgres", "aes.key"}
    assert len(set(files.values())) == len(files)
    assert (example / "secrets").stat().st_mode & 0o077 == 0
    for path in (example / "secrets").rglob("*"):
        assert path.stat().st_mode & 0o044 == 0o044, "once past that, the user of the containers reads it"
    subprocess.run([example / "make-secrets"], check=True)
    assert {path: path.read_text() for path in files} == files
