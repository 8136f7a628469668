"""What was seen of the cluster's members: answers, and when they were asked for; nothing here asks or decides.

Two answers are equal when they say the same, whenever they were asked for.
"""

from dataclasses import dataclass, field
from enum import Enum

NOT_ASKED = "not asked yet"
"""The reason of an answer that nobody has been asked for."""


class Reach(Enum):
    """How far a question came. Only the first says something about roles."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """At once: nobody listens, or PostgreSQL is starting up or shutting down."""
    SILENT = "silent"
    """No answer in time: packets are lost, the server is frozen, there is no way to the host."""
    UNTOLD = "untold"
    """We cannot ask: wrong password, pg_hba.conf, too many connections, no Patroni, a name that is not resolved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sql:
    """What PostgreSQL said of itself. Times are of the observer's clock."""

    asked: float = field(compare=False)
    """When this was asked: what it says was true then or later."""
    reach: Reach
    since: float
    """When `reach` was first what it is now, without interruption."""
    in_recovery: bool | None = None
    """This and all below: None when it is not known; always so unless ANSWERED."""
    timeline: int | None = None
    """Of a primary, the one it writes; of a standby, the latest one it has something of."""
    receiving: bool | None = None
    """Whether a standby's WAL receiver streams. It takes wal_receiver_timeout to notice a primary that is silent."""
    streaming: frozenset[str] | None = None
    """The application names of the standbys that stream from a primary."""
    reason: str = ""
    """Why it was not ANSWERED, in our own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What Patroni said of its node: `GET /primary`. Times are of the observer's clock."""

    asked: float = field(compare=False)
    """When this was asked: what it says was true then or later."""
    reach: Reach
    since: float
    """When `reach` was first what it is now, without interruption."""
    lock: bool | None = None
    """Whether it holds the leader lock (of a cluster that is no standby cluster) by its own clock; None: no answer.

    PostgreSQL need not run, or may still be in recovery, while a new leader is promoted (do_GET, patroni/api.py).
    """
    led: float | None = field(default=None, compare=False)
    """When it was last asked and said that it holds the lock; None: never. It holds for all later answers."""
    dcs_last_seen: int | None = field(default=None, compare=False)
    """When Patroni last read etcd or the like, in seconds since 1970 by its clock, as it last told.

    It does so at the beginning of each round of its main loop (get_cluster, patroni/dcs/__init__.py), every loop_wait;
    beside that only when others ask its REST API for the cluster.
    """
    dcs_since: float | None = field(default=None, compare=False)
    """When `dcs_last_seen` was first what it is now, by our clock: the hosts' clocks may differ. None: never told."""
    failsafe: bool = False
    """It lost etcd, and the leader goes on because it reaches all members."""
    unlocked: bool = False
    """It knows of nobody who holds the leader lock."""
    paused: bool = False
    """Patroni has been told to leave the cluster alone: nobody is promoted."""
    ttl: float | None = None
    """Seconds that the leader lock lasts, and below, from one renewal to the next, as it last told; None: never."""
    loop_wait: float | None = None
    leader: str | None = None
    """The member that holds the leader lock by this node's `GET /cluster`; None when not asked, or nobody does.

    Asked only while no node says that it has the lock, and at most once a second.
    """
    reason: str = ""
    """Why it was not ANSWERED, in our own words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of pgpool's backends."""

    node_id: int
    name: str
    """As in PGPOOL_BACKENDS: Patroni's member name."""
    sql: Sql | None
    """None: nothing is known yet."""
    rest: Rest | None
    """None: nothing is known yet, or nobody is asked."""
    is_always_primary: bool = False
    """Whether pgpool takes it for the primary whatever it is: ALWAYS_PRIMARY."""
