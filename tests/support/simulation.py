"""A pod in fake time: real files and the real rotation, with a pgpool and a PostgreSQL that do what a test says.

The fakes stand at the sidecar's own seams. Whatever passes a seam takes a moment, in which scheduled things happen and
at which the sidecar may be killed.
"""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from entrypoint import boot, pipeline
from entrypoint.backends import Backend
from entrypoint.errors import ConfigurationError
from entrypoint.model import CURRENT
from entrypoint.program import Program, RejectedError
from entrypoint.publish import GENERATIONS, VERIFIED, marked, publish
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.events import Events
from sidecar.generation import Generation, marker
from sidecar.login import Attempt, Outcome
from sidecar.metrics import Metrics
from sidecar.options import Options
from sidecar.pcp import PcpError
from sidecar.rotation import Rotation
from sidecar.status import State, Status
from sidecar.surroundings import Surroundings

MOMENT = 0.01
"""Seconds that whatever passes a seam takes."""
CHILDREN = 3


class Killed(BaseException):
    """The sidecar ends here: nothing that follows is executed."""


class Clock:
    """Fake time; what is scheduled happens when its time has come."""

    def __init__(self) -> None:
        self.began = datetime.now(UTC)
        self.seconds = 1000.0
        self._planned: list[tuple[float, Callable[[], None]]] = []

    def __call__(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        """The files' times are real ones, so fake time begins with the real one."""
        return self.began + timedelta(seconds=self.seconds - 1000.0)

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do this when so many seconds have passed."""
        self._planned = sorted([*self._planned, (self.seconds + seconds, action)], key=lambda planned: planned[0])

    def sleep(self, seconds: float) -> None:
        until = self.seconds + seconds
        while self._planned and self._planned[0][0] <= until:
            when, action = self._planned.pop(0)
            self.seconds = max(self.seconds, when)
            action()
        self.seconds = max(self.seconds, until)

    @property
    def idle(self) -> bool:
        """Whether nothing is scheduled any more."""
        return not self._planned

    def until_next(self) -> float:
        """Seconds until something that is scheduled has happened."""
        return self._planned[0][0] - self.seconds if self._planned else math.inf


class Seams:
    """Counts what the sidecar does outside of itself, and kills it at the one that a test chose."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.passed: list[str] = []
        self.kill_in: int | None = None
        self.on: dict[str, Callable[[], None]] = {}
        """What happens when the sidecar passes the seam of that name."""

    def __call__(self, name: str) -> None:
        self._clock.sleep(MOMENT)
        self.passed.append(name)
        self.on.get(name, lambda: None)()
        if self.kill_in is not None:
            self.kill_in -= 1
            if self.kill_in <= 0:
                self.kill_in = None
                raise Killed(name)


@dataclass
class FakeDatabase:
    """PostgreSQL: one password per role."""

    clock: Clock
    passwords: dict[str, str]
    also: dict[str, set[str]] = field(default_factory=dict)
    """Further passwords that it accepts, as no single server does."""
    reachable: bool = True
    asked: list[tuple[float, str, Outcome]] = field(default_factory=list)
    """Direct logins of the sidecar: when, role, answer."""
    seam: Callable[[str], None] = lambda _: None

    def attempt(self, role: str, password: Secret) -> Attempt:
        self.seam("database.attempt")
        attempt = self.judge(role, password)
        self.asked.append((self.clock(), role, attempt.outcome))
        return attempt

    def judge(self, role: str, password: Secret) -> Attempt:
        if not self.reachable:
            return Attempt(Outcome.UNKNOWN, "not reachable")
        if password.reveal() in {self.passwords.get(role), *self.also.get(role, ())}:
            return Attempt(Outcome.ACCEPTED, "")
        return Attempt(Outcome.REJECTED, "28P01: password refused")


@dataclass
class Child:
    """A process of pgpool, with the pool_passwd that it has read."""

    entries: Mapping[str, str]
    busy: bool = False
    retiring: bool = False
    logins: list[str] = field(default_factory=list)


class FakePgpool:
    """pgpool: knows the key that it was started with, and reads what is live when told so."""

    def __init__(self, run_dir: Path, database: FakeDatabase) -> None:
        self.run_dir = run_dir
        self.database = database
        self.running = False
        self.away = False
        """PCP does not answer; clients are served."""
        self.lose = 0
        """So many reloads are not carried out, although it said so."""
        self.flaps = 0
        """So many logins are refused without a reason."""
        self.refuses: set[str] = set()
        """Passwords that it never lets in, although PostgreSQL does."""
        self.children: list[Child] = []
        self.reloads = self.retirements = self.stops = 0
        self.logins: list[tuple[str, Outcome]] = []
        self.seam: Callable[[str], None] = lambda _: None
        self._key: Secret | None = None
        self.marker = ""
        """Of the pgpool.conf that it has read."""
        self._turn = 0

    # --- what the machine does -----------------------------------------------------------------------------------

    def start(self, key: Secret | None) -> None:
        self.running = True
        self._key = key
        self.marker = marker(self._live())
        self.children = [Child(self.read()) for _ in range(CHILDREN)]

    def read(self) -> Mapping[str, str]:
        """pool_passwd as a process reads it: nobody gets in with one that was encrypted with another key."""
        roles = Generation("live", self._live()).roles(self._key)
        return {} if roles is None else {role: password.reveal() for role, password in roles.passwords.items()}

    def _live(self) -> Tree:
        return Tree({file.name: file.read_bytes() for file in (self.run_dir / CURRENT).iterdir()})

    def end_sessions(self) -> None:
        for child in self.children:
            child.busy = False
            if child.retiring:
                child.entries, child.retiring = self.read(), False

    # --- what the sidecar sees -----------------------------------------------------------------------------------

    def _answer(self, command: str) -> None:
        self.seam(f"pgpool.{command}")
        if self.away or not self.running:
            raise PcpError(f"pcp_{command}", "nobody is there", away=True)

    def reload(self) -> None:
        self._answer("reload")
        self.reloads += 1
        if self.lose:
            self.lose -= 1
            return
        self.marker = marker(self._live())
        for child in self.children:
            if not child.busy:
                child.entries = self.read()

    def arrived(self, marker: str) -> bool:
        self._answer("arrived")
        return marker == self.marker

    def retire(self) -> None:
        self._answer("retire")
        self.retirements += 1
        for child in self.children:
            child.retiring = True
        idle = [child for child in self.children if not child.busy]
        for child in idle:
            child.entries, child.retiring = self.read(), False

    def renew_checks(self, nodes: int) -> tuple[int, ...]:  # noqa: ARG002  # the Protocol's
        self._answer("renew_checks")
        return ()

    def stop(self) -> None:
        self._answer("stop")
        self.stops += 1
        self.running = False

    def login(self, role: str, password: Secret) -> Attempt:
        self.seam("pgpool.login")
        attempt = self._login(role, password)
        self.logins.append((role, attempt.outcome))
        return attempt

    def _login(self, role: str, password: Secret) -> Attempt:
        idle = [child for child in self.children if not child.busy]
        if not self.running or not idle:
            return Attempt(Outcome.UNKNOWN, "not reachable")
        self._turn += 1
        child = idle[self._turn % len(idle)]
        if self.flaps:
            self.flaps -= 1
            return Attempt(Outcome.REJECTED, "28P01: password refused")
        return self.through(child, role, password.reveal())

    def through(self, child: Child, role: str, password: str) -> Attempt:
        """A login that this child serves."""
        if password in self.refuses or child.entries.get(role) != password:
            return Attempt(Outcome.REJECTED, "28P01: password refused")
        return self.database.judge(role, Secret(password))


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
        self.rotation = Rotation(
            Surroundings(
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
        )
        return self.rotation

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
