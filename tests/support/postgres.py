"""A real PostgreSQL server that lives in one directory and lets nobody in without SCRAM."""

import shutil
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, LiteralString, Protocol, Self

import psycopg
from psycopg import sql

from support.deadline import wait_until
from support.ports import free_port

SUPERUSER = "postgres"
SUPERUSER_PASSWORD = "superuser's \\ own pässword"  # awkward: it is used all the time

START_TIMEOUT = 30.0
STOP_TIMEOUT = 30.0

HBA = """\
local all         all                           scram-sha-256
host  all         all              127.0.0.0/8  scram-sha-256
host  replication all              127.0.0.0/8  scram-sha-256
"""

Query = LiteralString | sql.SQL | sql.Composed


def initialise(data: Path, bin_dir: Path) -> None:
    """Create the data directory of a new cluster whose superuser has `SUPERUSER_PASSWORD`."""
    data.parent.mkdir(parents=True, exist_ok=True)
    password = data.parent / f"{data.name}.password"
    password.write_text(f"{SUPERUSER_PASSWORD}\n", encoding="utf-8")
    password.chmod(0o600)
    command: list[str | Path] = [bin_dir / "initdb", "--pgdata", data, "--username", SUPERUSER]
    command += ["--pwfile", password, "--auth", "scram-sha-256"]
    command += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--wal-segsize", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    password.unlink()
    assert result.returncode == 0, f"initdb failed:\n{result.stdout}{result.stderr}"
    (data / "pg_hba.conf").write_text(HBA)


class PostgresServer:
    """One server process; the data survives `stop`, so that `start` brings the same cluster back."""

    def __init__(
        self,
        directory: Path,
        bin_dir: Path,
        *,
        template: Path | None = None,
        host: str = "127.0.0.1",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a server below `directory`; `template` is a data directory to copy."""
        self.directory = directory
        self.bin_dir = bin_dir
        self.host = host
        self.port = free_port()
        self.data = directory / "data"
        self.log_path = directory / "log"
        self._template = template
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = {
            "listen_addresses": host,
            "port": str(self.port),
            "unix_socket_directories": str(directory),
            "password_encryption": "scram-sha-256",
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "16MB",
            "max_connections": "100",
            "wal_level": "replica",
            "log_connections": "on",
            "log_line_prefix": "%m [%p] %u@%d ",
        } | dict(settings or {})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        assert self._process, "the server has not been started"
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Start the server, and wait until it answers queries."""
        assert self._process is None, "the server runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self.data.exists():
            if self._template:
                shutil.copytree(self._template, self.data)
            else:
                initialise(self.data, self.bin_dir)
        command: list[str | Path] = [self.bin_dir / "postgres", "-D", self.data]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.directory,
                env={"PATH": f"{self.bin_dir}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"},
            )
        try:
            wait_until(self._answers, timeout=START_TIMEOUT, failure=lambda: f"PostgreSQL's log:\n{self.log}")
        except BaseException:
            self.stop("immediate")
            raise

    def stop(self, mode: str = "fast") -> None:
        """Stop the server if it runs: `fast` cuts sessions, `immediate` is a crash."""
        process, self._process = self._process, None
        if not process:
            return
        process.send_signal(signal.SIGQUIT if mode == "immediate" else signal.SIGINT)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()  # the other processes notice that their parent is gone, and end
            process.wait()
            raise AssertionError(f"PostgreSQL did not stop. Its log:\n{self.log}") from None

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def connect(
        self, user: str = SUPERUSER, password: str = SUPERUSER_PASSWORD, dbname: str = "postgres"
    ) -> psycopg.Connection:
        """A session of its own, in autocommit mode."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user=user,
            password=password,
            dbname=dbname,
            connect_timeout=10,
            autocommit=True,
        )

    def sql(
        self, query: Query, params: Sequence[object] | None = None, *, dbname: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run one statement as the superuser, and return its rows (none for a statement without a result)."""
        with self.connect(dbname=dbname) as connection:
            cursor = connection.execute(query, params)
            return cursor.fetchall() if cursor.description else []

    def create_role(self, name: str, password: str, *, monitor: bool = False) -> None:
        """A role that may log in; `monitor` grants what a check user needs to see replication."""
        role = sql.Identifier(name)
        self.sql(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, sql.Literal(password)))
        if monitor:
            self.sql(sql.SQL("GRANT pg_monitor TO {}").format(role))

    def create_roles(self, passwords: Mapping[str, str]) -> None:
        """Many roles at once, by name."""
        query = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
        with self.connect() as connection:
            for role, password in passwords.items():
                connection.execute(query.format(sql.Identifier(role), sql.Literal(password)))

    def drop_roles(self, roles: Iterable[str]) -> None:
        """Remove roles that own nothing."""
        with self.connect() as connection:
            for role in roles:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def alter_password(self, name: str, password: str) -> None:
        self.sql(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(password)))

    def drop_role(self, name: str) -> None:
        """Remove a role with what it owns in the `postgres` database, ending its sessions first."""
        self.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [name])
        self.sql(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
        self.sql(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))

    def create_database(self, name: str, *, owner: str = SUPERUSER) -> None:
        query = sql.SQL("CREATE DATABASE {} OWNER {}")
        self.sql(query.format(sql.Identifier(name), sql.Identifier(owner)))

    def drop_database(self, name: str) -> None:
        self.sql(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def databases(self) -> list[str]:
        return [name for (name,) in self.sql("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1")]

    def _answers(self) -> bool:
        process = self._process
        assert process is not None
        if process.poll() is not None:
            raise AssertionError(f"PostgreSQL ended with {process.returncode}. Its log:\n{self.log}")
        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class NewServer(Protocol):
    """Starts a further PostgreSQL server for this test alone."""

    def __call__(self, settings: Mapping[str, str] | None = None, *, host: str = "127.0.0.1") -> PostgresServer: ...
