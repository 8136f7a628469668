"""Random misfortunes, each the same for the same seed: rotations by every kind of writer, while everything else fails.

A schedule ends with all faults over and the last change made. From there the pod must converge: every child of pgpool
serves what the newest valid Secrets say and PostgreSQL accepts.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal, get_args

from entrypoint.model import CURRENT
from support.secret_volume import SecretVolume
from support.simulation import World

Style = Literal["kubelet", "older kubelet", "rename", "truncate in place", "removed and made again"]
Order = Literal["database first", "secret first", "two roles"]

BETWEEN_WRITES = 0.03
"""Seconds between two steps of a writer: long enough for the sidecar to look in between."""
PERIOD = 300.0
"""Everything happens within so many seconds."""
GRACE = 60.0
CONVERGED_WITHIN = PERIOD + GRACE + 400.0
"""Seconds from the last event on: the longest backoff, the grace period and a heartbeat have room in it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one schedule."""

    seed: int
    seconds: float
    """From the last event until all was well, in fake time."""
    deaths: int
    """How often the sidecar was killed."""
    story: tuple[str, ...]
    """What happened, for people."""
    faults: tuple[str, ...]
    """What was still wrong at the end."""

    def __str__(self) -> str:
        return "\n  ".join([f"seed {self.seed}: {'; '.join(self.faults) or 'converged'}", *self.story])


def run_schedules(count: int, seed: int) -> Iterator[Outcome]:
    """So many schedules, each in a new directory, in memory where that is possible, as a pod's are."""
    memory = Path("/dev/shm")
    for number in range(seed, seed + count):
        root = Path(mkdtemp(prefix="schedule-", dir=memory if os.access(memory, os.W_OK) else None))
        try:
            yield run_schedule(number, root)
        finally:
            shutil.rmtree(root)


def run_schedule(seed: int, root: Path) -> Outcome:
    """One schedule in an empty directory."""
    return _Schedule(random.Random(seed), root).run(seed)


@dataclass
class _Writer:
    """One Secret below the users directory: `username` and `password`."""

    directory: Path
    style: Style
    now: Callable[[float, Callable[[], None]], None]
    """Does something after so many seconds."""
    content: dict[str, bytes] = field(default_factory=dict)

    def write(self, username: str, password: str) -> None:
        """Begin an update, which goes on by itself; the one before must be over."""
        payload = {"username": username.encode(), "password": f"{password}\n".encode()}
        self._go_on(self._steps(payload))

    def _go_on(self, steps: Iterator[object]) -> None:
        if next(steps, None) is not None:
            self.now(BETWEEN_WRITES, lambda: self._go_on(steps))

    def _steps(self, payload: Mapping[str, bytes]) -> Iterator[object]:
        if self.style in {"kubelet", "older kubelet"}:
            yield from SecretVolume(self.directory, links_first=self.style != "kubelet").steps(payload)
            return
        for name, content in payload.items():
            file = self.directory / name
            match self.style:
                case "rename":
                    temporary = self.directory / f"{name}1234"
                    temporary.write_bytes(content)
                    yield "written"
                    temporary.replace(file)
                case "truncate in place":
                    file.write_bytes(b"")
                    yield "truncated"
                    file.write_bytes(content)
                case _:
                    file.unlink(missing_ok=True)
                    yield "removed"
                    file.write_bytes(content)
            yield "made"


