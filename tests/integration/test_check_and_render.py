"""`check` and `render` show and write what `run` would, and change nothing else."""

import json
import re
from datetime import timedelta
from pathlib import Path

import pytest

from support.certificates import Authority
from support.pgpool_process import run_entrypoint
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_ROLE, Pod

FILES = {"pgpool.conf", "pool_hba.conf", "pool_passwd", "pcp.conf"}


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.fixture
def full_pod(pod: Pod) -> Pod:
    """With something of everything that is rendered."""
    pod.encrypt()
    pod.write_basic_auth("other", "an other % role", "its % password")
    pod.environment |= {
        "PGPOOL_PCP_PASSWORD_FILE": str(pod.write("pcp", "a pcp % password\n")),
        "PGPOOL_TLS_DIR": str(Authority().issue().write(pod.directory / "tls")),
        "PGPOOL_HBA_FILE": str(pod.write("hba", "local all all scram-sha-256\nhostssl all all all scram-sha-256")),
        "PGPOOL_PARAMS_LOG_LINE_PREFIX": "%m % pod: ",
    }
    return pod


def test_render_writes_what_run_publishes(full_pod: Pod) -> None:
    target = full_pod.directory / "a new/directory"
    result = full_pod.run("render", "--to", str(target))
    assert result.returncode == 0, result.stderr
    with full_pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        assert contents(full_pod.generation) == contents(target)
    assert set(contents(target)) == {*FILES, "tls.crt", "tls.key", "ca.crt"}
    assert {file.stat().st_mode & 0o777 for file in target.iterdir()} == {0o600}


def test_only_a_random_pcp_password_differs(pod: Pod) -> None:
    for name in ("one", "two"):
        assert pod.run("render", "--to", str(pod.directory / name)).returncode == 0
    one, two = contents(pod.directory / "one"), contents(pod.directory / "two")
    assert set(one) == FILES
    assert {name for name in one if one[name] != two[name]} == {"pcp.conf", "pgpool.conf"}
    lines = one["pgpool.conf"].splitlines(), two["pgpool.conf"].splitlines()
    assert lines[0][:-1] == lines[1][:-1]
    assert [line[-1].startswith(b"syslog_ident = ") for line in lines] == [True, True]


def test_without_a_key_a_run_adds_the_check_roles_password_encrypted_with_a_made_up_one(pod: Pod) -> None:
    pod.environment["PGPOOL_PCP_PASSWORD_FILE"] = str(pod.write("pcp", "a pcp % password"))
    assert pod.run("render", "--to", str(pod.directory / "rendered")).returncode == 0
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        run, rendered = contents(pod.generation), contents(pod.directory / "rendered")
    assert {name for name in run if run[name] != rendered[name]} == {"pgpool.conf"}
    added = set(run["pgpool.conf"].splitlines()) - set(rendered["pgpool.conf"].splitlines())
    password, marker = sorted(added)
    assert password.startswith(b"sr_check_password = 'AES")
    assert marker.startswith(b"syslog_ident = 'generation-")


def test_render_replaces_what_was_there_and_nothing_else(pod: Pod) -> None:
    target = pod.directory / "rendered"
    target.mkdir()
    (target / "pool_passwd").write_text("old")
    (target / "pool_passwd").chmod(0o644)
    (target / "other").write_text("mine")
    assert pod.run("render", "--to", str(target)).returncode == 0
    assert (target / "pool_passwd").stat().st_mode & 0o777 == 0o600
    assert f"{APP_ROLE}:TEXT{APP_PASSWORD}\n" in (target / "pool_passwd").read_text()
    assert set(contents(target)) == {*FILES, "other"}
    assert not list(pod.run_dir.iterdir())


def test_render_into_a_directory_that_cannot_be_written_ends_with_73(pod: Pod) -> None:
    closed = pod.directory / "closed"
    closed.mkdir(mode=0o555)
    for target in (closed, closed / "below", pod.write("file", "x")):
        result = pod.run("render", "--to", str(target))
        assert result.returncode == 73
        assert str(target) in result.stderr


def test_render_and_check_need_no_pgpool(pod: Pod) -> None:
    environment = {**pod.environment, "PATH": "/nowhere"}
    checked = run_entrypoint(["check"], environment)
    assert checked.returncode == 0
    assert "no pgpool is installed here" in checked.stdout
    assert run_entrypoint(["render", "--to", str(pod.directory / "rendered")], environment).returncode == 0


def test_check_shows_settings_and_origins_and_changes_nothing(full_pod: Pod) -> None:
    result = full_pod.run("check")
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line]
    shown = {row[0]: row for row in rows}
    assert shown["PGPOOL_BACKENDS"][-1] == "(environment)"
    assert shown["PGPOOL_PCP_PASSWORD_FILE"][1:] == ["(secret)", f"({full_pod.directory}/pcp)"]
    assert ["role", CHECK_ROLE, "(secret)", f"({full_pod.users}/{CHECK_ROLE})"] in rows
    assert f"({full_pod.users}/other/password)" in result.stdout
    assert "pgpool 4." in result.stdout
    assert "accepts it" in result.stdout
    assert not list(full_pod.run_dir.iterdir())


def test_check_warns_of_a_certificate_that_expires(pod: Pod) -> None:

    directory = Authority().issue(valid_for=timedelta(hours=30)).write(pod.directory / "tls")
    assert "warning: " in (out := pod.run("check", PGPOOL_TLS_DIR=str(directory)).stdout)
    assert re.search(r"tls\.crt expires at \d{4}-\d\d-\d\d \d\d:\d\d UTC\n", out)


def test_settings_need_no_configuration_at_all() -> None:
    markdown = run_entrypoint(["settings"], {})
    assert markdown.returncode == 0
    assert "| `PGPOOL_BACKENDS` |" in markdown.stdout
    document = json.loads(run_entrypoint(["settings", "--format", "json"], {}).stdout)
    assert {each["name"] for each in document["settings"] if each["required"]} == {"PGPOOL_BACKENDS"}


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["--version"]], ids=" ".join)
def test_help_is_no_error(arguments: list[str]) -> None:
    result = run_entrypoint(arguments, {})
    assert result.returncode == 0
    assert "pgpool-entrypoint" in result.stdout
