"""What Kubernetes gives one container: Secrets as files, a run directory, an environment."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from subprocess import CompletedProcess
from typing import Protocol

from entrypoint.inputs import PCP_PASSWORD
from entrypoint.pcp import PcpAddress
from entrypoint.secret import Secret
from sidecar.pcp import Pcp
from support.pgpool_process import REPOSITORY, Pgpool, run_entrypoint
from support.ports import free_port
from support.postgres import PostgresServer

CHECK_ROLE, CHECK_PASSWORD = "sr_check", "the check role's 100% own password"
APP_ROLE, APP_PASSWORD = "app", "an ordinary % password"


class Pod:
    """One container's surroundings; `environment` is changed at will before it is used."""

    def __init__(self, directory: Path, *, pgpool_bin: Path, postgres_port: int) -> None:
        """Make the directories below `directory`; sockets live there, so it is to be short."""
        self.directory = directory
        self.pgpool_bin = pgpool_bin
        self.users = directory / "users"
        self.run_dir = directory / "run"
        self.users.mkdir(exist_ok=True)
        self.run_dir.mkdir(mode=0o770, exist_ok=True)
        self.port, self.pcp_port = free_port(), free_port()
        self.environment = {
            "PGPOOL_BACKENDS": f"node-1=127.0.0.1:{postgres_port}",
            "PGPOOL_USERS_DIR": str(self.users),
            "PGPOOL_RUN_DIR": str(self.run_dir),
            "PGPOOL_PARAMS_LISTEN_ADDRESSES": "127.0.0.1",
            "PGPOOL_PARAMS_PORT": str(self.port),
            "PGPOOL_PARAMS_PCP_PORT": str(self.pcp_port),
        }
        self._logs = 0

    def write_user(self, role: str, password: str) -> Path:
        """The role as a file of that name."""
        file = self.users / role
        file.write_bytes(password.encode())
        return file

    def write_basic_auth(self, directory: str, role: str, password: str) -> Path:
        """The role as a mounted Secret of type kubernetes.io/basic-auth."""
        secret = self.users / directory
        secret.mkdir()
        (secret / "username").write_bytes(role.encode())
        (secret / "password").write_bytes(password.encode())
        return secret

    def write(self, name: str, content: str | bytes, *, mode: int = 0o600) -> Path:
        """A further file, beside the users and the run directory."""
        file = self.directory / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        file.chmod(mode)
        return file

    def encrypt(self, key: str = "a pool % key") -> Path:
        """Have pool_passwd encrypted with this key."""
        file = self.write("pool_key", f"{key}\n")
        self.environment["PGPOOLKEYFILE"] = str(file)
        return file

    def run(self, *args: str, timeout: float = 30.0, **changes: str | None) -> CompletedProcess[str]:
        """Run the entrypoint to its end; `changes` to the environment are for this run, None unsets."""
        return run_entrypoint(args, self.changed_environment(changes), pgpool_bin=self.pgpool_bin, timeout=timeout)

    def pgpool(self, *args: str, **changes: str | None) -> Pgpool:
        """A pgpool to be started, here, by the entrypoint."""
        self._logs += 1
        log_path = self.directory / f"log-{self._logs}"
        environment = self.changed_environment(changes)
        return Pgpool(environment, pgpool_bin=self.pgpool_bin, log_path=log_path, args=args)

    def pcp_address(self) -> PcpAddress:
        """PCP's, with the password that boot has made."""
        password = Secret((self.run_dir / PCP_PASSWORD).read_text())
        return PcpAddress(self.run_dir, self.pcp_port, "pgpool", password)

    def pcp(self) -> Pcp:
        """pgpool's administration."""
        return Pcp(self.pcp_address, {"PATH": str(self.pgpool_bin)})

    def changed_environment(self, changes: Mapping[str, str | None]) -> dict[str, str]:
        merged = {**self.environment, **changes}
        return {name: value for name, value in merged.items() if value is not None}

    @property
    def generation(self) -> Path:
        """The generation that is live."""
        return (self.run_dir / "current").resolve(strict=True)

    def fingerprint(self) -> dict[str, tuple[str, int, int, str]]:
        """Everything in the run directory: kind and mode, inode, time of change, content or target."""
        return {str(path.relative_to(self.run_dir)): _facts(path) for path in sorted(self.run_dir.rglob("*"))}


class NewPod(Protocol):
    """Makes a container's surroundings, with the check role and the application's in its users directory."""

    def __call__(self, server: PostgresServer | None = None) -> Pod: ...


def sidecar_command() -> list[str]:
    """The installed console script, or the module where the project is not installed."""
    script = Path(sys.executable).with_name("pgpool-sidecar")
    return [str(script)] if script.exists() else [sys.executable, "-m", "sidecar"]


def _facts(path: Path) -> tuple[str, int, int, str]:
    status = path.lstat()
    content = ""
    if path.is_symlink():
        content = str(path.readlink())
    elif path.is_file():
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return oct(status.st_mode), status.st_ino, status.st_mtime_ns, content


def run_sidecar(pod: Pod, **changes: str | None) -> CompletedProcess[str]:
    """One pass of the sidecar, with the few settings that its container has."""
    environment = {"PGPOOL_RUN_DIR": str(pod.run_dir), "PATH": os.defpath}
    return subprocess.run(
        [*sidecar_command(), "--once", "--dry-run"],
        env={name: value for name, value in {**environment, **changes}.items() if value is not None},
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
