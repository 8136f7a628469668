"""One node of the cluster: a Patroni and the PostgreSQL that it runs."""

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psycopg
from psycopg import sql

from support import etcd, proc
from support.postgres import HBA, Query

SCOPE = "a-cluster"
SUPERUSER, SUPERUSER_PASSWORD = "postgres", "the superuser's 100% own \\ pässword"
REPLICATOR, REPLICATOR_PASSWORD = "replicator", "the % replicator's: own password"
PORT, REST_PORT = 5432, 8008
INITDB = {"encoding": "UTF8", "locale": "C.UTF-8", "auth": "scram-sha-256", "wal-segsize": "1"}
REST_TIMEOUT = 1.0
CONNECT_TIMEOUT = 2  # the least that libpq knows

What = Literal["postgres", "patroni"]


class RefusedError(AssertionError):
    """What Patroni says when it does not do what it was asked."""

    def __init__(self, code: int, words: str) -> None:
        """The HTTP status, and all that there is to say."""
        super().__init__(words)
        self.code = code


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How Patroni is configured; times in seconds. 20 is the least `ttl` that it accepts.

    etcd's members need a few to elect a leader on a busy machine: that is not to cost the primary its lock.
    """

    ttl: int = 20
    loop_wait: int = 2
    retry_timeout: int = 6
    failsafe_mode: bool = False
    primary_start_timeout: int = 300
    synchronous_mode: bool = False
    fsync: bool = False
    max_connections: int = 200

    def dynamic(self) -> dict[str, Any]:
        """The part that Patroni keeps in etcd."""
        return {
            "ttl": self.ttl,
            "loop_wait": self.loop_wait,
            "retry_timeout": self.retry_timeout,
            "failsafe_mode": self.failsafe_mode,
            "primary_start_timeout": self.primary_start_timeout,
            "synchronous_mode": self.synchronous_mode,
            "postgresql": {
                "use_pg_rewind": True,
                "use_slots": True,
                "parameters": {
                    "max_connections": self.max_connections,
                    # As deploy/patroni has it: sessions that a cut has left behind do not take up all connections.
                    "tcp_keepalives_idle": 10,
                    "tcp_keepalives_interval": 5,
                    "tcp_keepalives_count": 3,
                    "password_encryption": "scram-sha-256",
                    "shared_buffers": "16MB",
                    "dynamic_shared_memory_type": "mmap",  # in the data directory: a crash leaves nothing elsewhere
                    "unix_socket_directories": "",
                    "fsync": self.fsync,
                    "wal_log_hints": True,
                    "log_line_prefix": "%m [%p] %u@%d ",
                },
            },
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """What a node's own Patroni says about it."""

    name: str
    role: str
    """`primary`, `replica` or, for a moment, `demoted`; `primary` also while the lock is somebody else's."""
    state: str
    """`running` (Patroni's word for each PostgreSQL that answers), `starting`, `stopped`, …"""
    timeline: int | None
    streaming: bool
    """Whether it is a standby that receives from its primary right now."""
    has_lock: bool


