"""The sidecar renders what a boot would."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

import sidecar.__main__ as program
from entrypoint import boot, pipeline
from entrypoint.errors import ConfigurationError, ProgramUnusableError
from entrypoint.inputs import CHECK_KEY, INPUTS, PCP_PASSWORD, read_inputs
from entrypoint.program import Program
from entrypoint.publish import publish
from entrypoint.render import render
from entrypoint.tree import Tree
from sidecar.desired import read_desired
from sidecar.drift import compare
from support.certificates import Authority
from support.secret_volume import SecretVolume
from unit.conftest import NOW, Site

PCP = "pcp pass 100%"
WATCHDOG = "watchdog pass 100%"


def boot_there(site: Site, **env: str) -> Tree:
    """All that a boot does before it becomes pgpool."""
    site.env |= env
    resolved, tree = pipeline.prepare(site.env, None, site.now, to_run=True)
    publish(tree, site.run_dir)
    installed = Program(Path("/opt/pgpool"), "4.6.1")
    boot._write_inputs(site.env, resolved.settings, resolved.model, installed)  # noqa: SLF001
    return tree


def sidecars(site: Site, env: Mapping[str, str] | None = None) -> Tree:
    desired = read_desired(site.run_dir, env or {}, site.now)
    tree = render(desired.resolved.model)
    assert desired.tree(desired.roles, desired.resolved.model.key) == tree
    return tree


def key(site: Site) -> dict[str, str]:
    return {"PGPOOLKEYFILE": str(site.file("key", "key 100%\n"))}


def pcp_file(site: Site) -> dict[str, str]:
    return {"PGPOOL_PCP_PASSWORD_FILE": str(site.file("pcp", f"{PCP}\n"))}


def hba(site: Site) -> dict[str, str]:
    return {"PGPOOL_HBA_FILE": str(site.file("hba", "# ours\nhost all all 10.0.0.0/8 scram-sha-256\n\n"))}


def certificate(site: Site) -> dict[str, str]:
    SecretVolume(site.root / "tls").write(Authority().issue().files())
    return {"PGPOOL_TLS_DIR": f"{site.root}/tls"}


def secret_volumes(site: Site) -> dict[str, str]:
    SecretVolume(site.users / "check").write({"username": b"check user", "password": b"check pass 1%\n"})
    return {"PGPOOL_CHECK_USER_FILE": f"{site.users}/check/username"}


def backends_file(site: Site) -> dict[str, str]:
    backends = site.env.pop("PGPOOL_BACKENDS")
    return {"PGPOOL_BACKENDS_FILE": str(site.file("backends", backends.replace(",", "\n") + "\n"))}


def parameters(_: Site) -> dict[str, str]:
    return {
        "PGPOOL_PARAMS_FAILOVER_COMMAND": 'my "pool" ü 100%',
        "PGPOOL_PARAMS_max_pool": "2",
        "PGPOOL_PCP_USER": "admin",
    }


def service_links(_: Site) -> dict[str, str]:
    return {"PGPOOL_PORT": "tcp://10.96.0.7:9999", "PGPOOL_SERVICE_HOST": "10.96.0.7"}


@pytest.mark.parametrize(
    "inputs",
    [
        lambda _: {},
        key,
        pcp_file,
        hba,
        certificate,
        secret_volumes,
        backends_file,
        parameters,
        service_links,
        lambda site: {**key(site), **hba(site), **parameters(site), **pcp_file(site)},
    ],
)
def test_for_the_same_inputs_the_sidecars_tree_is_byte_identical_to_boots(
    site: Site, inputs: Callable[[Site], dict[str, str]]
) -> None:
    more = inputs(site)
    if "PGPOOL_TLS_DIR" in more:  # the certificate was issued just now
        site.now = NOW.now(NOW.tzinfo)
    tree = boot_there(site, **more)
    assert sidecars(site) == tree
    drift = compare(sidecars(site), site.run_dir)
    assert (drift.live, drift.desired, drift.changed) == (tree.digest, tree.digest, ())


def test_secrets_in_variables_are_given_to_the_sidecar_too(site: Site) -> None:
    secrets = {"PGPOOL_PCP_PASSWORD": PCP, "PGPOOL_PARAMS_WD_AUTHKEY": WATCHDOG}
    tree = boot_there(site, **secrets)
    assert sidecars(site, secrets) == tree
    assert PCP not in (site.run_dir / INPUTS).read_text()
    assert WATCHDOG not in (site.run_dir / INPUTS).read_text()
    assert not (site.run_dir / PCP_PASSWORD).exists()


def test_the_sidecars_own_environment_counts_for_nothing_else(site: Site) -> None:
    tree = boot_there(site)
    env = {"PGPOOL_PARAMS_PORT": "5555", "PGPOOL_BACKENDS": "other=h", "PGPOOL_PCP_PASSWORD": PCP, "PGPOOL_NOPE": "1"}
    assert sidecars(site, env) == tree


def test_a_boot_with_a_given_password_forgets_the_one_it_made(site: Site) -> None:
    boot_there(site)
    assert (site.run_dir / PCP_PASSWORD).exists()
    boot_there(site, PGPOOL_PCP_PASSWORD=PCP)
    assert not (site.run_dir / PCP_PASSWORD).exists()


def test_a_boot_with_a_given_key_forgets_the_one_it_made(site: Site) -> None:
    boot_there(site)
    made = site.run_dir / CHECK_KEY
    assert len(made.read_text()) == 48
    assert made.stat().st_mode & 0o777 == 0o600
    before = made.read_text()
    tree = boot_there(site)
    assert made.read_text() != before
    assert sidecars(site) == tree
    tree = boot_there(site, **key(site))
    assert not made.exists()
    assert sidecars(site) == tree


def test_a_rotated_password_changes_pool_passwd_and_the_marker_of_its_generation(site: Site) -> None:
    tree = boot_there(site)
    site.user("n8n", "rotated pass 100%")
    drift = compare(sidecars(site), site.run_dir)
    assert drift.changed == ("pgpool.conf", "pool_passwd")
    assert drift.live == tree.digest != drift.desired


def test_a_rotated_check_user_changes_pgpool_conf_too(site: Site) -> None:
    boot_there(site, **secret_volumes(site))
    SecretVolume(site.users / "check").write({"username": b"check two", "password": b"check pass 2%\n"})
    assert compare(sidecars(site), site.run_dir).changed == ("pgpool.conf", "pool_passwd")


def test_files_that_come_or_go_are_changes(site: Site) -> None:
    site.now = NOW.now(NOW.tzinfo)
    tree = boot_there(site, **certificate(site))
    SecretVolume(site.root / "tls").write(Authority().issue().files(with_authority=False))
    assert compare(sidecars(site), site.run_dir).changed == ("ca.crt", "pgpool.conf", "tls.crt", "tls.key")
    more = Tree({**tree.files, "new": b""})
    assert compare(more, site.run_dir).changed == ("new",)


def test_a_secret_that_is_unusable_now_is_told(site: Site) -> None:
    boot_there(site)
    site.user("n8n", "pass\n100 %")
    with pytest.raises(ConfigurationError) as raised:
        sidecars(site)
    assert "100 %" not in str(raised.value)


def test_a_secret_that_only_boot_was_given_is_told(site: Site) -> None:
    boot_there(site, PGPOOL_PCP_PASSWORD=PCP, PGPOOL_PARAMS_WD_AUTHKEY=WATCHDOG)
    with pytest.raises(ConfigurationError) as raised:
        sidecars(site, {"PGPOOL_PCP_PASSWORD": PCP})
    (problem,) = raised.value.problems
    assert (problem.setting, problem.what) == (
        "PGPOOL_PARAMS_WD_AUTHKEY",
        "was given to pgpool-entrypoint, but not to this program",
    )


def test_boot_writes_down_what_a_probe_must_know(site: Site) -> None:
    boot_there(site, PGPOOL_PARAMS_PORT="5555", PGPOOL_PCP_USER_FILE=str(site.file("user", "admin\n")))
    inputs = read_inputs(site.run_dir)
    assert (inputs.port, inputs.pcp_port, inputs.pcp_user) == (5555, 9898, "admin")


# --- the command line -----------------------------------------------------------------------------------------------


def test_one_pass_prints_the_difference(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    tree = boot_there(site)
    env = {"PGPOOL_RUN_DIR": str(site.run_dir)}
    assert program.run(["--once", "--dry-run"], env) == 0
    assert json.loads(capsys.readouterr().out) == {"live": tree.digest, "desired": tree.digest, "changed": []}
    site.user("new role", "new pass 100%")
    assert program.run(["--once", "--dry-run"], env) == 1
    assert json.loads(capsys.readouterr().out)["changed"] == ["pgpool.conf", "pool_passwd"]


def test_the_run_directory_may_be_named_in_a_file(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    boot_there(site)
    assert (
        program.run(["--once", "--dry-run"], {"PGPOOL_RUN_DIR_FILE": str(site.file("run_dir", f"{site.run_dir}\n"))})
        == 0
    )
    assert json.loads(capsys.readouterr().out)["changed"] == []


@pytest.mark.parametrize("arguments", [["--nope"], ["--once", "x"], ["--dry-run"], ["status", "x"]])
def test_wrong_usage_ends_with_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        program.run(arguments, {})
    assert raised.value.code == 64
    assert capsys.readouterr().err.endswith("see pgpool-sidecar --help\n")


@pytest.mark.parametrize("state", ["nothing", "no inputs", "bad inputs", "nothing live"])
def test_without_a_boot_there_is_nothing_to_compare(site: Site, state: str) -> None:
    if state != "nothing":
        boot_there(site)
    if state == "no inputs":
        (site.run_dir / INPUTS).unlink()
    elif state == "bad inputs":
        (site.run_dir / INPUTS).write_bytes(b"{")
    elif state == "nothing live":
        (site.run_dir / "current").unlink()
    with pytest.raises(program.NotBootedError) as raised:
        program.run(["--once", "--dry-run"], {"PGPOOL_RUN_DIR": str(site.run_dir)})
    assert raised.value.exit_code == 73
    assert str(raised.value).startswith(f"{site.run_dir} holds no booted configuration: ")


def test_a_pgpool_that_this_sidecar_does_not_know_is_told(site: Site) -> None:
    boot_there(site)
    path = site.run_dir / INPUTS
    path.write_text(path.read_text().replace("4.6.1", "3.7.1"))
    with pytest.raises(ProgramUnusableError, match=r"pgpool 3\.7\.1 has other parameters"):
        program.run(["--once", "--dry-run"], {"PGPOOL_RUN_DIR": str(site.run_dir)})
