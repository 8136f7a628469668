"""Which differences a reload cannot bridge, and when this pod's turn is."""

from itertools import pairwise

import pytest

from entrypoint.tree import Tree
from sidecar.restart import restart_reasons, turn_seconds
from support.certificates import Authority
from support.secret_volume import SecretVolume
from unit.conftest import NOW, Site


def reasons(site: Site, before: Tree, after: Tree) -> tuple[str, ...]:
    return restart_reasons(before, after, site.catalogue)


def test_nothing_changed_needs_no_restart(site: Site) -> None:
    assert reasons(site, site.tree(), site.tree()) == ()


def test_a_password_a_role_and_the_check_roles_password_need_none(site: Site) -> None:
    before = site.tree()
    site.user("n8n", "another 100%")
    site.user("sr_check", "another check 100%")
    site.user("grafana", "grafana 1%")
    assert reasons(site, before, site.tree()) == ()


def test_another_check_role_needs_none(site: Site) -> None:
    before = site.tree()
    assert reasons(site, before, site.tree(PGPOOL_CHECK_USER="n8n")) == ()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGPOOL_PARAMS_LOG_CONNECTIONS", "on"),
        ("PGPOOL_PARAMS_CLIENT_IDLE_LIMIT", "600"),
    ],
)
def test_a_parameter_that_pgpool_reloads_needs_none(site: Site, variable: str, value: str) -> None:
    assert reasons(site, site.tree(**{variable: "1"}), site.tree(**{variable: value})) == ()


@pytest.mark.parametrize(
    ("variable", "one", "two"),
    [
        ("PGPOOL_PARAMS_PORT", "5555", "6666"),
        ("PGPOOL_PARAMS_NUM_INIT_CHILDREN", "8", "16"),
        ("PGPOOL_PARAMS_MAX_POOL", "2", "3"),
    ],
)
def test_a_parameter_that_is_read_at_start_only_needs_one(site: Site, variable: str, one: str, two: str) -> None:
    name = variable.removeprefix("PGPOOL_PARAMS_").lower()
    assert reasons(site, site.tree(**{variable: one}), site.tree(**{variable: two})) == (name,)


def test_a_parameter_that_vanishes_needs_one_for_pgpool_keeps_its_value(site: Site) -> None:
    assert reasons(site, site.tree(PGPOOL_PARAMS_FAILOVER_COMMAND="a 100%"), site.tree()) == ("failover_command",)
    assert reasons(site, site.tree(), site.tree(PGPOOL_PARAMS_FAILOVER_COMMAND="a 100%")) == ()


def test_a_node_with_another_address_needs_one_and_another_weight_does_not(site: Site) -> None:
    site.env["PGPOOL_BACKENDS"] = "a=10.0.0.1,b=10.0.0.2"
    before = site.tree()
    assert reasons(site, before, site.tree(PGPOOL_BACKENDS="a=10.0.0.1,b=10.0.0.2?weight=3")) == ()
    assert reasons(site, before, site.tree(PGPOOL_BACKENDS="a=10.0.0.1,b=10.0.0.3:5433")) == (
        "backend_hostname1",
        "backend_port1",
    )
    assert "backend_hostname2" in reasons(site, before, site.tree(PGPOOL_BACKENDS="a=10.0.0.1,b=10.0.0.2,c=10.0.0.3"))
    assert "backend_hostname1" in reasons(site, before, site.tree(PGPOOL_BACKENDS="a=10.0.0.1"))


def test_a_flag_that_pgpool_never_takes_back_needs_one(site: Site) -> None:
    one, two = ({"PGPOOL_BACKENDS": f"a=10.0.0.1?flag={flag}"} for flag in ("ALWAYS_PRIMARY", "DISALLOW_TO_FAILOVER"))
    assert reasons(site, site.tree(**one), site.tree(**two)) == ("backend_flag0",)
    assert reasons(site, site.tree(**two), site.tree(**one)) == ()


def test_a_new_certificate_needs_one_and_each_file_is_named(site: Site) -> None:
    site.now = NOW.now(NOW.tzinfo)
    volume = SecretVolume(site.root / "tls")
    site.env["PGPOOL_TLS_DIR"] = str(volume.path)
    volume.write(Authority().issue().files())
    before = site.tree()
    volume.write(Authority().issue().files())
    assert reasons(site, before, site.tree()) == ("tls.crt", "tls.key", "ca.crt")
    volume.write(Authority().issue().files(with_authority=False))
    assert reasons(site, before, site.tree()) == ("tls.crt", "tls.key", "ca.crt", "ssl_ca_cert")


# --- this pod's turn -------------------------------------------------------------------------------------------------

HOSTS = [f"pgpool-7d9c8b6f5d-{number:05x}" for number in range(1000)]


def test_a_pods_turn_is_the_same_each_time() -> None:
    assert turn_seconds("pgpool-0", 60) == turn_seconds("pgpool-0", 60) == pytest.approx(39.633, abs=0.001)
    assert turn_seconds("pgpool-0", 600) == pytest.approx(10 * turn_seconds("pgpool-0", 60))


def test_turns_are_within_their_span() -> None:
    assert all(0 <= turn_seconds(host, 60) < 60 for host in HOSTS)
    assert {turn_seconds(host, 0) for host in HOSTS} == {0}


def test_turns_are_spread_evenly() -> None:
    tenths = [0] * 10
    for host in HOSTS:
        tenths[int(turn_seconds(host, 10))] += 1
    assert min(tenths) > 70
    assert max(tenths) < 130


def test_neighbours_have_turns_far_apart() -> None:
    three = sorted(turn_seconds(f"pgpool-{number}", 60) for number in range(3))
    assert min(after - before for before, after in pairwise(three)) > 1
