"""A real pgpool boots from other images' environments, and SCRAM logins work through it; the sidecar keeps up."""

import re
from pathlib import Path

import psycopg
import pytest

from integration.conftest import CreateRole
from support import foreign
from support.certificates import Authority
from support.deadline import wait_until
from support.foreign import Foreign
from support.oracle import parsed_settings, unrecognised_settings
from support.pgpool_process import Pgpool
from support.pod import NewPod, Pod
from support.postgres import SUPERUSER, SUPERUSER_PASSWORD, PostgresServer
from support.sidecar_process import Sidecar

ELSEWHERE = re.compile(r"backend_.*[0-9]|port|pcp_port|listen_addresses|pcp_listen_addresses")
"""What depends on where a test's servers are."""


def passwords(case: Foreign) -> dict[str, str]:
    """The roles of a case, with the password that the test's superuser has."""
    return {role: SUPERUSER_PASSWORD if role == SUPERUSER else password for role, password in case.roles.items()}


def placed(case: Foreign, pod: Pod, server: PostgresServer, create_role: CreateRole) -> Pod:
    """The pod, with the environment of the case: its first node, its roles; only addresses are the test's."""
    for role, password in passwords(case).items():
        if role != SUPERUSER:
            create_role(role, password, monitor=True)
    servers = re.compile(r"PGPOOL_(PARAMS_)?BACKEND_")
    env = {name: value for name, value in case.placed(pod.directory).items() if not servers.match(name)}
    here = {
        "PGPOOL_RUN_DIR": str(pod.run_dir),
        "PGPOOL_PARAMS_LISTEN_ADDRESSES": "127.0.0.1",
        "PGPOOL_PARAMS_PCP_LISTEN_ADDRESSES": "",
        "PGPOOL_PARAMS_PCP_PORT": str(pod.pcp_port),
    }
    if "PGPOOL_BACKEND_NODES" in case.environment:
        here |= {"PGPOOL_BACKEND_NODES": f"0:127.0.0.1:{server.port}", "PGPOOL_PORT_NUMBER": str(pod.port)}
    else:
        here |= {"PGPOOL_PARAMS_BACKEND_HOSTNAME0": "127.0.0.1", "PGPOOL_PARAMS_BACKEND_PORT0": str(server.port)}
        here |= {"PGPOOL_PARAMS_PORT": str(pod.port)}
        if "PGPOOL_PARAMS_BACKEND_FLAG0" in case.environment:
            here["PGPOOL_PARAMS_BACKEND_FLAG0"] = case.environment["PGPOOL_PARAMS_BACKEND_FLAG0"]
    mounted = pod.directory / "config/pgpool.conf"
    if mounted.exists():
        lines = [line for line in mounted.read_text().splitlines() if not ELSEWHERE.fullmatch(line.split(" = ")[0])]
        lines += [f"{name.removeprefix('PGPOOL_PARAMS_').lower()} = '{value}'" for name, value in here.items()][1:]
        mounted.write_text("\n".join(lines) + "\nbackend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'\n")
        here = {"PGPOOL_RUN_DIR": str(pod.run_dir)}
    if SUPERUSER in case.roles:
        for name in ("PGPOOL_POSTGRES_PASSWORD", "POSTGRES_PASSWORD"):
            if name in env:
                env[name] = SUPERUSER_PASSWORD
        if (file := pod.directory / "secrets/pgpool-password").exists():
            file.write_text(SUPERUSER_PASSWORD)
    pod.environment = {**env, **here}
    return pod


def started(pod: Pod) -> Pgpool:
    pgpool = pod.pgpool()
    pgpool.port = pod.port
    return pgpool


@pytest.mark.parametrize("name", foreign.ALL)
def test_pgpool_boots_with_it_as_it_is_and_its_roles_log_in_by_scram(
    new_pod: NewPod, postgres: PostgresServer, create_role: CreateRole, name: str
) -> None:
    case = foreign.ALL[name]
    pod = placed(case, new_pod(), postgres, create_role)
    with started(pod) as pgpool:
        for role, password in passwords(case).items():
            pgpool.wait_until_login(role, password, require_auth="scram-sha-256")
            with pytest.raises(psycopg.OperationalError, match="authentication failed"):
                pgpool.connect(role, f"{password}x")
        written = pod.generation / "pgpool.conf"
        read = parsed_settings(pod.pgpool_bin, written)
        assert unrecognised_settings(pod.pgpool_bin, written) == set()
        compared = {
            key: value.strip("'")
            for key, value in case.expected.items()
            if key not in foreign.DIFFERS and not ELSEWHERE.fullmatch(key)
        }
        assert {key: read.get(key) for key in compared} == compared
        for kind in ("live", "ready"):
            said = pod.run("probe", kind)
            assert said.returncode == 0, said.stdout
        for password in passwords(case).values():
            assert password not in pgpool.log


