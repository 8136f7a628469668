"""A pod of two containers: pgpool, and the sidecar from the same image, with what Kubernetes mounts into both."""

import re
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import psycopg

from support.containers import Container, Description, Mount, SecurityContext, podman
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE
from support.ports import free_port
from support.secret_volume import SecretVolume

START_TIMEOUT = 30.0
USERS, KEY, RUN = "/etc/pgpool/users", "/etc/pgpool/key", "/run/pgpool"


class ContainerPod:
    """The surroundings of both containers; what they are is changed at will before `start`."""

    def __init__(self, image: str, postgres_port: int) -> None:
        """Describe the pod: `postgres_port` is that of its backend, on this machine's loopback."""
        self.port, self.http_port = free_port(), free_port()
        self._stack = ExitStack()
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pod-")))
        self.users = SecretVolume(directory / "users")
        self.users.write({CHECK_ROLE: CHECK_PASSWORD.encode(), APP_ROLE: APP_PASSWORD.encode()})
        self.key = SecretVolume(directory / "key")
        self.key.write({"aes.key": b"a pool % key"})
        # As an emptyDir with `medium: Memory` is: a directory of a tmpfs that everybody in the pod may write to.
        self.run_dir = Path(tempfile.mkdtemp(prefix="run-", dir="/dev/shm"))
        self.run_dir.chmod(0o777)
        self.secrets = (
            Mount(source=self.users.path, target=USERS, read_only=True),
            Mount(source=self.key.path, target=KEY, read_only=True),
        )
        mounts = (*self.secrets, Mount(source=self.run_dir, target=RUN))
        security = SecurityContext(run_as_user=10001, run_as_group=10001)
        self.pgpool_description = Description(
            image=image,
            env={
                "PGPOOL_BACKENDS": f"node-1=127.0.0.1:{postgres_port}",
                "PGPOOLKEYFILE": f"{KEY}/aes.key",
                "PGPOOL_PARAMS_LISTEN_ADDRESSES": "127.0.0.1",
                "PGPOOL_PARAMS_PORT": str(self.port),
            },
            mounts=mounts,
            security=security,
        )
        self.sidecar_description = Description(
            image=image,
            command=("tini", "--", "pgpool-sidecar"),
            env={"PGPOOL_SIDECAR_HTTP": f"127.0.0.1:{self.http_port}"},
            mounts=mounts,
            security=security,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, value, trace)
        # What it holds belongs to user ids that only podman's user namespace may remove.
        podman("unshare", "rm", "-rf", self.run_dir)

    def start(self, *, wait: bool = True) -> None:
        """Start the sidecar and then pgpool, as an init container with `restartPolicy: Always` starts first."""
        self.sidecar = self._stack.enter_context(Container(self.sidecar_description))
        self.pgpool = self._stack.enter_context(Container(self.pgpool_description, beside=self.sidecar))
        if wait:
            self.wait_until_login()

    def set_pgpool(self, **env: str) -> None:
        """Change the environment of pgpool's container."""
        before: Mapping[str, str] = self.pgpool_description.env
        self.pgpool_description = replace(self.pgpool_description, env={**before, **env})

    def login(self, role: str = APP_ROLE, password: str = APP_PASSWORD) -> bool:
        """One client's login with a query: whether it succeeds."""
        try:
            with psycopg.connect(
                host="127.0.0.1", port=self.port, user=role, password=password, dbname="postgres", connect_timeout=5
            ) as connection:
                return connection.execute("SELECT 1").fetchone() == (1,)
        except psycopg.OperationalError:
            return False

    def wait_until_login(self, role: str = APP_ROLE, password: str = APP_PASSWORD) -> float:
        """Wait until a login succeeds, and return after how many seconds."""
        begin = time.monotonic()
        wait_until(
            lambda: self.login(role, password),
            timeout=START_TIMEOUT,
            failure=lambda: f"{role!r} cannot log in\n{self.pgpool.log}\n{self.sidecar.log}",
        )
        return time.monotonic() - begin

    def get(self, path: str) -> str:
        """A page of the sidecar's."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as response:
            text: str = response.read().decode()
        return text

    def metric(self, sample: str) -> float | None:
        """The value of one sample of /metrics; None when it is absent."""
        match = re.search(rf"^{re.escape(sample)} (\S+)$", self.get("/metrics"), re.MULTILINE)
        return float(match[1]) if match else None

    def kill_pgpool(self) -> None:
        """`kill -9` of pgpool's main process, inside its container, whose end may come before that of the command."""
        self.pgpool.run("sh", "-c", f"kill -9 $(tr -d '\\0' <{RUN}/pgpool.pid)")


class NewContainerPod(Protocol):
    """Makes a pod that lives as long as the test; nothing is started yet."""

    def __call__(self) -> ContainerPod: ...
