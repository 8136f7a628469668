"""libpq with a deadline: log in, ask, and what a refusal was about.

libpq keeps the SQLSTATE of a failed login to itself, and its text is in the server's language. So the error is
read from the socket before libpq takes it away; where TLS hides it, PostgreSQL's English words must do.
Logins use SCRAM alone: no server is ever told the password.
"""

import os
import re
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from entrypoint.errors import ProgramUnusableError
from entrypoint.secret import Secret

Rows = list[dict[str, str]]
"""By column, as text; NULL is an empty one."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A login or a query that failed; `words` and `detail` are the server's, not to be shown."""

    reason: str
    sqlstate: str | None = None
    words: str = ""
    detail: str = ""
    accepted: bool = False
    """The server was seen to accept the password first."""

    @property
    def lacks_hba(self) -> bool:
        """No line of pg_hba.conf fits, or one says `reject`; the file's name is the same in every language."""
        return self.sqlstate == NO_ROLE and "pg_hba.conf" in self.words

    @property
    def rejects(self) -> bool:
        """The role cannot log in with this password."""
        return self.sqlstate == NOT_THIS_ONE or (self.sqlstate == NO_ROLE and not self.lacks_hba)

    @property
    def after_password(self) -> bool:
        """It came when the password had been accepted already (InitPostgres, src/backend/utils/init/postinit.c).

        A server that is full says so before it asks for a password, and a role or database that is full, or one where
        only reserved slots are left, after it; all with the same SQLSTATE.
        """
        if self.sqlstate == FULL:
            return self.accepted or self.words.startswith(_FULL_AFTER_PASSWORD)
        return self.sqlstate in (NO_DATABASE, NO_RIGHT)


NOT_THIS_ONE = "28P01"
NO_ROLE = "28000"
NO_DATABASE = "3D000"
NO_RIGHT = "42501"
FULL = "53300"
_FULL_AFTER_PASSWORD = ("too many connections for ", "remaining connection slots are reserved")

NOT_REACHABLE = "not reachable"
"""The reason when a server did not say a word."""
NO_ANSWER = "no answer in time"

_MEANINGS = {
    NOT_THIS_ONE: "wrong password",
    NO_ROLE: "the role may not log in",
    NO_DATABASE: "there is no such database",
    NO_RIGHT: "no right to connect to the database",
    FULL: "too many connections",
    "57P01": "shutting down",
    "57P03": "starting up, or shutting down",
}
_ENGLISH = (
    ("password authentication failed", NOT_THIS_ONE),
    ("pg_hba.conf", NO_ROLE),
    ("is not permitted to log in", NO_ROLE),
    ("permission denied for database", NO_RIGHT),
    ("too many c", FULL),
    ("remaining connection slots", FULL),
    ("the database system is", "57P03"),
)


def check_libpq() -> None:
    """Raise ProgramUnusableError for a libpq without `require_auth` (the manual: Release 16).

    Without it, a server that asks for the password in clear text gets it.
    """
    if (version := pq.version()) < 160000:
        raise ProgramUnusableError(
            f"libpq {version // 10000} would tell a server the password in clear text; 16 or newer is needed\n"
            "  → install psycopg[binary], which brings its own, and do not set PSYCOPG_IMPL"
        )


def conninfo_of(parameters: dict[str, str], password: Secret) -> str:
    """Who logs in where, as libpq reads it; `parameters` are its own, without the password.

    A host's name wants its `hostaddr` beside it: see dial.Place.
    """
    fixed = {"passfile": os.devnull, "gssencmode": "disable", "application_name": "pgpool-sidecar"}
    return make_conninfo("", password=password.reveal(), require_auth="scram-sha-256", **fixed, **parameters)


def ask_once(conninfo: str, query: str, until: float) -> Rows | Refusal:
    """Log in, ask, leave politely; all of it before `until` on the monotonic clock."""
    connection = pq.PGconn.connect_start(conninfo.encode())
    try:
        return connect(connection, until) or ask(connection, query, until)
    except TimeoutError:
        return Refusal(NO_ANSWER)
    except psycopg.OperationalError:
        return Refusal("the connection broke")
    finally:
        connection.finish()


