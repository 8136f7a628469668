"""A connection to one PostgreSQL server that stands, to ask it again and again what it is."""

import json
import time
from collections.abc import Callable

import psycopg
from psycopg import pq

from entrypoint.backends import Backend
from entrypoint.secret import Secret
from sidecar.dial import Place, is_far
from sidecar.libpq import FULL, NO_ANSWER, NOT_REACHABLE, Refusal, Rows, ask, connect, conninfo_of
from sidecar.member import Reach, Sql
from sidecar.retry import Backoff

Credentials = tuple[str, Secret, str]
"""Role, password, database."""

QUERY = """
SELECT json_build_object(
  'in_recovery', recovery,
  'timeline', CASE WHEN recovery
    THEN greatest(receiver.received_tli,
                  (SELECT min_recovery_end_timeline FROM pg_control_recovery()),
                  (SELECT timeline_id FROM pg_control_checkpoint()))
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'receiving', CASE WHEN recovery THEN receiver.pid IS NOT NULL AND receiver.status = 'streaming' END,
  'streaming', CASE WHEN NOT recovery AND pg_has_role('pg_read_all_stats', 'USAGE')
    THEN (SELECT coalesce(json_agg(activity.application_name), '[]')
          FROM pg_stat_get_wal_senders() AS sender, pg_stat_get_activity(sender.pid) AS activity
          WHERE sender.state = 'streaming') END)
FROM pg_is_in_recovery() AS recovery, pg_stat_get_wal_receiver() AS receiver
"""
"""One row with one JSON object. By functions, not by the views made of them, for those lock tables of roles.

`status` is NULL for a role that is not in pg_monitor. The checkpoint's timeline lags behind after a promotion.
"""

_STARTING_OR_STOPPING = ("57P01", "57P02", "57P03")
_LOGIN_SECONDS = 1.0

# The server then ends a session whose client is cut off within half a minute, not in two hours. So there is never
# more than one of ours beside the present one.
_OPTIONS = "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4"


class Standing:
    """Logs in with SCRAM alone, in plain text or, where pg_hba.conf insists, with TLS.

    Tries a login at most once a second. What does not let us in for good, such as a wrong password, is tried less and
    less, down to once a minute, or when there are other credentials.
    """

    def __init__(
        self,
        backend: Backend,
        login: Callable[[], Credentials | None],
        *,
        seconds: float,
        again: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nobody yet.

        Args:
            backend: the server.
            login: with what to log in now; None while nobody knows.
            seconds: how long one question may take, a login included.
            again: seconds after which a connection that does not come about is tried anew.
            clock: the clock of `asked`.
        """
        self._backend = backend
        self._place = Place(backend.host, backend.port, again=again)
        self._login = login
        self._seconds = seconds
        self._clock = clock
        self._connection: pq.abc.PGconn | None = None
        self._credentials: Credentials | None = None
        self._tls = False
        self._backoff = Backoff()
        self._last_login = self._next_login = self._look_again = float("-inf")
        self._refused = ""
        self._barred: Sql | None = None

    def ask(self) -> Sql:
        """What the server says now. Takes little more than `seconds`."""
        asked = self._clock()
        until = time.monotonic() + self._seconds
        try:
            return self._ask(asked, until)
        except TimeoutError:
            self.close()
            return _no_answer(asked, Reach.SILENT, NO_ANSWER)
        except ConnectionError:
            return _no_answer(asked, Reach.REFUSED, NOT_REACHABLE)
        except OSError as error:
            # Of a name that nobody resolves just now, or a lack of our own, nobody is to suffer.
            return _no_answer(asked, Reach.SILENT if is_far(error) else Reach.UNTOLD, "the host is not to be found")

    def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            self._connection.finish()
            self._connection = None

    def _ask(self, asked: float, until: float) -> Sql:
        if self._connection is not None:
            try:
                answer = ask(self._connection, QUERY, until)
            except psycopg.OperationalError:
                answer = Refusal("the connection broke")
            if not isinstance(answer, Refusal):
                return _answer(asked, answer)
            self.close()  # ended by the server, as a rule, which will say why when we come again
        if self._barred is not None and asked < self._look_again:
            return self._barred
        self._barred = None
        address = self._place.find(until)
        credentials = self._login()
        if credentials != self._credentials:
            self._credentials, self._next_login = credentials, self._last_login + _LOGIN_SECONDS
            self._backoff.reset()
        if credentials is None:
            return self._bar(asked, "the password is not known")
        if asked < self._next_login:
            return self._bar(asked, self._refused)
        return self._log_in(asked, address, credentials, until)

    def _log_in(self, asked: float, address: str, credentials: Credentials, until: float) -> Sql:
        refusal = self._connect(address, credentials, until)
        if refusal is not None and (refusal.sqlstate in _STARTING_OR_STOPPING or refusal.reason == NOT_REACHABLE):
            return _no_answer(asked, Reach.REFUSED, refusal.reason)
        self._last_login = asked
        if refusal is None:
            self._next_login, self._refused = asked + _LOGIN_SECONDS, "it ended a session that had just begun"
            self._backoff.reset()
            return self._ask(asked, until)
        pause = 0.0 if refusal.sqlstate == FULL else self._backoff.next()
        self._next_login, self._refused = asked + max(_LOGIN_SECONDS, pause), refusal.reason
        return self._bar(asked, refusal.reason)

    def _bar(self, asked: float, reason: str) -> Sql:
        """Not to be asked again at once; but soon, whether it is still there."""
        self._barred = _no_answer(asked, Reach.UNTOLD, reason)
        soon = asked + _LOGIN_SECONDS
        self._look_again = min(soon, self._next_login) if self._next_login > asked else soon
        return self._barred

    def _connect(self, address: str, credentials: Credentials, until: float) -> Refusal | None:
        """Log in; without TLS first, if it did not need that last time. The first refusal says most."""
        role, password, database = credentials
        at = {"host": self._backend.host, "hostaddr": address, "port": str(self._backend.port), "options": _OPTIONS}
        first: Refusal | None = None
        for sslmode in ("require", "disable") if self._tls else ("disable", "require"):
            conninfo = conninfo_of({**at, "sslmode": sslmode, "user": role, "dbname": database}, password)
            connection = pq.PGconn.connect_start(conninfo.encode())
            try:
                refusal = connect(connection, until)
            except TimeoutError:
                connection.finish()
                raise
            if refusal is None:
                self._connection, self._tls = connection, sslmode == "require"
                return None
            connection.finish()
            first = first or refusal
            if not refusal.lacks_hba:
                break
        self._tls = False
        return first


def _answer(asked: float, rows: Rows) -> Sql:
    ((document,),) = (row.values() for row in rows)
    said = json.loads(document)
    return Sql(
        asked=asked,
        reach=Reach.ANSWERED,
        since=asked,
        in_recovery=said["in_recovery"],
        timeline=said["timeline"],
        receiving=said["receiving"],
        streaming=None if said["streaming"] is None else frozenset(filter(None, said["streaming"])),
    )


def _no_answer(asked: float, reach: Reach, reason: str) -> Sql:
    return Sql(asked=asked, reach=reach, since=asked, reason=reason)
