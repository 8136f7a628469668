"""Would pgpool accept this password now? Asked by logging in; and a question of any kind, on the way."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from entrypoint.secret import Secret
from sidecar.libpq import Refusal, Rows, ask_once, conninfo_of
from sidecar.login import Attempt, Outcome

LOCKED_OUT = "pool_hba.conf does not let the role in"
"""The reason when pgpool did not come to look at the password."""


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