def ask(connection: pq.abc.PGconn, query: str, until: float) -> Rows | Refusal:
    """The rows of one statement.

    Raises TimeoutError or psycopg.OperationalError; the connection is then of no more use.
    """
    connection.send_query(query.encode())
    answer: pq.abc.PGresult | None = None
    while True:
        while connection.is_busy():
            _wait(connection, until)
            connection.consume_input()
        result = connection.get_result()
        if result is None:
            break
        answer = answer or result
    if answer is None or answer.status != pq.ExecStatus.TUPLES_OK:
        state = answer and answer.error_field(pq.DiagnosticField.SQLSTATE)
        return refusal_of(state.decode() if state else None, "")
    return _rows(answer)


def _rows(result: pq.abc.PGresult) -> Rows:
    names = [(result.fname(column) or b"").decode() for column in range(result.nfields)]
    return [
        {name: (result.get_value(row, column) or b"").decode(errors="replace") for column, name in enumerate(names)}
        for row in range(result.ntuples)
    ]


def connect(connection: pq.abc.PGconn, until: float) -> Refusal | None:
    """Bring a connection that has been started to its end: None when it stands. Raises TimeoutError."""
    accepted = False
    while connection.status != pq.ConnStatus.BAD:
        poll = connection.connect_poll()
        if poll == pq.PollingStatus.OK:
            return None
        if poll == pq.PollingStatus.FAILED:
            break
        _wait(connection, until, write=poll == pq.PollingStatus.WRITING)
        arrived = _peek(connection.socket)
        accepted = accepted or accepts_in(arrived)
        if found := error_in(arrived):
            return refusal_of(*found, accepted=accepted)
    text = connection.get_error_message()
    state = next((state for phrase, state in _ENGLISH if phrase in text), None)
    said = re.search(r"(?:FATAL|ERROR):  (.*)(?:\nDETAIL:  (.*))?", text)
    return refusal_of(state, *((said[1], said[2] or "") if said else (text, "")), accepted=accepted)


def _wait(connection: pq.abc.PGconn, until: float, *, write: bool = False) -> None:
    """Until the server can be talked to. Raises TimeoutError."""
    sockets = [connection.socket]
    left = max(0.0, until - time.monotonic())
    if not any(select.select([] if write else sockets, sockets if write else [], [], left)):
        raise TimeoutError


def _peek(descriptor: int) -> bytes:
    """What has arrived, left in place for libpq."""
    with socket.socket(fileno=os.dup(descriptor)) as copy:
        try:
            return copy.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except OSError:
            return b""


def error_in(stream: bytes) -> tuple[str, str, str] | None:
    """SQLSTATE, message and detail of an error among what a server sent (the manual: Message Formats)."""
    for kind, body in _messages(stream):
        if kind == b"E":
            fields = {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0")}
            return fields.get(b"C", ""), fields.get(b"M", ""), fields.get(b"D", "")
    return None


def accepts_in(stream: bytes) -> bool:
    """Whether SCRAM ended well in what a server sent: AuthenticationSASLFinal comes for the right password only.

    AuthenticationOk would not do: with `trust` it comes without any password.
    """
    return any(kind == b"R" and body[:4] == _SASL_FINAL for kind, body in _messages(stream))


_SASL_FINAL = (12).to_bytes(4)


def _messages(stream: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each message; the last one may not be there to its end."""
    while len(stream) > 5:
        end = 1 + int.from_bytes(stream[1:5])
        yield stream[:1], stream[5:end]
        stream = stream[end:]


def refusal_of(sqlstate: str | None, words: str, detail: str = "", *, accepted: bool = False) -> Refusal:
    """The refusal, with a reason in our own words."""
    if sqlstate == NO_ROLE and "pg_hba.conf" in words:
        reason = f"{sqlstate}: pg_hba.conf does not let the role in"
    elif sqlstate:
        reason = f"{sqlstate}: {_MEANINGS.get(sqlstate, 'refused')}"
    else:
        reason = "does not ask for SCRAM" if "authentication method requirement" in words else NOT_REACHABLE
    return Refusal(reason, sqlstate, words, detail, accepted)
