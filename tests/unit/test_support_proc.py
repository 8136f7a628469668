import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import proc
from support.deadline import wait_until

SCRIPT = """
sleep 600 &
echo ready
exec 3>>"$1" sleep 601
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Two processes in a session of their own, with something to find."""
    process = subprocess.Popen(
        ["/bin/sh", "-c", SCRIPT, "hidden-in-cmdline", tmp_path / "held open"],
        env={"PATH": "/usr/bin:/bin", "NAME": "hidden-in-environ"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    # Either may be a shell still, when the other is what it is to become.
    wait_until(
        lambda: all(proc.cmdline(pid).startswith(b"sleep") for pid in proc.members(process.pid)),
        timeout=10,
        failure=lambda: proc.describe(proc.members(process.pid)),
    )
    yield process
    for pid in proc.members(process.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_members(session: subprocess.Popen[str]) -> None:
    leader, child = proc.members(session.pid)
    assert (leader, [child]) == (session.pid, proc.children(session.pid))
    assert proc.cmdline(child) == b"sleep\x00600\x00"


def test_the_dead_are_no_members(session: subprocess.Popen[str]) -> None:
    _, child = proc.members(session.pid)
    os.kill(session.pid, signal.SIGKILL)
    os.waitid(os.P_PID, session.pid, os.WEXITED | os.WNOWAIT)  # dead, and a zombie still
    facts = proc.stat(session.pid)
    assert facts is not None
    assert facts.state == "Z"
    assert proc.members(session.pid) == [child]


def test_open_files(session: subprocess.Popen[str], tmp_path: Path) -> None:
    assert proc.open_files(session.pid)[3] == str(tmp_path / "held open")


def test_find_in_processes(session: subprocess.Popen[str]) -> None:
    pids = proc.members(session.pid)
    assert proc.find_in_processes(pids, b"hidden-in-environ") == [f"{pid} environ" for pid in pids]
    assert proc.find_in_processes(pids, b"601") == [f"{session.pid} cmdline"]
    assert proc.find_in_processes(pids, b"nowhere") == []


def test_a_process_that_is_gone(session: subprocess.Popen[str]) -> None:
    pid = session.pid
    for member in proc.members(pid):
        os.kill(member, signal.SIGKILL)
    session.wait()
    assert proc.stat(pid) is None
    assert (proc.cmdline(pid), proc.environ(pid), proc.open_files(pid)) == (b"", b"", {})
    assert proc.find_in_processes([pid], b"sleep") == []


def test_a_command_name_with_parentheses(tmp_path: Path) -> None:
    program = tmp_path / ") R 1 1 ("
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "600"], start_new_session=True) as process:
        assert proc.members(process.pid) == [process.pid]
        process.kill()


def test_scan_files(tmp_path: Path) -> None:
    (tmp_path / "a/..b").mkdir(parents=True)
    (tmp_path / "a/..b/c").write_bytes(b"\xff secret \x00")
    (tmp_path / "link").symlink_to("a/..b/c")
    (tmp_path / "other").write_bytes(b"nothing")
    assert proc.scan_files(tmp_path, b"secret") == [tmp_path / "a/..b/c"]
