"""pgpool's node table, read so cheaply that it can be read all the time.

Of the requests of PCP, one alone tells what pgpool takes a node for without connecting to any: that for the statistics
of its health checks ('H', inform_health_check_stats(), src/pcp_con/pcp_worker.c). Unpatched, pgpool logs one line
`status_changed_time …` for each node at each such request (get_health_check_stats(),
src/utils/pool_process_reporting.c): with three nodes, nine lines for each reading.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from entrypoint.pcp import PcpAddress
from sidecar.pcp import PcpError
from sidecar.pcp_wire import Fields, Session

SESSION_SECONDS = 3.0
"""How long a session serves, unless pgpool was started anew. A new one costs pgpool a fork, ten times what a reading
costs; the process behind one that lasts may be all that is left of a pgpool that is gone, and hold its ports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One node as pgpool sees it."""

    node_id: int
    host: str
    port: int
    status: str
    """`up`, `waiting` (up and not yet used), `down`, `unused` or `quarantine`."""
    role: str
    """`primary` or `standby`. A primary that is down: pgpool is looking for another one at this moment. No primary at
    all: it has given up, and takes the first node that is not down for it (PRIMARY_NODE_ID, src/include/pool.h)."""


def is_up(row: Row) -> bool:
    """Whether pgpool uses the node, or will with the next session."""
    return row.status in ("up", "waiting")


def primary_of(table: Sequence[Row]) -> int | None:
    """The node that pgpool sends writes to, as far as its table says."""
    return next((row.node_id for row in table if row.role == "primary" and is_up(row)), None)


class TableReader:
    """Reads the table; for one thread at a time."""

    def __init__(self, address: Callable[[], PcpAddress], *, seconds: float = 1.0) -> None:
        """Connect to nothing yet.

        Args:
            address: where PCP is and its password; asked for each session, for the password may be rotated.
            seconds: how long one reading may take.
        """
        self._address = address
        self._seconds = seconds
        self._session: Session | None = None
        self._count = 0
        """Of nodes, as the session was told when it began."""
        self._renew = 0.0

    def read(self) -> tuple[Row, ...]:
        """The rows, each true by itself: pgpool does not stop for us between two of them. Raises PcpError."""
        until = time.monotonic() + self._seconds
        if self._session and (time.monotonic() >= self._renew or self._session.is_left_behind):
            self.close()
        try:
            return self._attempt(until)
        except PcpError as error:
            if not error.away:
                raise
        # pgpool is a new one, or PCP was just being restarted: it resets who has only connected.
        return self._attempt(until)

    def close(self) -> None:
        """End the session, if there is one. The next reading begins another."""
        session, self._session = self._session, None
        if session:
            session.close()

    def _attempt(self, until: float) -> tuple[Row, ...]:
        try:
            if self._session is None:
                self._session = Session(self._address(), until=until)
                self._renew = time.monotonic() + SESSION_SECONDS
                ((count,),) = self._session.ask([("L", "")], until=until)
                self._count = int(count)
            answers = self._session.ask([("H", node_id) for node_id in range(self._count)], until=until)
            return tuple(parse_row(answer) for answer in answers)
        except ValueError:
            self.close()
            raise PcpError("pcp", "an answer that makes no sense", away=False) from None
        except BaseException:
            self.close()
            raise


def parse_row(answer: Fields) -> Row:
    """The first fields of POOL_HEALTH_CHECK_STATS (src/include/pcp/libpcp_ext.h). Raises ValueError."""
    return _row(answer[:5])


@lru_cache(maxsize=256)  # a table is read many times before it changes
def _row(answer: Fields) -> Row:
    node_id, host, port, status, role = answer
    return Row(node_id=int(node_id), host=host, port=int(port), status=status, role=role)
