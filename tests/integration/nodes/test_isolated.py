"""What tests/isolated.py promises to the tests that run in it, and to the machine they run on."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ISOLATED = [sys.executable, str(Path(__file__).parents[2] / "isolated.py")]
# Has nothing to do with its parent any more, and keeps what was the shell's standard output.
DETACHED = "setsid sleep 1000 &"
TIMEOUT = 20


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; that is when the last process has closed the output."""
    return subprocess.run(
        [*ISOLATED, "bash", "-c", script], capture_output=True, text=True, timeout=TIMEOUT, check=False
    )


def start(script: str, temporary: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"TMPDIR": str(temporary)}  # whoever is killed removes nothing
    process = subprocess.Popen([*ISOLATED, "bash", "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize(("end", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)])
def test_the_status_is_the_commands_own(end: str, status: int) -> None:
    assert run(end).returncode == status


def test_what_the_command_leaves_behind_ends_with_it() -> None:
    assert run(f"{DETACHED} echo done").stdout == "done\n"


def test_whoever_kills_it_kills_everything(tmp_path: Path) -> None:
    process = start(f"{DETACHED} echo ready; sleep 1000", tmp_path)
    process.kill()
    assert process.communicate(timeout=TIMEOUT)[0] == ""


def test_a_signal_that_asks_for_an_end_reaches_the_command(tmp_path: Path) -> None:
    process = start("trap 'echo asked; exit 3' TERM; sleep 1000 & echo ready; wait", tmp_path)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=TIMEOUT)[0] == "asked\n"
    assert process.returncode == 3


def test_an_orphan_that_ends_is_gone() -> None:
    orphan = 'pid=$(sh -c "sleep 0.1 >&- & echo \\$!")'
    script = f"{orphan}; for _ in {{1..50}}; do kill -0 $pid || exit 0; sleep 0.1; done; exit 1"
    assert run(script).returncode == 0


def test_temporary_files_end_with_it() -> None:
    answer = run('mktemp; echo "$TMPDIR"')
    file, directory = answer.stdout.splitlines()
    assert file.startswith(directory)
    assert not Path(directory).exists()


def test_files_are_as_protected_as_outside(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0)
    assert run(f"id -u; cat {secret}").stdout == f"{os.getuid()}\n"
    assert "Permission denied" in run(f"cat {secret}").stderr


def test_the_network_has_nobody_else_in_it() -> None:
    assert run("ls /proc/sys/net/ipv4/conf").stdout.split() == ["all", "default", "lo"]
    assert run("exec 3<>/dev/tcp/127.0.0.1/1").stderr.count("Connection refused")
