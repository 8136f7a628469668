"""What can be done about pgpool's nodes, and what was done and seen before. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sidecar.member import Member, Reach
from sidecar.table import Row, is_up
from sidecar.truth import latest_timeline, recent

FLAP_SECONDS = 300.0
"""A standby that fell more than once within this time must be well for longer each time."""
SETTLING_SECONDS = 30.0
"""A primary that becomes a standby may fall in the course of this, which is no flap."""


class Kind(StrEnum):
    """What can be done, by PCP."""

    ATTACH = "attach"
    DETACH = "detach"
    LOOK_AGAIN = "look_again"
    """Have pgpool look for its primary, ending no session: see Pool.look_again."""


@dataclass(frozen=True, slots=True)
class Action:
    """One thing to do; `node_id` of LOOK_AGAIN is the primary that is to be found."""

    kind: Kind
    node_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Done:
    """What was last done to a node, and how often in a row."""

    kind: Kind
    at: float
    times: int = 1
    taken: bool = True
    """Whether pgpool took it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What was done before, by node id."""

    done: Mapping[int, Done]
    given_up: Mapping[int, tuple[float, ...]]
    """When a standby that was in use was found down, whoever took it out: pgpool does so, too."""
    down: Mapping[int, float] = field(default_factory=dict)
    """When a node that pgpool has detached was first seen so."""
    standbys: frozenset[int] = frozenset()
    """Those in use as such."""
    led: Mapping[int, float] = field(default_factory=dict)
    """When a node was last pgpool's primary."""
    timeline: int = 0
    """The latest that was seen of any server: a promotion begins a new one."""
    following: Mapping[int, float] = field(default_factory=dict)
    """Since when a standby has been seen to stream: one that cannot follow does so for an instant, at each attempt."""
    let_in: bool = True
    """Whether any server has ever told us what it is."""

    @property
    def is_busy(self) -> bool:
        """Whether something was done that has not had its effect yet."""
        return any(done.times for done in self.done.values())


NOTHING_DONE = Memory(done={}, given_up={})
NOTHING_SEEN = replace(NOTHING_DONE, let_in=False)


def remember(memory: Memory, action: Action, now: float, *, taken: bool = True) -> Memory:
    """The memory after an action; `taken`: pgpool did not refuse."""
    before = memory.done.get(action.node_id)
    # One that was refused had no effect that could be waited for.
    again = before is not None and before.kind is action.kind and taken
    done = Done(action.kind, now, before.times + 1 if before and again else 1, taken)
    return replace(memory, done={**memory.done, action.node_id: done})


def see(memory: Memory, table: Sequence[Row], now: float) -> Memory:
    """The memory after a reading of pgpool's table."""
    down = {row.node_id: memory.down.get(row.node_id, now) for row in table if row.status == "down"}
    given_up = dict(memory.given_up)
    for node in down.keys() & memory.standbys:
        if now - memory.led.get(node, -math.inf) >= SETTLING_SECONDS:
            given_up[node] = (*(each for each in given_up.get(node, ()) if now - each < FLAP_SECONDS), now)
    return replace(
        memory,
        down=down,
        given_up=given_up,
        standbys=frozenset(row.node_id for row in table if is_up(row) and row.role == "standby"),
        led={**memory.led, **{row.node_id: now for row in table if row.role == "primary"}},
    )


def flaps(memory: Memory, node: int, now: float) -> int:
    """How often a standby fell of late, but for the first time, which may befall any."""
    return max(0, sum(1 for each in memory.given_up.get(node, ()) if now - each < FLAP_SECONDS) - 1)


def hear(memory: Memory, members: Sequence[Member], now: float) -> Memory:
    """The memory after answers of the cluster."""
    follow = [each.node_id for each in members if follows(each, members, now)]
    return replace(
        memory,
        timeline=latest_timeline(members, memory.timeline, now),
        following={node: memory.following.get(node, now) for node in follow},
        let_in=memory.let_in or any(each.sql and each.sql.reach is Reach.ANSWERED for each in members),
    )


def follows(member: Member, members: Sequence[Member], now: float) -> bool:
    """Whether a standby streams, by its own word or by that of one of these primaries."""
    sql = member.sql
    if sql is None or not recent(sql, now) or sql.in_recovery is not True:
        return False
    return bool(sql.receiving) or any(each.sql and member.name in (each.sql.streaming or ()) for each in members)
