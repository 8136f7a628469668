"""From the first process to the last: the entrypoint becomes pgpool, and nothing of either is left behind."""

import os
import re
import signal
from pathlib import Path

import pytest

from support import proc
from support.deadline import wait_until
from support.pgpool_process import Pgpool, run_entrypoint
from support.pod import APP_PASSWORD, APP_ROLE, Pod
from support.ports import free_port


def test_the_entrypoint_becomes_pgpool_and_an_interrupt_ends_it(pod: Pod) -> None:
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        pids = pgpool.pids
        assert Path(f"/proc/{pgpool.pid}/comm").read_text() == "pgpool\n"
        assert pgpool.pid == int((pod.run_dir / "pgpool.pid").read_bytes().rstrip(b"\0\n"))
        limits = Path(f"/proc/{pgpool.pid}/limits").read_text()
        assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE)
        assert len(proc.shared_memory(pids)) >= 1
        assert pgpool.stop(signal.SIGINT) == 0
    assert not [pid for pid in pids if proc.stat(pid)]
    assert proc.shared_memory(pids) == []
    assert not list(pod.run_dir.glob(".s.PGSQL.*"))
    assert not (pod.run_dir / "pgpool.pid").exists()


def test_an_interrupt_ends_it_while_clients_are_connected(pod: Pod) -> None:
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        sessions = [pgpool.connect(APP_ROLE, APP_PASSWORD) for _ in range(5)]
        assert pgpool.stop(signal.SIGINT, timeout=10) == 0
        for session in sessions:
            session.close()


def test_arguments_behind_two_dashes_reach_pgpool(pod: Pod) -> None:
    with pod.pgpool("--", "-d", "--discard-status") as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        assert proc.cmdline(pgpool.pid).split(b"\0")[-3:-1] == [b"-d", b"--discard-status"]
        assert "DEBUG" in pgpool.log


def test_run_with_arguments_is_the_same(pod: Pod) -> None:
    with pod.pgpool("run", "--", "-d") as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        words = [word.decode() for word in proc.cmdline(pgpool.pid).split(b"\0")]
        assert Path(words.pop(-3)).parent == Path("/proc/self/fd")
    live = f"{pod.run_dir}/current"
    assert Path(words[0]) == pod.pgpool_bin / "pgpool"
    assert words[1:-1] == [
        *("-n", "-D", "-f", f"{live}/pgpool.conf", "-a", f"{live}/pool_hba.conf", "-F", f"{live}/pcp.conf"),
        *("-k", "-d"),
    ]


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        (["sh", "-c", 'echo "$1 % $HOME_OF"; exit 7', "sh", "--"], "-- % kept % too\n"),
        (["/bin/sh", "-c", "exit 7"], ""),
        # A writer that nobody reads any more ends quietly: Python's ignoring of SIGPIPE is not handed on.
        (["bash", "-c", "yes | head -n 1; exit 7"], "y\n"),
    ],
)
def test_any_other_command_is_run_untouched(pod: Pod, command: list[str], printed: str) -> None:
    result = pod.run(*command, HOME_OF="kept % too", PGPOOL_NONSENSE="not looked at")
    assert (result.returncode, result.stdout, result.stderr) == (7, printed, "")
    assert not list(pod.run_dir.iterdir())


def test_pgpools_own_tools_are_commands_like_any_other(pod: Pod) -> None:
    assert "pgpool-II" in (result := pod.run("pgpool", "--version")).stdout + result.stderr
    assert pod.run("nothing-of-this-name").returncode == 127
    assert pod.run("/etc/passwd").returncode == 126


def test_a_killed_pgpool_starts_again_in_place(pod: Pod) -> None:
    """As a container that was killed for its memory does, in the same pod."""
    creators: set[int] = set()
    pgpool = pod.pgpool()
    with pgpool:
        for _ in range(5):
            pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
            pids = pgpool.pids
            creators.update(pids)
            mine = proc.shared_memory(pids)
            assert mine
            assert sorted(mine) == sorted(proc.shared_memory(creators)), "the predecessor's is still there"
            pgpool.kill_group(keep_shared_memory=True)
            assert proc.shared_memory(pids) == mine
            assert (pod.run_dir / "pgpool.pid").exists()
            assert (pod.run_dir / f".s.PGSQL.{pod.port}").exists()
            # In a container, some process has this id: the first one, say.
            (pod.run_dir / "pgpool.pid").write_bytes(f"{os.getpid()}\n\0".encode())
            pgpool.start()
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        # What is live, which is what pgpool was booted with; and the newest of the others.
        assert len(list((pod.run_dir / "generations").iterdir())) == 2
        assert (pod.run_dir / "booted").resolve(strict=True) == pod.generation
        assert pgpool.stop() == 0
    assert proc.shared_memory(creators) == []


