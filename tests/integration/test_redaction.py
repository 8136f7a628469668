"""A secret appears where pgpool reads it from, and nowhere else."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support import proc
from support.certificates import Authority
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, NewPod, Pod, run_sidecar
from support.postgres import PostgresServer

ROLE, ROLE_PASSWORD = "sentinel role", "sentinel % of-the-role"
MONITOR, MONITOR_PASSWORD = "sentinel check", "sentinel % of-the-check-role"
PCP_PASSWORD = "sentinel % of-pcp"
KEY = "sentinel % of-the-key"

SENTINELS = {
    "role's password": ROLE_PASSWORD,
    "check role's password": MONITOR_PASSWORD,
    "PCP password": PCP_PASSWORD,
    "key": KEY,
}


@dataclass(frozen=True)
class Scene:
    """A pgpool at work, and everything that was printed around it."""

    pod: Pod
    pgpool: Pgpool
    printed: str


@pytest.fixture(scope="module")
def scene(new_pod: NewPod, postgres: PostgresServer) -> Iterator[Scene]:
    """Logged as much as it can be; logged in to with good and bad passwords; probed, checked and refused."""
    pod = new_pod()
    postgres.create_role(ROLE, ROLE_PASSWORD)
    postgres.create_role(MONITOR, MONITOR_PASSWORD, monitor=True)
    pod.write_user(ROLE, f"{ROLE_PASSWORD}\n")
    pod.write_basic_auth("check", MONITOR, MONITOR_PASSWORD)
    pod.encrypt(KEY)
    pod.environment |= {
        "PGPOOL_CHECK_USER": MONITOR,
        "PGPOOL_PCP_PASSWORD_FILE": str(pod.write("pcp", f"{PCP_PASSWORD}\n")),
        "PGPOOL_TLS_DIR": str(Authority().issue().write(pod.directory / "tls")),
        "PGPOOL_PARAMS_LOG_MIN_MESSAGES": "debug5",
        "PGPOOL_PARAMS_LOG_CLIENT_MESSAGES": "on",
        "PGPOOL_PARAMS_LOG_STATEMENT": "on",
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD": "1",
        "PGPOOL_PARAMS_SR_CHECK_PERIOD": "1",
        "PGPOOL_PARAMS_LOG_PCP_PROCESSES": "on",
    }
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(ROLE, ROLE_PASSWORD, sslmode="require")
        assert not pgpool.can_log_in(ROLE, "a wrong % password")
        assert not pgpool.can_log_in("nobody", ROLE_PASSWORD)
        pgpool.wait_until_logged("health check")
        runs = [
            pod.run("check"),
            pod.run("probe", "live"),
            pod.run("probe", "ready"),
            pod.run("probe", "live", PGPOOL_PCP_PASSWORD_FILE=None, PGPOOL_PCP_PASSWORD=f"{PCP_PASSWORD} but wrong"),
            pod.run("settings"),
            pod.run("run"),  # the port is busy
            pod.run("check", PGPOOL_BACKNEDS="x", PGPOOL_PARAMS_PORT="x"),
            pod.run("check", PGPOOL_PCP_PASSWORD=PCP_PASSWORD, PGPOOL_PCP_PASSWORD_FILE="/nowhere"),
            pod.run("check", PGPOOL_PCP_PASSWORD=f"{PCP_PASSWORD}\n", PGPOOL_PCP_PASSWORD_FILE=None),
            pod.run("check", PGPOOL_PCP_PASSWORD_FILE=PCP_PASSWORD),
            pod.run("check", PGPOOL_PARAMS_SR_CHECK_PASSWORD=MONITOR_PASSWORD),
            pod.run("check", PGPOOL_PARAMS_HEALTH_CHECK_PASSWORD=f"{MONITOR_PASSWORD}'"),
            run_sidecar(pod),
        ]
        yield Scene(pod, pgpool, "".join(run.stdout + run.stderr for run in runs))
    postgres.drop_role(ROLE)
    postgres.drop_role(MONITOR)


@pytest.mark.parametrize("name", SENTINELS)
def test_no_secret_is_logged(scene: Scene, name: str) -> None:
    assert "DEBUG" in scene.pgpool.log
    assert SENTINELS[name] not in scene.pgpool.log


@pytest.mark.parametrize("name", SENTINELS)
def test_no_secret_is_printed(scene: Scene, name: str) -> None:
    assert "problem" in scene.printed
    assert SENTINELS[name] not in scene.printed


@pytest.mark.parametrize("name", SENTINELS)
def test_no_secret_is_in_a_file_of_the_run_directory(scene: Scene, name: str) -> None:
    encrypted = {file.name for file in proc.scan_files(scene.pod.run_dir, b"AES")}
    assert encrypted == {"pgpool.conf", "pool_passwd"}
    assert proc.scan_files(scene.pod.run_dir, SENTINELS[name].encode()) == []


@pytest.mark.parametrize("name", SENTINELS)
def test_no_secret_can_be_seen_in_a_process(scene: Scene, name: str) -> None:
    assert len(scene.pgpool.pids) > 30
    assert proc.find_in_processes(scene.pgpool.pids, SENTINELS[name].encode()) == []


def test_a_process_opens_no_secret_besides_what_it_reads(scene: Scene) -> None:
    """From the boot it inherits the key, which is its own, and no other descriptor of a Secret."""
    opened = {target for pid in scene.pgpool.pids for target in proc.open_files(pid).values()}
    secrets = [target for target in opened if target.startswith((str(scene.pod.users), "/memfd"))]
    assert secrets == ["/memfd:pool_key (deleted)"]


def test_the_key_that_boot_made_up_stands_in_its_file_alone(pod: Pod) -> None:
    pod.environment |= {"PGPOOL_PARAMS_LOG_MIN_MESSAGES": "debug5", "PGPOOL_PARAMS_SR_CHECK_PERIOD": "1"}
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        key = (pod.run_dir / "check_key").read_text()
        assert len(key) == 48
        runs = [pod.run("check"), pod.run("probe", "ready"), pod.run("run"), run_sidecar(pod)]
        assert key not in "".join(run.stdout + run.stderr for run in runs)
        assert "DEBUG" in pgpool.log
        assert key not in pgpool.log
        assert proc.find_in_processes(pgpool.pids, key.encode()) == []
        assert proc.scan_files(pod.run_dir, key.encode()) == [pod.run_dir / "check_key"]
        assert (pod.run_dir / "check_key").stat().st_mode & 0o777 == 0o600
        # The check role's password itself stands in pool_passwd, and nowhere a client could have it logged.
        in_clear = {file.name for file in proc.scan_files(pod.run_dir, CHECK_PASSWORD.encode())}
        assert in_clear == {"pool_passwd"}
        assert CHECK_PASSWORD not in pgpool.log


def test_secrets_in_the_environment_do_not_reach_pgpool(pod: Pod) -> None:
    direct = {
        "PGPASSWORD": "sentinel % of-libpq",
        "PGPOOL_PCP_PASSWORD": PCP_PASSWORD,
        "DATABASE_URL": f"postgresql://app:{APP_PASSWORD}@db/app",
        "APP_PASSWORD": APP_PASSWORD,
    }
    with pod.pgpool(**direct, UNRELATED="kept % as it is") as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        for secret in ("sentinel % of-libpq", PCP_PASSWORD, APP_PASSWORD):
            assert proc.find_in_processes(pgpool.pids, secret.encode()) == []
        assert b"UNRELATED=kept % as it is" in proc.environ(pgpool.pid).split(b"\0")
        assert b"PGPOOL_" not in proc.environ(pgpool.pid)
        assert proc.scan_files(pod.run_dir, PCP_PASSWORD.encode()) == []
        assert PCP_PASSWORD not in pgpool.log


def test_files_with_secrets_are_their_owners_alone(scene: Scene) -> None:
    files = [path for path in scene.pod.run_dir.rglob("*") if path.is_file()]
    exposed = {path.name for path in files if path.stat().st_mode & 0o077}
    assert exposed <= {"pgpool.pid", "pgpool_status"}  # pgpool's own, without secrets
