"""Runs a command in namespaces of its own: `isolated.py COMMAND…`. Exits with the command's status.

The tests' cluster needs fixed addresses and ports, a network that can be cut (nftables), and an end that leaves no
process behind, whatever happens to whoever started it. So the command gets

* a network with nothing but a loopback interface, and CAP_NET_ADMIN over it (no other capability: tests of file
  permissions keep their meaning),
* process numbers and System V shared memory of its own: what still runs when the command ends is killed by the kernel,
  and what it shared is freed,
* a TMPDIR that is removed at the end.

It needs no privileges, only a kernel that lets ordinary users make user namespaces. From outside, `nsenter` gets in by
the process number in ISOLATED_BY; files are where they are.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

UNSHARED, FIRST = "--unshared", "--first"
NAMESPACES = ["--user", "--map-current-user", "--keep-caps", "--net", "--ipc", "--mount", "--pid"]
ONLY_NETWORK = [f"--{which}=-all,+net_admin" for which in ("bounding-set", "inh-caps", "ambient-caps")]
SBIN = "/usr/sbin:/sbin"

Wait = Callable[[], tuple[int, int]]


def main() -> None:
    match sys.argv[1:]:
        case []:
            sys.exit(__doc__)
        case [stage, *command] if stage == UNSHARED:
            watch(command)
        case [stage, *command] if stage == FIRST:
            be_first(command)
        case command:
            check()
            os.execvp("unshare", ["unshare", *NAMESPACES, "--", sys.executable, __file__, UNSHARED, *command])


def check() -> None:
    """Say at once what would otherwise be a riddle."""
    if os.geteuid() == 0:
        sys.exit("isolated: PostgreSQL refuses to run as root; run this as an ordinary user")
    trial = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "true"], capture_output=True, text=True, check=False
    )
    if trial.returncode:
        sys.exit(
            f"isolated: this machine does not let {os.environ.get('USER', 'this user')} make namespaces: "
            f"{trial.stderr.strip()}\nThey are needed by the tests with a cluster. In a container, start it with "
            "--security-opt seccomp=unconfined --security-opt systempaths=unconfined; on Ubuntu, set "
            "kernel.apparmor_restrict_unprivileged_userns=0."
        )


def watch(command: list[str]) -> NoReturn:
    """Outside of the new process numbers: start their first process, and pass on what is asked of this one."""
    with tempfile.TemporaryDirectory(prefix="own-", ignore_cleanup_errors=True) as directory:
        environment = os.environ | {
            "TMPDIR": directory,
            "PATH": f"{os.environ['PATH']}:{SBIN}",
            "ISOLATED_BY": str(os.getpid()),  # as the rest of the machine knows it
        }
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, __file__, FIRST, *command], env=environment
        )
        status = wait_for(process.pid, lambda: os.waitpid(process.pid, 0))
    sys.exit(status)


def be_first(command: list[str]) -> NoReturn:
    """As process 1: prepare what was unshared, start the command, and bury whoever loses its parent.

    A dead postmaster that nobody waits for would look alive to Patroni, and to the next one in its data directory.
    """
    subprocess.run(["mount", "-t", "proc", "proc", "/proc"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    process = subprocess.Popen(["setpriv", *ONLY_NETWORK, "--", *command])
    sys.exit(wait_for(process.pid, os.wait))


def wait_for(pid: int, wait: Wait) -> int:
    """Wait until this process has ended, passing signals on to it, and return its status as a shell would."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: pass_on(received, pid))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command as well
    while True:
        ended, status = wait()
        if ended == pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def pass_on(number: int, pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main()
