"""Would PostgreSQL's primary accept this password now? Asked by logging in."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from entrypoint.backends import Backend
from entrypoint.secret import Secret
from sidecar.dial import Place, UnresolvedError
from sidecar.libpq import NO_ANSWER, NOT_REACHABLE, Refusal, ask_once, conninfo_of

_AGAIN_SECONDS = 1.0
_GOOD_SECONDS = 5.0
"""So long a name's address is trusted. Logins are rare, and a pod that is replaced leaves its address to others."""


class Outcome(Enum):
    """What a login says about a password."""

    ACCEPTED = auto()
    REJECTED = auto()
    UNKNOWN = auto()
    """Nothing: not reachable, starting, full, no entry in pg_hba.conf, no answer in time …"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The answer, and why; never with a server's own words, for those could hold anything."""

    outcome: Outcome
    reason: str


class Answer(Enum):
    """What one server says."""

    PRIMARY = "accepted by the primary"
    STANDBY = "accepted by a standby"
    SOMEBODY = "accepted, without saying whether this is the primary"
    REJECTED = "rejected"
    UNKNOWN = "no answer"


@dataclass(frozen=True, slots=True)
class ServerSays:
    """One server's answer; `reason` tells more about a refusal or a silence."""

    server: str
    answer: Answer
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.server}: {self.answer.value}{f' ({self.reason})' if self.reason else ''}"


class Servers:
    """The PostgreSQL servers behind pgpool, asked directly.

    Remembers who is primary, for one that rejects a password while another is away; and where each role gets in.
    """

    def __init__(self, backends: Sequence[Backend], database: str, *, seconds: float = 3.0) -> None:
        """Ask nobody yet.

        Args:
            backends: the servers.
            database: where to log in; others are tried when that one is not to be entered.
            seconds: how long one server may take.
        """
        self._backends = list(backends)
        self._places = {
            backend.name: Place(backend.host, backend.port, again=_AGAIN_SECONDS, good_for=_GOOD_SECONDS)
            for backend in backends
        }
        self._database = database
        self._seconds = seconds
        self._primary: str | None = None
        self._standbys: set[str] = set()
        self._entered: dict[str, str] = {}

    def databases(self, role: str) -> tuple[str, ...]:
        """Where to log in as the role: the database that it last got into or, while there is none, all to try."""
        entered = self._entered.get(role)
        return (entered,) if entered else _databases(self._database, role)

    def attempt(self, role: str, password: Secret) -> Attempt:
        """Whether the primary would accept this password now.

        The server that was the primary last time is asked first, so that there usually is one login in all.
        """
        said: list[ServerSays] = []
        for backend in sorted(self._backends, key=lambda backend: backend.name != self._primary):
            said.append(self._ask(backend, role, password))
            self._remember(said[-1])
            if said[-1].answer is Answer.PRIMARY:
                break
        others = [backend.name for backend in self._backends if backend.name not in self._standbys]
        return combine(said, self._primary or (others[0] if len(others) == 1 else None))

    def _remember(self, said: ServerSays) -> None:
        if said.answer is Answer.PRIMARY:
            self._primary = said.server
            self._standbys.discard(said.server)
        elif said.answer is Answer.STANDBY:
            self._standbys.add(said.server)
            if self._primary == said.server:
                self._primary = None

    def _ask(self, backend: Backend, role: str, password: Secret) -> ServerSays:
        until = time.monotonic() + self._seconds
        try:
            address = self._places[backend.name].find(until)
        except OSError as error:
            return ServerSays(backend.name, Answer.UNKNOWN, _unreached(error))
        at = {"host": backend.host, "hostaddr": address, "port": str(backend.port)}
        entered = ""
        refused: Refusal | None = None
        # The further databases and TLS are for pg_hba.conf that lets nobody into the first, or not in plain text.
        first, *others = dict.fromkeys((*self.databases(role), *_databases(self._database, role)))
        ways = [(first, "disable"), (first, "require"), *((database, "disable") for database in others)]
        for database, tls in ways:
            conninfo = conninfo_of({**at, "sslmode": tls, "user": role, "dbname": database}, password)
            result = ask_once(conninfo, "SELECT pg_is_in_recovery()", until)
            if not isinstance(result, Refusal):
                self._entered[role] = database
                standby = result[0]["pg_is_in_recovery"] == "t"
                return ServerSays(backend.name, Answer.STANDBY if standby else Answer.PRIMARY)
            if result.after_password:
                entered = result.reason
            elif result.rejects:
                return ServerSays(backend.name, Answer.REJECTED, result.reason)
            elif not result.lacks_hba and refused is None:
                return ServerSays(backend.name, Answer.UNKNOWN, result.reason)
            refused = refused or result
        if entered:
            return ServerSays(backend.name, Answer.SOMEBODY, entered)
        return ServerSays(backend.name, Answer.UNKNOWN, refused.reason if refused else "")


def _unreached(error: OSError) -> str:
    match error:
        case TimeoutError():
            return NO_ANSWER
        case UnresolvedError():
            return str(error)
        case _:
            return NOT_REACHABLE


def combine(said: Sequence[ServerSays], primary: str | None) -> Attempt:
    """What the servers' answers mean together.

    A standby may lag behind: neither its acceptance nor its rejection is the primary's.

    Args:
        said: one answer of each server; servers after one that accepts as the primary need not be asked.
        primary: the server that last answered as the primary, or the only one that is not known for a standby.
    """
    reason = "; ".join(map(str, said)) or "there is no server to ask"
    answers = [each.answer for each in said]
    of_primary = [each.answer for each in said if each.server == primary]
    rejected = Answer.REJECTED in answers
    if Answer.PRIMARY in answers or Answer.SOMEBODY in of_primary:
        return Attempt(Outcome.ACCEPTED, reason)
    if Answer.SOMEBODY in answers and not {Answer.REJECTED, Answer.UNKNOWN} & set(answers):
        return Attempt(Outcome.ACCEPTED, reason)  # by all of them, so by the primary
    if rejected and (Answer.REJECTED in of_primary or Answer.UNKNOWN not in answers or Answer.STANDBY in answers):
        return Attempt(Outcome.REJECTED, reason)
    return Attempt(Outcome.UNKNOWN, reason)


def _databases(first: str, role: str) -> tuple[str, ...]:
    """Where to try to log in, in this order: a role may be kept out of all but its own database."""
    return tuple(dict.fromkeys((first, role, "template1", "postgres")))
