"""A pod of two containers: pgpool, and the sidecar from the same image, with what Kubernetes mounts into both."""

import re
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Protocol, Self
from urllib.error import URLError

import psycopg

from support.containers import Container, podman
from support.deadline import wait_until
from support.manifest import Specification, describe
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE
from support.ports import free_port
from support.secret_volume import SecretVolume

START_TIMEOUT = 30.0
USERS, KEY, RUN = "/etc/pgpool/users", "/etc/pgpool/key", "/run/pgpool"

_RESTRICTED: Specification = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
_MOUNTS = (
    {"name": "run", "mountPath": RUN},
    {"name": "users", "mountPath": USERS, "readOnly": True},
    {"name": "key", "mountPath": KEY, "readOnly": True},
)
POD: Specification = {
    "securityContext": {"runAsUser": 10001, "runAsGroup": 10001},
    "initContainers": [
        {"name": "sidecar", "command": ["pgpool-sidecar"], "securityContext": _RESTRICTED, "volumeMounts": _MOUNTS}
    ],
    "containers": [{"name": "pgpool", "securityContext": _RESTRICTED, "volumeMounts": _MOUNTS}],
}
"""The least that a pod of both needs, where Pod Security "restricted" is enforced."""


class ContainerPod:
    """The surroundings of both containers; what they are is changed at will before `start`."""

    def __init__(
        self,
        image: str,
        postgres_port: int,
        specification: Specification = POD,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make the volumes `users`, `key` and `run`.

        Args:
            image: what both containers are made of.
            postgres_port: that of the backend, on this machine's loopback.
            specification: the pod's.
            settings: further environment of both, as from a ConfigMap; what this machine decides comes after it.
        """
        self.port, self.http_port = free_port(), free_port()
        self._stack = ExitStack()
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="pod-")))
        self.users = SecretVolume(directory / "users")
        self.users.write({CHECK_ROLE: CHECK_PASSWORD.encode(), APP_ROLE: APP_PASSWORD.encode()})
        key = SecretVolume(directory / "key")
        key.write({"aes.key": b"a pool % key"})
        # As an emptyDir with `medium: Memory` is: a directory of a tmpfs that everybody in the pod may write to.
        self.run_dir = Path(tempfile.mkdtemp(prefix="run-", dir="/dev/shm"))
        self.run_dir.chmod(0o777)
        volumes = {"users": self.users.path, "key": key.path, "run": self.run_dir}
        here = {
            "PGPOOL_BACKENDS": f"node-1=127.0.0.1:{postgres_port}",
            "PGPOOLKEYFILE": f"{KEY}/aes.key",
            "PGPOOL_PARAMS_LISTEN_ADDRESSES": "127.0.0.1",
            "PGPOOL_PARAMS_PORT": str(self.port),
        }
        env = {**settings, **here}
        self.pgpool_description = describe(specification, "pgpool", image=image, volumes=volumes, env=env)
        env = {**settings, "PGPOOL_SIDECAR_HTTP": f"127.0.0.1:{self.http_port}"}
        self.sidecar_description = describe(specification, "sidecar", image=image, volumes=volumes, env=env)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, value, trace)
        # What it holds belongs to user ids that only podman's user namespace may remove.
        podman("unshare", "rm", "-rf", self.run_dir)

    def start(self) -> None:
        """Start the sidecar and then pgpool, as an init container with `restartPolicy: Always` starts first."""
        self.sidecar = self._stack.enter_context(Container(self.sidecar_description))
        self.pgpool = self._stack.enter_context(Container(self.pgpool_description, beside=self.sidecar))
        self.wait_until_login()

    def set_pgpool(self, **env: str) -> None:
        """Change the environment of pgpool's container."""
        before: Mapping[str, str] = self.pgpool_description.env
        self.pgpool_description = replace(self.pgpool_description, env={**before, **env})

    def connect(self, role: str = APP_ROLE, password: str = APP_PASSWORD) -> psycopg.Connection:
        """A client of pgpool, which stays."""
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user=role, password=password, dbname="postgres", connect_timeout=5
        )

    def login(self, role: str = APP_ROLE, password: str = APP_PASSWORD) -> bool:
        """One client's login with a query: whether it succeeds."""
        try:
            with self.connect(role, password) as connection:
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

    def wait_in_sync(self) -> None:
        """Wait until the sidecar has proved that pgpool serves what the Secrets say."""

        def there() -> bool:
            try:
                return '"in_sync"' in self.get("/status")
            except URLError:  # pgpool may let clients in before the sidecar has its port
                return False

        wait_until(there, timeout=START_TIMEOUT, failure=lambda: self.sidecar.log)

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

    def __call__(
        self, specification: Specification = POD, settings: Mapping[str, str] = MappingProxyType({})
    ) -> ContainerPod: ...
