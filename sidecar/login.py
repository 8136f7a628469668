"""Would PostgreSQL's primary, or pgpool, accept this password now? Asked by logging in."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from psycopg import pq

from entrypoint.backends import Backend
from entrypoint.errors import ProgramUnusableError
from entrypoint.secret import Secret
from sidecar.dial import Place, UnresolvedError
from sidecar.libpq import NO_ANSWER, NOT_REACHABLE, Refusal, Rows, ask_once, conninfo_of


def check_libpq() -> None:
    """Raise ProgramUnusableError for a libpq without `require_auth` (the manual: Release 16).

    Without it, a server that asks for the password in clear text gets it.
    """
    if (version := pq.version()) < 160000:
        raise ProgramUnusableError(
            f"libpq {version // 10000} would tell a server the password in clear text; 16 or newer is needed\n"
            "  → install psycopg[binary], which brings its own, and do not set PSYCOPG_IMPL"
        )


_AGAIN_SECONDS = 1.0
_GOOD_SECONDS = 5.0
"""So long a name's address is trusted. Logins are rare, and a pod that is replaced leaves its address to others."""

LOCKED_OUT = "pool_hba.conf does not let the role in"
"""The reason when pgpool did not come to look at the password."""


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


def through_pgpool(  # where, who, and how long
    run_dir: Path,
    port: int,
    role: str,
    password: Secret,
    databases: Sequence[str] = ("postgres",),
    *,
    seconds: float = 5.0,
) -> Attempt:
    """One fresh login through pgpool as a client would, with a query, to the first of `databases` that lets it in.

    Over the socket in the run directory; over TCP when pool_hba.conf lets nobody in there. Always, pgpool itself
    compares the password with pool_passwd. PostgreSQL is asked for new connections: those to `postgres` and `template1`
    are never kept (src/protocol/child.c), but in another database, one that a client has left may be used again, and
    the login then says nothing about PostgreSQL, which is to be asked directly. What pgpool 4.6 says, always with
    SQLSTATE XX000 and in English:

    - wrong password: `authentication failed`, `username "…" or password does not exist in backend`;
    - a role without an entry in pool_passwd: `SCRAM authentication failed`, `pool_passwd file does not contain …`;
    - right for pgpool, refused by PostgreSQL behind it, for the password or by pg_hba.conf: `backend authentication
      failed`;
    - right for both, but PostgreSQL refuses the session (no right to connect, no such database, connection limit,
      NOLOGIN): `unable to get session context`. So pgpool fails to pass on an error that comes when every node has
      accepted the password (pool_do_auth, src/auth/pool_auth.c); with our patch 26 it passes it on, SQLSTATE included;
    - a backend that cannot be reached: `failed to create a backend connection`; once all are down, 08S01;
    - no free child: nothing, until one is free.

    The first two are REJECTED; a session refused is ACCEPTED, as the password is; all else is UNKNOWN.
    """
    at = {"host": str(run_dir), "port": str(port), "user": role}
    result = _query_pgpool(at, password, databases, "SELECT 1", time.monotonic() + seconds)
    if not isinstance(result, Refusal):
        return Attempt(Outcome.ACCEPTED, "logged in through pgpool")
    return _refused_by_pgpool(role, result)


def rows_through_pgpool(  # noqa: PLR0913  # where, who, what, and how long
    run_dir: Path,
    port: int,
    role: str,
    password: Secret,
    query: str,
    databases: Sequence[str] = ("postgres",),
    *,
    seconds: float,
) -> list[dict[str, str]]:
    """The rows of one statement after a fresh login as by `through_pgpool`, by column; NULL is an empty text.

    In the simple protocol: in the other one, pgpool forwards its own `SHOW POOL_…` to PostgreSQL.
    Raises QueryError when `seconds` do not suffice, too.
    """
    at = {"host": str(run_dir), "port": str(port), "user": role}
    result = _query_pgpool(at, password, databases, query, time.monotonic() + seconds)
    if isinstance(result, Refusal):
        raise QueryError(_refused_by_pgpool(role, result).reason)
    return result


class QueryError(Exception):
    """No rows; says why in our own words."""


_POOL_REFUSALS = {
    'username "{}" or password does not exist in backend': "pgpool has another password",
    'pool_passwd file does not contain an entry for "{}"': "pgpool has no entry in pool_passwd",
}
_NOT_BEHIND = "backend authentication failed"
_NOT_HERE = "client authentication failed"
_POOL_MEANINGS = {
    _NOT_BEHIND: "PostgreSQL refuses the password that pgpool has",
    _NOT_HERE: LOCKED_OUT,
    "failed to create a backend connection": "pgpool reaches no PostgreSQL",
    "pgpool is not accepting any new connections": "pgpool has no node that is up",
}


def _query_pgpool(
    at: Mapping[str, str], password: Secret, databases: Sequence[str], query: str, until: float
) -> Rows | Refusal:
    """The rows; else the refusal that says most."""
    refusals: list[Refusal] = []
    for database in databases:
        result = _query_pgpool_in({**at, "dbname": database}, password, query, until)
        if not isinstance(result, Refusal):
            return result
        refusals.append(result)
        if not (_is_of_session(result) or result.words in _OF_THE_DATABASE):
            break
    return max(refusals, key=lambda each: 2 if _is_of_session(each) else _OF_THE_DATABASE.get(each.words, 1))


_OF_THE_DATABASE = {_NOT_BEHIND: 0, _NOT_HERE: -1}
"""Refusals that another database may not meet, as one of the session's; the more, the further the login came."""


def _query_pgpool_in(at: Mapping[str, str], password: Secret, query: str, until: float) -> Rows | Refusal:
    # Not sslmode=prefer: libpq would try again in plain text after any refusal, and tell about that one.
    result = ask_once(conninfo_of({**at, "sslmode": "disable"}, password), query, until)
    for tls, otherwise in (("require", _NOT_HERE), ("disable", "server does not support SSL")):
        if not isinstance(result, Refusal) or otherwise not in result.words:
            break
        result = ask_once(conninfo_of({**at, "host": "127.0.0.1", "sslmode": tls}, password), query, until)
    return result


def _refused_by_pgpool(role: str, refusal: Refusal) -> Attempt:
    for detail, reason in _POOL_REFUSALS.items():
        if refusal.detail == detail.format(role):
            return Attempt(Outcome.REJECTED, reason)
    if _is_of_session(refusal):
        return Attempt(Outcome.ACCEPTED, "the password is accepted, but PostgreSQL refuses the session")
    return Attempt(Outcome.UNKNOWN, _POOL_MEANINGS.get(refusal.words, refusal.reason))


def _is_of_session(refusal: Refusal) -> bool:
    """Whether PostgreSQL has accepted the password, and refuses the session."""
    return (
        refusal.after_password
        or refusal.words == "unable to get session context"
        or "is not permitted to log in" in refusal.words
    )
