"""Variants of what a boot would publish: roles held back, and another key."""

from dataclasses import replace
from pathlib import Path

import pytest

from entrypoint import boot, pipeline
from entrypoint.credentials import aes_decrypter
from entrypoint.errors import ConfigurationError
from entrypoint.program import Program
from entrypoint.publish import publish
from entrypoint.secret import Secret
from sidecar.desired import Desired, read_desired
from unit.conftest import Site

KEY = "key 100%"


@pytest.fixture(params=[None, KEY], ids=["no key", "key"])
def desired(site: Site, request: pytest.FixtureRequest) -> Desired:
    """Booted, with a key for pool_passwd and without."""
    if request.param is not None:
        site.env["PGPOOLKEYFILE"] = str(site.file("key", f"{request.param}\n"))
    site.user("n8n", "no\u00a0break ﬁ 100%")
    resolved, tree = pipeline.prepare(site.env, None, site.now, to_run=True)
    publish(tree, site.run_dir)
    installed = Program(Path("/opt/pgpool"), "4.6.1")
    boot._write_inputs(site.env, resolved.settings, resolved.model, installed)  # noqa: SLF001
    return read_desired(site.run_dir, {}, site.now)


def test_a_role_that_is_held_back_is_rendered_as_if_it_were_in_the_secrets(site: Site, desired: Desired) -> None:
    key = desired.resolved.model.key
    passwords = {**desired.roles.passwords, "n8n": Secret("the old one 100%"), "gone": Secret("still % here")}
    held = desired.tree(replace(desired.roles, passwords=passwords), key)
    assert held != desired.tree(desired.roles, key)
    site.user("n8n", "the old one 100%")
    site.user("gone", "still % here")
    now = read_desired(site.run_dir, {}, site.now)
    assert held == now.tree(now.roles, key)


def test_the_roles_are_as_pgpool_has_them(desired: Desired) -> None:
    assert desired.roles.passwords == {"n8n": Secret("no break fi 100%"), "sr_check": Secret("check pass 100%")}
    assert desired.roles.check_user == "sr_check"


def test_another_check_role_is_rendered_as_if_it_were_set(desired: Desired) -> None:
    key = desired.resolved.model.key
    conf = desired.tree(replace(desired.roles, check_user="n8n"), key).files["pgpool.conf"].decode()
    entry = conf.partition("sr_check_password = '")[2].partition("'")[0]
    used = key or desired.made_up.check_key
    assert "sr_check_user = 'n8n'\n" in conf
    assert used is not None
    assert aes_decrypter(used.reveal())(entry) == "no break fi 100%"


def test_pool_passwd_can_be_encrypted_with_the_key_that_pgpool_runs_with(desired: Desired) -> None:
    running = "the key % of the boot"
    entries = desired.tree(desired.roles, Secret(running)).files["pool_passwd"].decode()
    passwords = {line.partition(":")[0]: line.partition(":")[2] for line in entries.splitlines()}
    assert {role: aes_decrypter(running)(entry) for role, entry in passwords.items()} == {
        "n8n": "no break fi 100%",
        "sr_check": "check pass 100%",
    }


def test_a_combination_that_breaks_a_rule_is_refused(desired: Desired) -> None:
    without = {role: password for role, password in desired.roles.passwords.items() if role != "sr_check"}
    with pytest.raises(ConfigurationError, match="the role 'sr_check' has no password"):
        desired.tree(replace(desired.roles, passwords=without), desired.resolved.model.key)
