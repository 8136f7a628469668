"""A running sidecar, put together from its parts."""

import shutil
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from entrypoint import __version__
from entrypoint.backends import Backend
from entrypoint.errors import ProgramMissingError
from entrypoint.inputs import read_inputs
from entrypoint.probe import Verdict
from entrypoint.program import find_program
from entrypoint.secret import Secret
from sidecar.access import Access
from sidecar.events import Events
from sidecar.exporter import Exporter
from sidecar.health import pgpool_live, pgpool_ready
from sidecar.keeper import RESTING_SECONDS, SPARING_SECONDS, Keeper
from sidecar.libpq import Rows, check_libpq
from sidecar.login import Attempt, Servers
from sidecar.loops import Loops
from sidecar.metrics import Metrics
from sidecar.node_metrics import NodeMetrics
from sidecar.nodeloop import BootedCluster, NodeLoop
from sidecar.options import Options
from sidecar.pcp import Pcp
from sidecar.pool import Pool
from sidecar.pulse import Pulse
from sidecar.rotation import Rotation
from sidecar.snapshot import COMMAND_SECONDS
from sidecar.standing import Credentials
from sidecar.surroundings import Surroundings
from sidecar.table import TableReader
from sidecar.through_pgpool import QueryError, rows_through_pgpool, through_pgpool
from sidecar.web import Sources, Web, pages

SILENT_STATISTICS = "09"
"""The patch without which pgpool logs three lines of each node whenever its table is read."""


class Sidecar:
    """The parts that a command uses; nothing runs before it says so."""

    def __init__(self, options: Options, env: Mapping[str, str], *, write_status: bool = True) -> None:
        """Look for all that must be installed; `write_status`: status.json is ours, nobody else runs.

        Raises ProgramMissingError or ProgramUnusableError.
        """
        check_libpq()
        program = find_program(env)
        if shutil.which("pcp_reload_config", path=env.get("PATH")) is None:
            raise ProgramMissingError(
                "pcp_reload_config is not on PATH; it belongs to pgpool\n"
                "  → install all of pgpool's programs in one directory of PATH"
            )
        self.events = Events(sys.stderr, "json" if options.log == "json" else "logfmt", lambda: datetime.now(UTC))
        self._options = options
        self._env = env
        self._metrics = Metrics(__version__)
        self._access = Access(options.run_dir, env)
        self._asked: tuple[tuple[Backend, ...], str] = ((), options.database)
        self._servers = Servers(*self._asked)
        pulse = Pulse("rotation")

        def pause(seconds: float) -> None:
            # Waiting for PCP may take a minute in all: whoever waits lives.
            pulse.beat()
            time.sleep(seconds)

        pool = Pool(self._pcp(), self._login, sleep=pause)
        around = Surroundings(
            run_dir=options.run_dir,
            env=env,
            database=self.servers,
            pgpool=pool,
            dry_run=lambda conf: program.dry_run(conf, env),
            options=options,
            host_name=socket.gethostname(),
            events=self.events,
            metrics=self._metrics,
            write_status=write_status,
            beat=pulse.beat,
        )
        self.rotation = Rotation(around)
        self.loops = Loops(self.rotation, pulse, around)
        self._cluster = BootedCluster(options.run_dir, self._check_role, self.events)
        self._looks = options.nodes != "off"
        # Of a table that nobody looks at, nobody is told the age: it would be an alarm.
        numbers = NodeMetrics(self._metrics.registry if self._looks else CollectorRegistry())
        self.keeper = Keeper(
            self._cluster,
            TableReader(self._access),
            Pool(self._pcp(COMMAND_SECONDS), self._login, patience=COMMAND_SECONDS),
            self.events,
            numbers.note,
            numbers.count,
            acts=options.nodes == "keep",
            good_for=RESTING_SECONDS if SILENT_STATISTICS in program.patches else SPARING_SECONDS,
        )
        self._node_loop = NodeLoop(self.keeper, self._cluster, Pulse("node"), self.loops.stop, self.events)
        self._exporter = Exporter(self._pcp(COMMAND_SECONDS), self.ask)
        self._metrics.registry.register(self._exporter)

    def start(self) -> None:
        """Start the loops. They are no obstacle to the end of the process."""
        self.loops.start()
        if self._looks:
            self._node_loop.thread.start()

    def end(self) -> None:
        """Stop the loops."""
        self.loops.stop.set()
        self._cluster.wake.set()
        self.loops.end()

    def servers(self, backends: Sequence[Backend], database: str) -> Servers:
        """The same ones as last time while nothing differs, for they remember who is primary."""
        if (asked := (tuple(backends), database)) != self._asked:
            self._asked, self._servers = asked, Servers(*asked)
        return self._servers

    def web(self, address: tuple[str, int]) -> Web:
        """The HTTP server; it has the port when this returns. Raises OSError."""
        run_dir, env = self._options.run_dir, self._env
        sources = Sources(
            live=self._live,
            ready=self.loops.ready,
            pgpool_live=lambda: pgpool_live(run_dir, self._access, env),
            pgpool_ready=lambda: pgpool_ready(run_dir, self._access, env),
            status=self._status,
            registry=self._metrics.registry,
        )
        return Web(address, pages(sources))

    def ask(self, query: str) -> Rows:
        """The rows of one statement through pgpool, as the check role with the password that pgpool has.

        A Secret may have another one already. Raises QueryError; OSError or ValueError before a boot, or in its midst.
        """
        run_dir = self._options.run_dir
        check = self._check_role()
        if check is None:
            raise QueryError("the password that pgpool has of the check role is not known")
        role, password, _ = check
        port, databases = read_inputs(run_dir).port, self._servers.databases(role)
        return rows_through_pgpool(run_dir, port, role, password, query, databases, seconds=COMMAND_SECONDS)

    def _check_role(self) -> Credentials | None:
        check = self.rotation.check_role()
        return check and (*check, self._servers.databases(check[0])[0])

    def _pcp(self, seconds: float = 3.0) -> Pcp:
        pcp = Pcp(self._access, self._env, seconds=seconds)
        pcp.calls = self._metrics.pcp_called
        return pcp

    def _login(self, role: str, password: Secret) -> Attempt:
        """Through the pgpool that booted last."""
        run_dir = self._options.run_dir
        return through_pgpool(run_dir, read_inputs(run_dir).port, role, password, self._servers.databases(role))

    def _live(self) -> Verdict:
        """Whether all loops that run beat."""
        rotation = self.loops.live()
        return self._node_loop.live() if rotation.good and self._looks else rotation

    def _status(self) -> Mapping[str, object]:
        """What status.json has, what the last scrape lacked, and what the node loop sees."""
        document = {**self.rotation.status.document(), "exporter": {"error": self._exporter.error}}
        return {**document, "nodes": self.keeper.view.document(time.monotonic())} if self._looks else document
