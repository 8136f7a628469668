"""Containers as a pod has them: under podman, described in the words of a manifest."""

import json
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.deadline import wait_until

COMMAND_TIMEOUT = 60.0
GRACE_SECONDS = 20
# podman has systemd's timers run health checks; Kubernetes runs none.
WITHOUT_SYSTEMD = ("--no-healthcheck",)

CompletedText = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """A directory of this machine inside a container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityContext:
    """What Pod Security "restricted" asks for, and a root file system that cannot be written."""

    run_as_user: int | None = None
    run_as_group: int | None = None
    read_only_root_filesystem: bool = True
    allow_privilege_escalation: bool = False
    drop: Sequence[str] = ("ALL",)
    sysctls: Mapping[str, str] = field(default_factory=dict)
    """Of the pod: they count for the container that comes first."""

    def arguments(self) -> list[str]:
        """The same for podman."""
        result = [f"--cap-drop={capability}" for capability in self.drop]
        if self.run_as_user is not None:
            group = "" if self.run_as_group is None else f":{self.run_as_group}"
            result.append(f"--user={self.run_as_user}{group}")
        if self.read_only_root_filesystem:
            result += ["--read-only", "--read-only-tmpfs=false"]
        if not self.allow_privilege_escalation:
            result.append("--security-opt=no-new-privileges")
        return result


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A container of a manifest: `command` replaces the image's entrypoint, `args` follow it."""

    image: str
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    mounts: Sequence[Mount] = ()
    tmpfs: Sequence[str] = ()
    """Directories in memory, of this container alone."""
    security: SecurityContext = field(default_factory=SecurityContext)

    def arguments(self) -> list[str]:
        """Everything behind `podman create`; no shell, and no environment but the image's and this one."""
        result = self.security.arguments()
        result += [f"--env={name}={value}" for name, value in self.env.items()]
        for mount in self.mounts:
            result.append(f"--volume={mount.source}:{mount.target}:{'ro' if mount.read_only else 'rw'}")
        result += [f"--tmpfs={directory}" for directory in self.tmpfs]
        if self.command:
            result.append(f"--entrypoint={json.dumps(list(self.command))}")
        return [*result, self.image, *self.args]


class Container:
    """One container; like a pod's, it may end and be started again, with the same volumes and an old or a new log."""

    def __init__(self, description: Description, *, beside: "Container | None" = None) -> None:
        """Create it; `beside` is another container of its pod, whose System V shared memory it sees."""
        options = [*WITHOUT_SYSTEMD, f"--stop-timeout={GRACE_SECONDS}"]
        if beside is None:
            sysctls = description.security.sysctls.items()
            options += ["--ipc=shareable", *(f"--sysctl={name}={value}" for name, value in sysctls)]
        else:
            options.append(f"--ipc=container:{beside.identity}")
        answer = podman("create", *options, *description.arguments())
        self.identity: str = answer.stdout.strip()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None:
            print(f"the container's log:\n{self.log}")
        self.remove()

    @property
    def log(self) -> str:
        """What it has said on both streams, over all its starts."""
        answer = podman("logs", self.identity)
        return answer.stdout + answer.stderr

    @property
    def state(self) -> dict[str, Any]:
        """What podman knows of its process: Running, Pid, ExitCode."""
        state: dict[str, Any] = inspect(self.identity)["State"]
        return state

    def start(self) -> None:
        """Start it, waiting for nothing."""
        podman("start", self.identity)

    def stop(self) -> float:
        """Stop it as a kubelet does, by the image's signal and then, after the grace period, for good.

        Returns how many seconds it took.
        """
        begin = time.monotonic()
        podman("stop", self.identity)
        return time.monotonic() - begin

    def signal(self, name: str) -> None:
        """Send a signal to its first process."""
        podman("kill", f"--signal={name}", self.identity)

    def remove(self) -> None:
        """End it at once, and leave nothing of it."""
        podman("rm", "--force", "--time=0", self.identity)

    def run(self, *command: str) -> CompletedText:
        """Run a command inside, whatever its status."""
        return podman("exec", self.identity, *command, check=False)

    def output(self, *command: str) -> str:
        """Run a command inside that succeeds, and return its output."""
        answer = self.run(*command)
        assert answer.returncode == 0, f"{command} ended with {answer.returncode}: {answer.stdout}{answer.stderr}"
        return answer.stdout

    def wait_until_exit(self) -> int:
        """Wait for an end that comes by itself, and return its status."""
        wait_until(lambda: not self.state["Running"], timeout=30, failure=lambda: f"still runs:\n{self.log}")
        status: int = self.state["ExitCode"]
        return status

    def shared_memory(self) -> int:
        """How many System V shared memory segments its pod has."""
        return len(self.output("cat", "/proc/sysvipc/shm").splitlines()) - 1

    def resident_bytes(self) -> int:
        """The memory of all its processes; what several share is counted once."""
        rollups = self.output("sh", "-c", "cat /proc/[0-9]*/smaps_rollup 2>/dev/null || true")
        return sum(int(kilobytes) for kilobytes in re.findall(r"^Pss: +(\d+) kB", rollups, re.MULTILINE)) * 1024


def podman(*arguments: str | Path, check: bool = True) -> CompletedText:
    """Run podman with the storage and settings that its environment names (.ci/containers)."""
    answer = subprocess.run(
        ["podman", *arguments],
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=COMMAND_TIMEOUT,
        check=False,
    )
    assert not check or answer.returncode == 0, f"podman {' '.join(map(str, arguments))}: {answer.stderr}"
    return answer


def inspect(name: str, kind: str = "container") -> dict[str, Any]:
    """Everything podman knows of a container, or with kind `image` of an image."""
    (facts,) = json.loads(podman("inspect", "--type", kind, name).stdout)
    found: dict[str, Any] = facts
    return found


def run_to_end(description: Description) -> CompletedText:
    """Run a container that ends by itself, and return its status and output.

    Not by `podman run`, which waits for 20 s after the end where no systemd runs.
    """
    container = Container(description)
    with container:
        status = container.wait_until_exit()
        output = podman("logs", container.identity)
    return CompletedText(description.args, status, output.stdout, output.stderr)