@pytest.mark.parametrize("image", ["bitnami", "official", *foreign.WITHOUT_CERTIFICATE])
def test_its_certificate_serves_and_whoever_comes_without_tls_is_refused(
    new_pod: NewPod, postgres: PostgresServer, create_role: CreateRole, image: str
) -> None:
    case = {"bitnami": foreign.COMPOSE, "official": foreign.OPERATOR, **foreign.WITHOUT_CERTIFICATE}[image]
    pod = placed(case, new_pod(), postgres, create_role)
    issued = Authority().issue().write(pod.directory / "config/tls")
    if image == "bitnami":
        certificate, key = (issued / name for name in ("server.pem", "server.key"))
        (issued / "tls.crt").rename(certificate)
        (issued / "tls.key").rename(key)
        pod.environment |= {"PGPOOL_TLS_CERT_FILE": str(certificate), "PGPOOL_TLS_KEY_FILE": str(key)}
        pod.environment["PGPOOL_ENABLE_TLS"] = "yes"
    else:
        pod.environment["PGPOOL_CONF_VOLUME"] = str(pod.directory / "config")
    role, password = next(iter(passwords(case).items()))
    with started(pod) as pgpool:
        pgpool.wait_until_login(role, password, sslmode="verify-ca", sslrootcert=str(issued / "ca.crt"))
        assert not pgpool.can_log_in(role, password, sslmode="disable")
        assert "clients without TLS are refused" in pgpool.log


def test_the_sidecar_rotates_a_password_that_bitnamis_chart_mounts_as_a_file(
    new_pod: NewPod, postgres: PostgresServer, create_role: CreateRole
) -> None:
    pod = placed(foreign.CHART, new_pod(), postgres, create_role)
    with started(pod) as pgpool, Sidecar(pod) as sidecar:
        sidecar.wait_until("in_sync")
        postgres.alter_password("repmgr", "another % one")
        (pod.directory / "secrets/sr-check-password").write_text("another % one\n")
        pgpool.wait_until_login("repmgr", "another % one")
        sidecar.wait_until("in_sync")
        assert not pgpool.can_log_in("repmgr", foreign.CHART.roles["repmgr"])


def test_the_sidecar_of_passwords_in_variables_wants_the_same_ones(
    new_pod: NewPod, postgres: PostgresServer, create_role: CreateRole
) -> None:
    pod = placed(foreign.OPERATOR, new_pod(), postgres, create_role)
    with started(pod) as pgpool:
        pgpool.wait_until_login("my_app", foreign.OPERATOR.roles["my_app"])
        secrets = {name: value for name, value in pod.environment.items() if name.endswith("_PASSWORD")}
        with Sidecar(pod, **secrets) as sidecar:
            sidecar.wait_until("in_sync")
        with Sidecar(pod) as sidecar:
            wait_until(
                lambda: "was given to pgpool-entrypoint, but not to this program" in sidecar.log,
                timeout=20,
                failure=lambda: sidecar.log,
            )


def test_a_certificate_that_is_made_up_stays_until_the_next_boot_whatever_rotates(
    new_pod: NewPod, postgres: PostgresServer, create_role: CreateRole
) -> None:
    pod = placed(foreign.OPERATOR, new_pod(), postgres, create_role)
    (file := pod.directory / "my_app").write_text(password := pod.environment.pop("MY_APP_PASSWORD"))
    pod.environment |= {"MY_APP_PASSWORD_FILE": str(file), "PGPOOL_PARAMS_SSL": "on"}
    secrets = {name: value for name, value in pod.environment.items() if name.endswith("_PASSWORD")}
    certificates = set()
    for new in ("another % one", "yet % another"):
        with started(pod) as pgpool, Sidecar(pod, **secrets) as sidecar:
            pgpool.wait_until_login("my_app", password, sslmode="require")
            assert "one is made up at each boot" in pgpool.log
            assert not pgpool.can_log_in("my_app", password, sslmode="disable")
            sidecar.wait_until("in_sync")
            certificate, before = (pod.generation / "tls.crt").read_bytes(), pod.generation.resolve()
            postgres.alter_password("my_app", new)
            file.write_text(new)
            pgpool.wait_until_login("my_app", new, sslmode="require")
            sidecar.wait_until("in_sync")
            assert pod.generation.resolve() != before
            assert (pod.generation / "tls.crt").read_bytes() == certificate
            assert pod.run("check").returncode == 0
            certificates.add(certificate)
            password = new
    assert len(certificates) == 2


def test_a_contradiction_starts_nothing(new_pod: NewPod) -> None:
    pod = new_pod()
    said = pod.run(PGPOOL_BACKEND_NODES="0:127.0.0.1")
    assert said.returncode == 78
    assert "ways of different images" in said.stderr
    assert not list(Path(pod.run_dir).iterdir())
