"""The way to PCP while its password rotates."""

from pathlib import Path

import pytest

from entrypoint.publish import publish
from entrypoint.tree import Tree
from sidecar.access import Access
from sidecar.pcp import PcpError
from unit.conftest import Site
from unit.test_drift import boot_there

FIRST, SECOND, THIRD = "pcp pass 1%", "pcp pass 2%", "pcp pass 3%"


@pytest.fixture
def pcp(site: Site) -> Path:
    return site.file("pcp", f"{FIRST}\n")


def published(site: Site, pcp: Path) -> Tree:
    """A boot with what the Secret says: all that is of interest here is pcp.conf."""
    return boot_there(site, PGPOOL_PCP_PASSWORD_FILE=str(pcp))


def password(access: Access) -> str:
    return access().password.reveal()


def test_before_a_boot_pcp_is_away(site: Site) -> None:
    with pytest.raises(PcpError) as raised:
        Access(site.run_dir, {})()
    assert raised.value.away


def test_the_address_is_what_boot_wrote_down(site: Site, pcp: Path) -> None:
    site.env["PGPOOL_PARAMS_PCP_PORT"] = "9897"
    site.env["PGPOOL_PCP_USER"] = "admin"
    published(site, pcp)
    address = Access(site.run_dir, {})()
    assert (address.socket_dir, address.port, address.user) == (site.run_dir, 9897, "admin")
    assert address.password.reveal() == FIRST


def test_a_password_that_boot_made_up_is_found(site: Site) -> None:
    boot_there(site)
    assert password(Access(site.run_dir, {})) == (site.run_dir / "pcp_password").read_text()


def test_a_password_in_a_variable_is_taken_from_the_sidecars_own(site: Site) -> None:
    boot_there(site, PGPOOL_PCP_PASSWORD=FIRST)
    assert password(Access(site.run_dir, {"PGPOOL_PCP_PASSWORD": FIRST})) == FIRST


def test_until_a_new_password_is_published_the_former_one_is_right(site: Site, pcp: Path) -> None:
    published(site, pcp)
    access = Access(site.run_dir, {})
    assert password(access) == FIRST
    pcp.write_text(f"{SECOND}\n")
    assert password(access) == FIRST
    published(site, pcp)
    assert password(access) == SECOND


def test_after_a_new_password_was_put_back_the_former_one_is_right_again(site: Site, pcp: Path) -> None:
    first = published(site, pcp)
    access = Access(site.run_dir, {})
    assert password(access) == FIRST
    for following in (SECOND, THIRD):
        pcp.write_text(f"{following}\n")
        published(site, pcp)
        assert password(access) == following
    publish(first, site.run_dir)
    assert password(access) == FIRST
    assert password(access) == FIRST


def test_a_new_sidecar_that_cannot_know_the_former_one_tries_the_secrets(site: Site, pcp: Path) -> None:
    published(site, pcp)
    pcp.write_text(f"{SECOND}\n")
    assert password(Access(site.run_dir, {})) == SECOND
