"""Clients that write all the time, in a process of their own, to tell what they see of faults."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from psycopg.abc import ConnParam
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from support import probe_report
from support.deadline import wait_until
from support.probe_client import Crew
from support.probe_log import STEADY, Ack, Intent, JournalReader, Record, kind_of
from support.probe_report import Audit, Report

START_TIMEOUT = 60.0
STOP_TIMEOUT = 5.0
PATIENCE = 40
"""Seconds that a client of pgpool waits for its login: longer than pgpool holds one during a failover (30 s)."""
DIRECT_PATIENCE = 2
"""Seconds for each node, when libpq looks for the one that takes writes."""

TABLE = """\
CREATE TABLE {table} (
    worker text NOT NULL,
    seq integer NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    timeline text NOT NULL DEFAULT substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8),
    node text DEFAULT host(inet_server_addr()) || ':' || inet_server_port()
)"""
"""Without a key, so that a row that was written twice is seen as that, and is no error of its own."""

Admin = Callable[[], psycopg.Connection]
"""Gives a superuser's session at the primary of that moment, in autocommit mode."""


def through_pgpool(address: tuple[str, int], **login: ConnParam) -> str:
    """`login` has user, password and dbname, and may overrule any other parameter of libpq."""
    host, port = address
    defaults: dict[str, ConnParam] = {"host": host, "port": port, "connect_timeout": PATIENCE}
    return make_conninfo("", **(defaults | login))


def to_the_nodes(addresses: Sequence[tuple[str, int]], **login: ConnParam) -> str:
    """The floor: libpq itself looks for the node that takes writes. `login` is as above."""
    defaults: dict[str, ConnParam] = {
        "host": ",".join(host for host, _ in addresses),
        "port": ",".join(str(port) for _, port in addresses),
        "target_session_attrs": "read-write",
        "connect_timeout": DIRECT_PATIENCE,
    }
    return make_conninfo("", **(defaults | login))


class Prober:
    """Writes from `with` to its end; rows go to a table of its own, events to a file in `directory`.

    The table remains afterwards, for `audit`.
    """

    def __init__(self, name: str, conninfo: str, directory: Path, admin: Admin, crew: Crew | None = None) -> None:
        """Start nothing yet; `conninfo` is what `through_pgpool` or `to_the_nodes` give."""
        self.name = name
        self.table_name = f"probe_{name}"
        self.table = sql.Identifier(self.table_name)
        self.journal = directory / f"{name}.journal"
        self.log_path = directory / f"{name}.log"
        self._conninfo = make_conninfo(conninfo, application_name=name)
        self._admin = admin
        self._crew = crew or Crew()
        self._reader = JournalReader(self.journal)
        self._process: subprocess.Popen[bytes] | None = None
        self._began = self._ended = 0.0

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_writing()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            self.stop()

    @property
    def pid(self) -> int:
        assert self._process, "the prober has not been started"
        return self._process.pid

    @property
    def records(self) -> list[Record]:
        return self._reader.records()

    @property
    def log(self) -> str:
        """What the process itself has to say: nothing, if all is well."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def start(self) -> None:
        """Make the table, start the process, and wait for nothing."""
        user = sql.Identifier(str(conninfo_to_dict(self._conninfo)["user"]))
        with closing(self._admin()) as admin:
            admin.execute(sql.SQL(TABLE).format(table=self.table))
            admin.execute(sql.SQL("GRANT SELECT, INSERT ON {} TO {}").format(self.table, user))
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "support.probe_client", str(self.journal)],
                env={"PATH": os.defpath, "PYTHONPATH": str(Path(__file__).parents[1])},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._began = time.monotonic()
        assert self._process.stdin
        # There is a password in it, which neither a command line nor an environment may show.
        orders = json.dumps([self._conninfo, self.table_name, asdict(self._crew)])
        self._process.stdin.write(orders.encode() + b"\n")
        self._process.stdin.flush()

    def wait_until_writing(self) -> None:
        """Wait until every worker has written; time spent with that is not reported unless asked for."""
        wait_until(
            lambda: len({record.worker for record in self._alive() if isinstance(record, Ack)}) == self._crew.size,
            timeout=START_TIMEOUT,
            failure=lambda: f"not all of {self.name} write: {self.records[-5:]}\n{self.log}",
        )
        self._began = time.monotonic()

    def wait_until_acknowledged(self, moment: float, *, kind: str = STEADY, timeout: float) -> float:
        """Wait for an acknowledgment after a moment, and return how many seconds after it came."""
        return wait_until(
            lambda: probe_report.next_ack(self._alive(), moment, kind),
            timeout=timeout,
            failure=lambda: f"{self.name} got none: {[r for r in self.records if kind_of(r.worker) == kind][-5:]}",
        )

    def report(self, since: float | None = None, until: float | None = None) -> Report:
        """What its clients saw; by default, since all wrote and until now, or the prober's end."""
        end = time.monotonic() if self._process else self._ended
        return probe_report.report(self.records, self._began if since is None else since, until or end)

    def audit(self) -> Audit:
        """Compare what was acknowledged with what the primary of this moment has."""
        acknowledged = probe_report.rows(self.records, Ack)
        with closing(self._admin()) as admin:
            table = admin.execute(sql.SQL("SELECT worker, seq FROM {}").format(self.table)).fetchall()
        return probe_report.audit(acknowledged, table, probe_report.rows(self.records, Intent))

    def stop(self) -> None:
        """Let what is under way end, for a moment."""
        process, self._process = self._process, None
        assert process, "the prober has not been started"
        self._ended = time.monotonic()
        assert process.stdin
        process.stdin.close()
        try:
            code = process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the prober {self.name} does not end: {self.log}") from None
        assert code == 0, f"the prober {self.name} ended with {code}: {self.log}"

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        assert process, "the prober has not been started"
        process.kill()
        process.wait()
        self._ended = time.monotonic()
        assert process.stdin
        process.stdin.close()

    def _alive(self) -> list[Record]:
        assert self._process, "the prober has not been started"
        code = self._process.poll()
        assert code is None, f"the prober {self.name} ended with {code}: {self.log}"
        return self.records
