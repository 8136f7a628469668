"""Members of a cluster by what has become of them, and pgpool's table in letters: for tests of the node loop."""

from collections.abc import Callable
from dataclasses import replace

from sidecar.member import Member, Reach, Rest, Sql
from sidecar.table import Row

NOW = 1000.0
LONG = 100.0
"""Seconds: longer than anything waits."""
NAMES = ("node-0", "node-1", "node-2")
MOMENT = 0.01

State = Callable[[int], Member]
"""What is seen of the node with that number."""


# --- members of the cluster, by what has become of them -------------------------------------------------------------


def sql(reach: Reach = Reach.ANSWERED, *, since: float = LONG, age: float = 0.1, **said: object) -> Sql:
    """An answer of `age` seconds ago; the same for `since` seconds."""
    return Sql(asked=NOW - age, reach=reach, since=NOW - since, **said)  # type: ignore[arg-type]  # by name


def rest(reach: Reach = Reach.ANSWERED, *, since: float = LONG, age: float = 0.1, **said: object) -> Rest:
    return Rest(asked=NOW - age, reach=reach, since=NOW - since, **said)  # type: ignore[arg-type]  # by name


def leading(node: int) -> Member:
    return Member(
        node_id=node,
        name=NAMES[node],
        sql=sql(in_recovery=False, timeline=5, streaming=frozenset(NAMES) - {NAMES[node]}),
        rest=rest(lock=True),
    )


def following(node: int) -> Member:
    return Member(
        node_id=node,
        name=NAMES[node],
        sql=sql(in_recovery=True, timeline=5, receiving=True),
        rest=rest(lock=False),
    )


def silent(node: int, seconds: float = LONG) -> Member:
    """Packets are lost; the first of the questions was asked so long ago."""
    age = min(0.2, seconds / 2)
    return Member(
        node_id=node,
        name=NAMES[node],
        sql=sql(Reach.SILENT, since=seconds, age=age),
        rest=rest(Reach.SILENT, since=seconds, age=age),
    )


def gone(node: int) -> Member:
    """The host is there, nobody listens."""
    return Member(node_id=node, name=NAMES[node], sql=sql(Reach.REFUSED), rest=rest(Reach.REFUSED))


def unknown(node: int) -> Member:
    return Member(node_id=node, name=NAMES[node], sql=None, rest=None)


def crashed(node: int) -> Member:
    """Patroni is about to start PostgreSQL again, and keeps the lock."""
    return replace(following(node), sql=sql(Reach.REFUSED), rest=rest(lock=True))


def promoting(node: int) -> Member:
    return replace(following(node), rest=rest(lock=True))


def frozen(node: int) -> Member:
    """PostgreSQL does not answer, Patroni does."""
    return replace(following(node), sql=sql(Reach.SILENT))


def barred(node: int) -> Member:
    """PostgreSQL does not let the check role in."""
    return replace(leading(node), sql=sql(Reach.UNTOLD))


def false(node: int) -> Member:
    """Takes writes without the lock, on an older timeline."""
    return replace(leading(node), sql=sql(in_recovery=False, timeline=4), rest=rest(lock=False))


def idle(node: int) -> Member:
    """In recovery, and receives nothing."""
    return replace(following(node), sql=sql(in_recovery=True, timeline=5, receiving=False))


def patroni_dead(state: State, seconds: float = LONG, reach: Reach = Reach.REFUSED) -> State:
    """Whose Patroni has the lock, as far as anybody knows."""
    return lambda node: replace(state(node), rest=rest(reach, since=seconds, led=NOW - seconds))


def without_patroni(state: State) -> State:
    return lambda node: replace(state(node), rest=None)


def well_for(seconds: float) -> State:
    return lambda node: replace(following(node), sql=replace(_sql(following(node)), since=NOW - seconds))


def says(state: State, **said: object) -> State:
    """Its Patroni says this, too."""
    return lambda node: replace(state(node), rest=replace(_rest(state(node)), **said))  # type: ignore[arg-type]


def shows(state: State, **said: object) -> State:
    """Its PostgreSQL says this, too."""
    return lambda node: replace(state(node), sql=replace(_sql(state(node)), **said))  # type: ignore[arg-type]


def seen(state: State, seconds: float) -> State:
    """Last heard of so long ago."""
    return shows(says(state, asked=NOW - seconds), asked=NOW - seconds)


def _sql(member: Member) -> Sql:
    assert member.sql is not None
    return member.sql


def _rest(member: Member) -> Rest:
    assert member.rest is not None
    return member.rest


def cluster(*states: State) -> tuple[Member, ...]:
    return tuple(state(node) for node, state in enumerate(states))


# --- pgpool's table: a letter for each node -------------------------------------------------------------------------

ROWS = {
    "P": ("up", "primary"),
    "S": ("up", "standby"),
    "p": ("down", "primary"),
    "s": ("down", "standby"),
    "w": ("waiting", "standby"),
    "W": ("waiting", "primary"),
    "u": ("unused", "standby"),
    "q": ("quarantine", "standby"),
}
"""`p`: pgpool is looking for another primary. Neither P, W nor p: it has given up."""


def table(letters: str) -> tuple[Row, ...]:
    return tuple(
        Row(node_id=node, host=f"10.0.0.{node}", port=5432, status=status, role=role)
        for node, (status, role) in enumerate(ROWS[letter] for letter in letters)
    )
