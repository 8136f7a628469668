"""What Patroni and PostgreSQL are told fits what the pods are."""

from typing import Any

import yaml

from deploy.conftest import DEPLOY, container, one, pod_of

DYNAMIC: dict[str, Any] = yaml.safe_load((DEPLOY / "patroni/dynamic.yaml").read_text())
HOLD_SECONDS = 30
"""How long pgpool holds a client (docs/nodes.md)."""


def test_the_lock_outlives_a_loop_with_two_retries_and_clients_are_held_until_it_is_lost() -> None:
    """The first is a rule of Patroni's, without which it changes the numbers on its own."""
    longest = DYNAMIC["loop_wait"] + 2 * DYNAMIC["retry_timeout"]
    assert longest <= DYNAMIC["ttl"] < HOLD_SECONDS


def test_a_pod_stays_in_the_service_for_as_long_as_clients_are_held() -> None:
    readiness = container(pod_of("base"), "pgpool")["readinessProbe"]
    assert HOLD_SECONDS < readiness["periodSeconds"] * (readiness["failureThreshold"] - 1) <= HOLD_SECONDS + 5


def test_pg_hba_lets_in_each_role_of_the_pods_by_scram_alone() -> None:
    lines = [line.split() for line in (DEPLOY / "patroni/pg_hba.conf").read_text().splitlines() if line[0] != "#"]
    (users,) = (each for each in pod_of("base")["volumes"] if each["name"] == "users")
    roles = {item["path"] for source in users["projected"]["sources"] for item in source["secret"]["items"]}
    assert {role for _, _, role, _, _ in lines} == roles
    assert {method for _, _, _, _, method in lines} == {"scram-sha-256"}


def test_patroni_and_the_network_agree_on_where_patroni_answers() -> None:
    settings = one("base", "ConfigMap", "pgpool-settings")["data"]
    ports = {port["port"] for port in one("base", "NetworkPolicy")["spec"]["egress"][0]["ports"]}
    assert settings["PGPOOL_PATRONI"] == "on"
    assert 8008 in ports