class _Schedule:
    def __init__(self, random_: random.Random, root: Path) -> None:
        self.random = random_
        self.story: list[str] = []
        self.world = world = World(root, {"sr_check": "sr_check 0 100%"}, removal_grace=GRACE)
        world.env["PGPOOL_PCP_PASSWORD_FILE"] = str(world.file("pcp", "pcp pass 100%\n"))
        world.env["PGPOOLKEYFILE"] = str(world.file("key", "key 100%\n"))
        world.random = random_
        world.hints = random_.random() < 0.7
        self.style: Style = random_.choice(get_args(Style))
        self.writers: dict[str, _Writer] = {}
        self.serial = 0
        self.wanted = {"sr_check": "sr_check 0 100%"}
        for name in ("app", "other"):
            self.writers[name] = _Writer(self._made(name), self.style, world.clock.at)
            self._secret(name, name, self._password(name))
            while not world.clock.idle:
                world.clock.sleep(1)

    def _made(self, name: str) -> Path:
        directory = self.world.users / name
        directory.mkdir()
        return directory

    def _password(self, role: str) -> str:
        self.serial += 1
        return f"{role} {self.serial} 100%"

    def _secret(self, name: str, role: str, password: str) -> None:
        self.world.change(role, password)
        self.wanted[role] = password
        self.writers[name].write(role, password)

    # --- what happens ------------------------------------------------------------------------------------------------

    def run(self, seed: int) -> Outcome:
        world = self.world
        world.boot()
        world.run(1)
        for name in self.writers:
            self._plan_rotations(name)
        for _ in range(self.random.randint(1, 4)):
            self._plan_fault()
        began = world.clock()
        unreadable = False

        def over() -> bool:
            nonlocal unreadable
            unreadable = unreadable or not world.readable()
            return world.clock.idle

        world.run(PERIOD + 60, over)
        world.seams.kill_in = None
        world.pgpool.end_sessions()
        ended = world.clock()
        world.run(CONVERGED_WITHIN, lambda: not self._faults())
        faults = self._faults()
        faults += ["a pool_passwd that pgpool has no key for"] if unreadable else []
        faults += [f"left behind: {name}" for name in world.rubbish()]
        self.story.append(f"after {ended - began:.1f} s all faults were over")
        return Outcome(seed, world.clock() - ended, world.deaths, tuple(self.story), tuple(faults))

    def _faults(self) -> list[str]:
        faults = self.world.faults(self.wanted)
        if not faults:
            live = self.world.run_dir / CURRENT
            if {file.name: file.read_bytes() for file in live.iterdir()} != self.world.would_boot().files:
                faults.append("what is live is not what a boot would publish")
        return faults

    def _at(self, seconds: float, what: str, action: Callable[[], None]) -> None:
        self.story.append(f"{seconds:5.1f} s: {what}")
        self.world.clock.at(seconds, action)

    def _plan_rotations(self, name: str) -> None:
        order: Order = self.random.choice(get_args(Order))
        role = name
        when = self.random.uniform(0, 60)
        for _ in range(self.random.randint(1, 3)):
            password = self._password(role)
            lag = self.random.choice([0.0, self.random.uniform(0, 1), self.random.uniform(0, 60)])
            if order == "two roles":
                former, role = role, f"{name} two" if role == name else name
                password = self._password(role)
                self.wanted.pop(former)
            first, then = self._parts(name, role, password, order)
            self._at(when, f"{role}, {order}, {self.style}", first)
            self._at(when + lag, f"{role} follows", then)
            self.wanted[role] = password
            when += lag + self.random.uniform(1, 60)

    def _parts(
        self, name: str, role: str, password: str, order: Order
    ) -> tuple[Callable[[], None], Callable[[], None]]:
        def database() -> None:
            self.world.change(role, password)

        def secret() -> None:
            self.writers[name].write(role, password)

        return (secret, database) if order == "secret first" else (database, secret)

    def _plan_fault(self) -> None:
        world, pgpool = self.world, self.world.pgpool
        when, length = self.random.uniform(0, 150), self.random.uniform(0, 60)
        points: dict[str, Callable[[], None]] = {
            "killed": self._kill,
            "rebooted": self._boot,
            "reload lost": _switch(pgpool, "lose", 1),
            "refusing twice": _switch(pgpool, "flaps", 2),
            "in sessions": self._open_sessions,
        }
        spans: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            "PCP away": (_switch(pgpool, "away", True), _switch(pgpool, "away", False)),
            "database away": (_switch(world.database, "reachable", False), _switch(world.database, "reachable", True)),
        }
        fault = self.random.choice([*points, *spans, "killed often"])
        if fault == "killed often":
            for number in range(5):
                self._at(when + number, "killed", self._kill)
        elif fault in points:
            self._at(when, fault, points[fault])
        else:
            self._at(when, fault, spans[fault][0])
            self._at(when + length, f"{fault} no more", spans[fault][1])

    def _kill(self) -> None:
        self.world.seams.kill_in = self.random.randint(1, 25)

    def _open_sessions(self) -> None:
        for child in self.world.pgpool.children[1:]:
            child.busy = True

    def _boot(self) -> None:
        if not self.world.reboot():  # the Secrets of this moment cannot be used: the kubelet tries again
            self.world.clock.at(10, self._boot)


def _switch(thing: object, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(thing, name, value)
