"""A pgpool before a primary and its standby, told what to do by PCP: there is no sidecar."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import suppress
from datetime import datetime
from typing import NamedTuple, Protocol, TypeVar

import psycopg

from sidecar.pcp import Pcp, PcpError
from sidecar.table import TableReader
from support.deadline import wait_until
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, Pod
from support.postgres import SUPERUSER, SUPERUSER_PASSWORD, PostgresServer

STANDBY, PRIMARY, UNDEFINED = 0, 1, 127
"""Node ids. The standby comes first: without a primary, it is what an unpatched pgpool sends writes to."""
NO_PRIMARY = "set new primary node: -1"
SEARCHES = "waiting for finding a primary node"

T = TypeVar("T")


class Servers(NamedTuple):
    """What is behind pgpool; a test may stop them."""

    standby: PostgresServer
    primary: PostgresServer


def streams(servers: Servers) -> bool:
    return bool(servers.primary.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"))


def copy(primary: PostgresServer, standby: PostgresServer) -> None:
    """Make the data of a standby that is to be started, whatever it had before."""
    shutil.rmtree(standby.data, ignore_errors=True)
    standby.directory.mkdir(exist_ok=True)
    source = f"host={primary.host} port={primary.port} user={SUPERUSER}"
    subprocess.run(
        [primary.bin_dir / "pg_basebackup", "-D", standby.data, "-R", "-c", "fast", "--no-sync", "-d", source],
        env={"PGPASSWORD": SUPERUSER_PASSWORD, "PATH": "/usr/bin:/bin"},
        check=True,
    )


def lets_in(server: PostgresServer) -> bool:
    try:
        server.sql("SELECT 1")
    except psycopg.OperationalError:
        return False
    return True


class Stage:
    """A pgpool in front of both, told what to do by PCP."""

    def __init__(self, pod: Pod, pgpool: Pgpool, pcp: Pcp, table: TableReader) -> None:
        self.pod, self.pgpool, self.pcp, self.table = pod, pgpool, pcp, table
        self.sessions: list[psycopg.Connection] = []

    def connect(self) -> psycopg.Connection:
        """A session, for whoever closes it, or until the test's end."""
        session = self.pgpool.connect(APP_ROLE, APP_PASSWORD, "app", connect_timeout=60)
        self.sessions.append(session)
        return session

    def close(self) -> None:
        self.table.close()
        for session in self.sessions:
            session.close()

    def write(self) -> None:
        """Log in and write."""
        with self.connect() as session:
            session.execute("INSERT INTO written VALUES (1)")

    def write_named(self) -> None:
        """The same with an application_name, which a login on connections from the pool tells all nodes."""
        named = self.pgpool.connect(APP_ROLE, APP_PASSWORD, "app", connect_timeout=60, application_name="n8n")
        with named as session:
            session.execute("INSERT INTO written VALUES (7)")

    def until_told(self, command: Callable[[int], None], node_id: int) -> None:
        """Run a PCP command; PCP is away for a moment after each failover."""

        def told() -> bool:
            try:
                command(node_id)
            except PcpError as error:
                if not error.away:
                    raise
                return False
            return True

        wait_until(told, timeout=30, failure=lambda: self.pgpool.log)

    def look_again(self) -> None:
        """Have pgpool look for the primary, by a node that it does not know."""
        looked = self.pgpool.log.count("Failback done")
        with suppress(PcpError):  # refused when it was never attached
            self.pcp.detach(UNDEFINED)
        self.until_told(self.pcp.attach, UNDEFINED)
        self.wait_for_lines("Failback done", looked + 1)

    def status(self, node_id: int) -> str | None:
        try:
            return self.pcp.nodes()[node_id].status_name
        except PcpError as error:
            if not error.away:
                raise
            return None

    def wait_for_lines(self, text: str, count: int) -> list[datetime]:
        """When pgpool logged a text, so many times at least."""

        def times() -> list[datetime]:
            lines = re.findall(rf"^([-0-9]+ [:.0-9]+): .*{re.escape(text)}", self.pgpool.log, re.MULTILINE)
            return [datetime.fromisoformat(line) for line in lines] if len(lines) >= count else []

        return wait_until(times, timeout=30, failure=lambda: f"{text!r} {count} times:\n{self.pgpool.log}")

    def lose_primary(self, servers: Servers) -> None:
        """Crash the primary, and have pgpool notice by a login."""
        servers.primary.stop("immediate")
        with suppress(psycopg.OperationalError):
            self.pgpool.connect(APP_ROLE, APP_PASSWORD, "app", connect_timeout=2)
        self.pgpool.wait_until_logged(f"shutdown host {servers.primary.host}({servers.primary.port})")


class Start(Protocol):
    """Starts a pgpool with parameters of pgpool.conf; with TLS on both sides, or with the primary as node 0."""

    def __call__(self, *, tls: bool = False, primary_first: bool = False, **parameters: str) -> Stage: ...


def at_once(function: Callable[[], T]) -> Future[T]:
    """A call in a thread of its own, which need not end."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(function())
        except BaseException as error:  # noqa: BLE001 - whoever asks for the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def is_held(call: Future[T]) -> bool:
    """Whether a call does not come back within the time in which pgpool answers many times."""
    return not wait([call], timeout=1.5).done
