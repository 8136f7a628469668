"""A pod in fake time: real files and the real rotation, with a fake pgpool and a fake PostgreSQL.

Whatever passes a seam takes a moment, in which scheduled things happen and at which the sidecar may be killed.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from entrypoint import boot, pipeline
from entrypoint.backends import Backend
from entrypoint.errors import ConfigurationError
from entrypoint.model import CURRENT
from entrypoint.program import Program, RejectedError
from entrypoint.publish import GENERATIONS, VERIFIED, marked, publish
from entrypoint.tree import Tree
from sidecar.events import Events
from sidecar.login import Outcome
from sidecar.metrics import Metrics
from sidecar.options import Options
from sidecar.rotation import Rotation
from sidecar.status import State, Status
from sidecar.surroundings import Surroundings
from support.fakes import Clock, FakeDatabase, FakePgpool, Killed, Seams


class World:
    """A pod: its Secrets below `root`, its run directory, pgpool, and a sidecar."""

    def __init__(
        self,
        root: Path,
        passwords: Mapping[str, str],
        *,
        restart: str = "auto",
        restart_spread: float = 60,
        removal_grace: float = 600,
    ) -> None:
        self.root = root
        self.run_dir = root / "run"
        self.users = root / "users"
        for directory in (self.run_dir, self.users):
            directory.mkdir(parents=True)
        self.clock = Clock()
        self.seams = Seams(self.clock)
        self.database = FakeDatabase(self.clock, dict(passwords))
        self.pgpool = FakePgpool(self.run_dir, self.database)
        self.database.seam = self.pgpool.seam = self.seams
        self.lines: list[str] = []
        self.dry_runs = 0
        self.parser_refuses = False
        self.options = Options(
            run_dir=self.run_dir,
            http=("", 9719),
            restart=restart,
            restart_spread=restart_spread,
            reread=60,  # slower than by default: nothing may depend on it
            removal_grace=removal_grace,
            database="postgres",
            nodes="keep",
            log="logfmt",
        )
        self.env = {
            "PGPOOL_BACKENDS": "postgres-1=127.0.0.2",
            "PGPOOL_USERS_DIR": str(self.users),
            "PGPOOL_RUN_DIR": str(self.run_dir),
            "PGPOOL_CHECK_USER": "sr_check",
        }
        for role, password in passwords.items():
            self.secret(role, password)
        self.random = random.Random(0)
        self.metrics = Metrics("0")
        self.rotation = self.new_sidecar()
        self.deaths = 0
        self.hints = True
        """Whether the sidecar is woken when something happens, as by its watch of the Secrets."""

    # --- the outside -------------------------------------------------------------------------------------------------

    def file(self, name: str, content: str) -> Path:
        path = self.root / name
        path.write_text(content)
        return path

    def secret(self, role: str, password: str) -> None:
        """A role's file in the users directory, replaced by rename."""
        temporary = self.root / "temporary"
        temporary.write_text(f"{password}\n")
        temporary.replace(self.users / role)

    def change(self, role: str, password: str) -> None:
        """The same in PostgreSQL."""
        self.database.passwords[role] = password

    def boot(self) -> Tree:
        """All that a boot does until it has become pgpool."""
        installed = Program(Path("/opt/pgpool"), "4.6.1")
        resolved, tree = pipeline.prepare(self.env, None, self.clock.now(), to_run=True)
        boot._write_inputs(self.env, resolved.settings, resolved.model, installed)  # noqa: SLF001
        publish(tree, self.run_dir, booting=True)
        self.pgpool.start(resolved.model.key)
        return tree

    def reboot(self) -> bool:
        """What the kubelet does when pgpool has ended; a boot refuses Secrets that it cannot use."""
        self.pgpool.running = False
        try:
            self.boot()
        except ConfigurationError:
            return False
        return True

    # --- the sidecar -------------------------------------------------------------------------------------------------

    def new_sidecar(self) -> Rotation:
        """Another process, which knows what is on disk and nothing else."""
        self.rotation = Rotation(self.surroundings())
        return self.rotation

    def surroundings(self) -> Surroundings:
        """What a sidecar has around it here."""
        return Surroundings(
            run_dir=self.run_dir,
            env={},
            database=self._database,
            pgpool=self.pgpool,
            dry_run=self._dry_run,
            options=self.options,
            host_name="pgpool-0",
            events=Events(self, "logfmt", self.clock.now),  # type: ignore[arg-type]  # all of TextIO that it uses
            metrics=self.metrics,
            now=self.clock.now,
            clock=self.clock,
            sleep=self.clock.sleep,
            draw=self.random.uniform,
        )

    def _database(self, backends: Sequence[Backend], database: str) -> FakeDatabase:
        assert [backend.name for backend in backends] == ["postgres-1"]
        assert database == "postgres"
        return self.database

    def _dry_run(self, conf: bytes) -> None:
        assert conf.startswith(b"# Written by pgpool-entrypoint")
        self.dry_runs += 1
        if self.parser_refuses:
            raise RejectedError("pgpool rejects the configuration")

    def write(self, line: str) -> int:
        """The stream of events."""
        self.lines.append(line)
        self.seams("event " + line.partition("event=")[2].partition(" ")[0].strip())
        return len(line)

    def flush(self) -> None:
        """The stream of events."""

    def step(self) -> Status:
        """One step of a sidecar that is started anew when it was killed."""
        try:
            return self.rotation.step()
        except Killed:
            self.deaths += 1
            return self.new_sidecar().status

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Go on like the sidecar's loop for so long, or until something is true; then true."""
        end = self.clock() + seconds
        while True:
            self.step()
            if until():
                return True
            left = end - self.clock()
            if left <= 0:
                return False
            hint = self.clock.until_next() if self.hints else math.inf
            self.clock.sleep(min(self.options.reread, max(self.rotation.due_seconds(), 0.05), hint, left))

    # --- judgement ---------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        return self.rotation.status

    def events(self, word: str) -> list[str]:
        return [line for line in self.lines if word in line]

    def would_boot(self) -> Tree:
        """What a boot would publish; the same each time only with a PCP password and a key that are given."""
        return pipeline.prepare(self.env, None, self.clock.now())[1]

    def faults(self, passwords: Mapping[str, str]) -> list[str]:
        """Everything by which pgpool does not serve exactly these roles."""
        found = [
            f"child {number} and {role}: {outcome.name}"
            for number, child in enumerate(self.pgpool.children)
            for role, password in passwords.items()
            if (outcome := self.pgpool.through(child, role, password).outcome) is not Outcome.ACCEPTED
        ]
        found += [
            f"child {number} has {sorted(child.entries)}"
            for number, child in enumerate(self.pgpool.children)
            if child.entries.keys() != passwords.keys()
        ]
        if marked(self.run_dir, VERIFIED) != marked(self.run_dir, CURRENT):
            found.append("what is live is not verified")
        if self.status.state is not State.IN_SYNC:
            found.append(f"{self.status.state}: {self.status.reason}")
        return found

    def readable(self) -> bool:
        """Whether the running pgpool has the key of the live pool_passwd."""
        return not self.pgpool.running or bool(self.pgpool.read())

    def rubbish(self) -> list[str]:
        """What publishing must not leave behind."""
        names = [path.name for path in (*self.run_dir.iterdir(), *(self.run_dir / GENERATIONS).iterdir())]
        many = len(list((self.run_dir / GENERATIONS).iterdir())) > 4
        return [name for name in names if name.startswith(".")] + (["too many generations"] if many else [])