class Node:
    """One node; its data survives everything but the end of the cluster."""

    def __init__(
        self, number: int, directory: Path, *, patroni_bin: Path, postgres_bin: Path, options: Options
    ) -> None:
        """Prepare node `number`, 1 to 3, below `directory`."""
        self.name = f"postgres-{number}"
        self.address = f"127.0.0.{10 + number}"
        self.log_path = directory / f"{self.name}.log"
        self.config = directory / f"{self.name}.yml"
        self.data = directory / self.name
        self._patroni_bin = patroni_bin
        self._process: subprocess.Popen[bytes] | None = None
        self.config.touch(mode=0o600)
        self.config.write_text(json.dumps(self._configuration(directory, postgres_bin, options), indent=2))

    @property
    def log(self) -> str:
        """What Patroni and PostgreSQL have printed."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def patroni_pid(self) -> int:
        assert self._process, f"the Patroni of {self.name} does not run"
        return self._process.pid

    @property
    def postmaster_pid(self) -> int | None:
        """The running postmaster of this node, whoever started it."""
        with suppress(FileNotFoundError, ValueError, IndexError):
            pid = int((self.data / "postmaster.pid").read_text().splitlines()[0])
            facts = proc.stat(pid)
            if facts and facts.state not in "ZX" and str(self.data).encode() in proc.cmdline(pid):
                return pid
        return None

    @property
    def postgres_pids(self) -> list[int]:
        """The postmaster and its children."""
        pid = self.postmaster_pid
        return [pid, *proc.children(pid)] if pid else []

    @property
    def patroni_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start Patroni, waiting for nothing; it starts PostgreSQL, or takes over the one that runs."""
        assert not self.patroni_running, f"the Patroni of {self.name} runs already"
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [self._patroni_bin / "patroni", self.config],
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_patroni(self) -> None:
        """Patroni alone; PostgreSQL goes on."""
        process, self._process = self._process, None
        assert process, f"the Patroni of {self.name} does not run"
        process.kill()
        process.wait()

    def kill_postmaster(self) -> None:
        pid = self.postmaster_pid
        assert pid, f"the PostgreSQL of {self.name} does not run"
        os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """Everything of this node, at once."""
        pids = proc.members(self._process.pid) if self._process else []
        if pid := self.postmaster_pid:
            _signal([pid], signal.SIGSTOP)  # it forks no more
        _signal([*pids, *self.postgres_pids], signal.SIGKILL)
        process, self._process = self._process, None
        if process:
            process.wait()

    def signal(self, what: What, number: signal.Signals) -> None:
        """To the one Patroni, or to all processes of PostgreSQL."""
        _signal([self.patroni_pid] if what == "patroni" else self.postgres_pids, number)

    def member(self) -> Member | None:
        """The node's state, or None while its Patroni does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.address}:{REST_PORT}/primary", timeout=REST_TIMEOUT) as answer:
                body, has_lock = answer.read(), True
        except urllib.error.HTTPError as error:
            with error:
                body, has_lock = error.read(), False
        except (urllib.error.URLError, OSError):
            return None
        fields = json.loads(body)
        return Member(
            name=self.name,
            role=fields["role"],
            state=fields["state"],
            timeline=fields.get("timeline"),
            streaming=fields.get("replication_state") == "streaming",
            has_lock=has_lock,
        )

    def ask(self, method: str, path: str, body: object = None, *, timeout: float) -> str:
        """Have Patroni do something, and return what it says to it. Raises RefusedError."""
        request = urllib.request.Request(
            f"http://{self.address}:{REST_PORT}/{path}", method=method, data=json.dumps(body).encode()
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            with error:
                raise RefusedError(error.code, f"{self.name}: {path}: {error.code} {error.read().decode()}") from None

    def connect(
        self, user: str = SUPERUSER, password: str = SUPERUSER_PASSWORD, dbname: str = "postgres"
    ) -> psycopg.Connection:
        """A session straight to this node, in autocommit mode."""
        return psycopg.connect(
            host=self.address,
            port=PORT,
            user=user,
            password=password,
            dbname=dbname,
            connect_timeout=CONNECT_TIMEOUT,
            autocommit=True,
        )

    def sql(self, query: Query, parameters: list[Any] | None = None, *, dbname: str = "postgres") -> list[Any]:
        """Rows of one statement of the superuser's."""
        with self.connect(dbname=dbname) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def create_role(self, name: str, password: str, *, monitor: bool = False) -> None:
        query = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
        self.sql(query + sql.SQL(" IN ROLE pg_monitor") if monitor else query)

    def _configuration(self, directory: Path, postgres_bin: Path, options: Options) -> dict[str, Any]:
        return {
            "scope": SCOPE,
            "name": self.name,
            "restapi": {"listen": f"{self.address}:{REST_PORT}", "connect_address": f"{self.address}:{REST_PORT}"},
            "etcd3": {"hosts": etcd.HOSTS},
            "bootstrap": {
                "dcs": options.dynamic(),
                "initdb": [
                    *({name: value} for name, value in INITDB.items()),
                    "no-sync",
                ],
            },
            "postgresql": {
                "listen": f"{self.address}:{PORT}",
                "connect_address": f"{self.address}:{PORT}",
                "data_dir": str(self.data),
                "bin_dir": str(postgres_bin),
                "pgpass": str(directory / f"{self.name}.pgpass"),
                "pg_hba": HBA.splitlines(),
                "basebackup": [{"checkpoint": "fast"}, "no-sync"],
                "authentication": {
                    "superuser": {"username": SUPERUSER, "password": SUPERUSER_PASSWORD},
                    "replication": {"username": REPLICATOR, "password": REPLICATOR_PASSWORD},
                },
            },
        }


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
