"""Boot meets what Kubernetes does: volumes of Secrets that change under it, and variables nobody asked for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest

from entrypoint import pipeline
from entrypoint.credentials import text_entry
from support import proc
from support.pgpool_process import run_entrypoint
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, Pod
from support.secret_volume import SecretVolume

LINKS = {
    "PGPOOL_SERVICE_HOST": "10.96.0.10",
    "PGPOOL_SERVICE_PORT": "9999",
    "PGPOOL_SERVICE_PORT_POSTGRES": "9999",
    "PGPOOL_PORT": "tcp://10.96.0.10:9999",
    "PGPOOL_PORT_9999_TCP": "tcp://10.96.0.10:9999",
    "PGPOOL_PORT_9999_TCP_PROTO": "tcp",
    "PGPOOL_PORT_9999_TCP_PORT": "9999",
    "PGPOOL_PORT_9999_TCP_ADDR": "10.96.0.10",
    "PGPOOL_METRICS_SERVICE_HOST": "10.96.0.11",
    "PGPOOL_METRICS_PORT": "tcp://10.96.0.11:9719",
    "PGPOOL_METRICS_PORT_9719_TCP_ADDR": "10.96.0.11",
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
}


def test_roles_come_from_one_volume_with_a_file_each(pod: Pod) -> None:
    (pod.users / APP_ROLE).unlink()
    (pod.users / CHECK_ROLE).unlink()
    volume = SecretVolume(pod.users)
    volume.write({APP_ROLE: APP_PASSWORD.encode(), CHECK_ROLE: f"{CHECK_PASSWORD}\n".encode()})
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        assert pgpool.can_log_in(CHECK_ROLE, CHECK_PASSWORD)
    assert (pod.generation / "pool_passwd").read_text().count("\n") == 2


def test_roles_come_from_basic_auth_secrets_beside_files(pod: Pod) -> None:
    (pod.users / APP_ROLE).unlink()
    SecretVolume(pod.users / "from-external-secrets", mode=0o440).write(
        {"username": APP_ROLE.encode(), "password": APP_PASSWORD.encode(), "uri": b"postgresql://nobody % reads this"}
    )
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        assert proc.scan_files(pod.run_dir, b"nobody % reads this") == []


def test_roles_come_from_a_projected_volume(pod: Pod) -> None:
    for role in (APP_ROLE, CHECK_ROLE):
        (pod.users / role).unlink()
    SecretVolume(pod.users).write(
        {
            "app/username": APP_ROLE.encode(),
            "app/password": APP_PASSWORD.encode(),
            "check/username": CHECK_ROLE.encode(),
            "check/password": CHECK_PASSWORD.encode(),
        }
    )
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)


def test_the_check_role_is_named_by_a_mounted_secret(pod: Pod) -> None:
    (pod.users / CHECK_ROLE).unlink()
    SecretVolume(pod.users / "check").write({"username": CHECK_ROLE.encode(), "password": CHECK_PASSWORD.encode()})
    pod.environment["PGPOOL_CHECK_USER_FILE"] = str(pod.users / "check/username")
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
    assert f"sr_check_user = '{CHECK_ROLE}'\n" in (pod.generation / "pgpool.conf").read_text()


def test_service_links_are_no_settings(pod: Pod) -> None:
    with pod.pgpool(**LINKS) as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        assert proc.find_in_processes(pgpool.pids, b"10.96.0.10") == []
    checked = run_entrypoint(["check"], {**pod.environment, **LINKS}, pgpool_bin=pod.pgpool_bin)
    assert "10.96" not in checked.stdout


def test_a_setting_that_looks_like_a_link_is_still_a_mistake(pod: Pod) -> None:
    result = pod.run("check", PGPOOL_PORT="9999")
    assert result.returncode == 78
    assert "PGPOOL_PARAMS_PORT" in result.stderr


@contextmanager
def rewritten(volume: SecretVolume, revisions: list[dict[str, bytes]], pause: float) -> Iterator[None]:
    """A kubelet that writes one revision after the other until the block ends."""
    stop = threading.Event()
    failure: list[BaseException] = []

    def write() -> None:
        number = 0
        try:
            while not stop.wait(pause):
                number += 1
                volume.write(revisions[number % len(revisions)])
        except BaseException as error:  # noqa: BLE001  # raised in the test below
            failure.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        stop.set()
        writer.join()
    assert not failure


@pytest.mark.parametrize("links_first", [False, True], ids=["kubelet", "older kubelet"])
@pytest.mark.parametrize("encrypted", [False, True], ids=["text", "aes"])
def test_user_and_password_are_always_of_one_revision(pod: Pod, *, links_first: bool, encrypted: bool) -> None:
    if encrypted:
        pod.encrypt()
    revisions = [{"username": b"user %d" % number, "password": b"password %% of %d" % number} for number in range(7)]
    volume = SecretVolume(pod.users / "rotating", links_first=links_first)
    volume.write(revisions[0])
    allowed = [(each["username"].decode(), each["password"].decode()) for each in revisions]
    pairs = set()
    with rewritten(volume, revisions, pause=0.002):
        for _ in range(60):
            resolved, _ = pipeline.prepare(pod.environment, None, datetime.now(UTC))
            roles = {each.role: each.password.reveal() for each in resolved.model.credentials}
            pair = next((role, password) for role, password in roles.items() if role.startswith("user "))
            assert pair in allowed
            assert len(roles) == 3
            pairs.add(pair)
    assert len(pairs) > 1, "nothing was rotated meanwhile"


def test_check_role_and_its_password_are_always_of_one_revision(pod: Pod) -> None:
    (pod.users / CHECK_ROLE).unlink()
    revisions = [{"username": b"check %d" % number, "password": b"password %% of %d" % number} for number in range(7)]
    volume = SecretVolume(pod.users / "check")
    volume.write(revisions[0])
    pod.environment["PGPOOL_CHECK_USER_FILE"] = str(pod.users / "check/username")
    served = set()
    with rewritten(volume, revisions, pause=0.002):
        for number in range(8):
            target = pod.directory / f"rendered-{number}"
            result = pod.run("render", "--to", str(target))
            assert result.returncode == 0, result.stderr
            conf, entries = (target / "pgpool.conf").read_text(), (target / "pool_passwd").read_text()
            role = next(line.split("'")[1] for line in conf.splitlines() if line.startswith("sr_check_user = "))
            assert f"{role}:{text_entry(f'password % of {role[-1]}')}\n" in entries
            served.add(role)
    assert len(served) > 1


def test_boot_succeeds_while_a_volume_is_swapped(pod: Pod) -> None:
    (pod.users / APP_ROLE).unlink()
    good = {"username": APP_ROLE.encode(), "password": APP_PASSWORD.encode()}
    volume = SecretVolume(pod.users / "app")
    volume.write(good)
    other = {"username": b"someone", "password": b"else's % password"}
    with rewritten(volume, [good, other], pause=0.01), pod.pgpool() as pgpool:
        pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
        entries = (pod.generation / "pool_passwd").read_text()
        pairs = [f"{APP_ROLE}:TEXT{APP_PASSWORD}\n", "someone:TEXTelse's % password\n"]
        assert [pair in entries for pair in pairs].count(True) == 1
