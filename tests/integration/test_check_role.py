"""The role that pgpool itself logs in with."""

from datetime import UTC, datetime

import pytest

from entrypoint.pcp import PcpAnswer, run_pcp
from entrypoint.publish import publish
from entrypoint.render import render
from integration.conftest import CreateRole
from sidecar.desired import read_desired
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE, Pod
from support.postgres import PostgresServer

UNDEFINED_NODE = "127"
"""Attaching a node that is not defined makes pgpool's main process look for the primary again."""


@pytest.mark.parametrize("encrypted", [True, False], ids=["key", "no key"])
def test_a_reload_gives_the_rotated_check_password_to_pgpools_main_process(
    pod: Pod, postgres: PostgresServer, create_role: CreateRole, *, encrypted: bool
) -> None:
    """Main opens pool_passwd once, at start: were the password only there, main would find no primary any more."""
    role = create_role(monitor=True)
    pod.environment |= {"PGPOOL_CHECK_USER": role.name, "PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT": "2"}
    pod.write_user(role.name, role.password)
    if encrypted:
        pod.encrypt()
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        wait_until(
            lambda: "primary primary" in pcp(pod, "pcp_node_info", "-a").output,
            timeout=20,
            failure=lambda: pgpool.log,
        )

        rotated = "the rotated % password"
        postgres.alter_password(role.name, rotated)
        pod.write_user(role.name, rotated)
        publish(render(read_desired(pod.run_dir, {}, datetime.now(UTC)).resolved.model), pod.run_dir)
        assert "Successful" in pcp(pod, "pcp_reload_config").output
        pgpool.wait_until_logged("reload config files", timeout=10)
        assert "Successful" in pcp(pod, "pcp_attach_node", "-n", UNDEFINED_NODE).output

        pgpool.wait_until_logged("failover: set new primary node: 0", timeout=10)
        assert "failed to find primary node" not in pgpool.log


def pcp(pod: Pod, tool: str, *arguments: str) -> PcpAnswer:
    return run_pcp(tool, arguments, pod.pcp_address(), {"PATH": str(pod.pgpool_bin)}, seconds=10)