def test_a_killed_boot_leaves_nothing_that_hinders_the_next(pod: Pod) -> None:
    for name in (".new-0123456789abcdef", "generations/.new-0123456789abcdef"):
        (pod.run_dir / name).mkdir(parents=True)
    (pod.run_dir / "generations/.new-0123456789abcdef/pool_passwd").write_text("half % wri")
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
    assert [path.name for path in (pod.run_dir / "generations").iterdir()] == [pod.generation.name]


def test_a_restart_without_changes_serves_the_same_generation(pod: Pod) -> None:
    pod.environment["PGPOOL_PCP_PASSWORD_FILE"] = str(pod.write("pcp", "a pcp % password"))
    pod.encrypt()
    generations = [boot_once(pod) for _ in range(3)]
    assert len(set(generations)) == 1
    assert [path.name for path in (pod.run_dir / "generations").iterdir()] == [generations[0]]


def test_without_a_pcp_password_each_boot_makes_a_new_one(pod: Pod) -> None:
    made = []
    for _ in range(2):
        boot_once(pod)
        file = pod.run_dir / "pcp_password"
        assert file.stat().st_mode & 0o777 == 0o600
        made.append(file.read_text())
    assert made[0] != made[1]
    pod.environment["PGPOOL_PCP_PASSWORD_FILE"] = str(pod.write("pcp", "a pcp % password"))
    boot_once(pod)
    assert not (pod.run_dir / "pcp_password").exists()


def test_without_a_key_each_boot_makes_one_for_the_check_roles_password(pod: Pod) -> None:
    file = pod.run_dir / "check_key"
    made = []
    for _ in range(2):
        with pod.pgpool() as pgpool:
            pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
            handed_over = Path(f"/proc/{pgpool.pid}/fd/3")
            assert str(handed_over.readlink()) == "/memfd:pool_key (deleted)"
            assert handed_over.read_text() == f"{file.read_text()}\n"
        assert file.stat().st_mode & 0o777 == 0o600
        made.append(file.read_text())
    assert made[0] != made[1]
    pod.encrypt()
    boot_once(pod)
    assert not file.exists()


def test_a_refused_restart_leaves_the_running_pgpool_alone(pod: Pod) -> None:
    with pod.pgpool() as pgpool:
        pgpool.wait_until_logged("successfully started")
        before = {name: facts for name, facts in pod.fingerprint().items() if name != "pgpool_status"}
        result = pod.run("run")
        assert result.returncode == 78
        assert f"127.0.0.1 port {pod.port}" in result.stderr
        assert "the port is in use" in result.stderr
        after = {name: facts for name, facts in pod.fingerprint().items() if name != "pgpool_status"}
        assert after == before
        assert pgpool.can_log_in(APP_ROLE, APP_PASSWORD)


@pytest.mark.parametrize("pid_file", ["kept", "lost"])
@pytest.mark.parametrize("changed", ["another port", "no port"])
def test_a_second_boot_beside_a_pgpool_that_lives_changes_nothing(pod: Pod, changed: str, pid_file: str) -> None:
    """As `kubectl exec … pgpool-entrypoint` does."""
    changes = {"PGPOOL_PARAMS_LISTEN_ADDRESSES": ""}
    if changed == "another port":
        changes = {"PGPOOL_PARAMS_PORT": str(free_port()), "PGPOOL_PARAMS_PCP_PORT": str(free_port())}
    with pod.pgpool() as pgpool:
        pgpool.wait_until_logged("successfully started")
        what = f"a pgpool (process {pgpool.pid}) runs in this directory already"
        if pid_file == "lost":
            (pod.run_dir / "pgpool.pid").unlink()
            what = "a pgpool runs in this directory already: something listens on .s.PGSQL."
        pod.write_user("another", "a new % password")
        before = {name: facts for name, facts in pod.fingerprint().items() if name != "pgpool_status"}
        result = run_entrypoint(["run"], {**pod.environment, **changes}, pgpool_bin=pod.pgpool_bin)
        assert result.returncode == 78
        assert f"PGPOOL_RUN_DIR (environment)\n      {what}" in result.stderr
        after = {name: facts for name, facts in pod.fingerprint().items() if name != "pgpool_status"}
        assert after == before
        assert pgpool.can_log_in(APP_ROLE, APP_PASSWORD)


def test_a_changed_password_is_served_after_a_restart_in_place(pod: Pod) -> None:
    first = boot_once(pod)
    pod.write_user("another", "a new % password")
    second = boot_once(pod)
    assert first != second
    assert {path.name for path in (pod.run_dir / "generations").iterdir()} == {first, second}


def boot_once(pod: Pod) -> str:
    """Serve, stop, and return the generation that was live."""
    with pod.pgpool() as pgpool:
        wait_until_served(pgpool)
        generation = pod.generation.name
        assert pgpool.stop() == 0
    return generation


def wait_until_served(pgpool: Pgpool) -> None:
    wait_until(
        lambda: pgpool.can_log_in(APP_ROLE, APP_PASSWORD), timeout=30, failure=lambda: f"no login:\n{pgpool.log}"
    )
