"""Fake time, and in it a pgpool and a PostgreSQL that do what a test says. They stand at the sidecar's own seams."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from entrypoint.model import CURRENT
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.generation import Generation, marker
from sidecar.login import Attempt, Outcome
from sidecar.pcp import PcpError

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
