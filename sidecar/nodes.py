"""What to do about pgpool's node table when it is not what the cluster is. Pure: observations in, actions out.

pgpool changes its primary only when a node is attached, detached or promoted, never takes back a primary that it has
once detached, and hangs every login on a node that does not answer. Nothing here acts on what is merely not known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from sidecar.member import Member, Reach, Rest, Sql
from sidecar.table import Row

FRESH_SECONDS = 1.5
"""What was asked for longer ago says nothing about now."""
STEADY_SECONDS = 2.0
"""A standby is attached once it has been well for so long, for logins stall while it is."""
SILENCE_SECONDS = 1.0
"""A standby is given up when PostgreSQL alone has been silent for so long; at once, if its Patroni is silent, too."""
PRIMARY_SILENCE_SECONDS = 3.0
"""A primary, whose sessions end then, is given up only after this."""
UNHEARD_SECONDS = 5.0
"""PostgreSQL alone is believed when no Patroni has answered for so long: one answer may come late."""
OPPOSITE_SECONDS = 1.0
"""Between two opposing actions on the same node."""
FLAP_SECONDS = 300.0
"""A standby that was given up within this time must be well for longer each time."""
LONGEST_STEADY_SECONDS = 60.0
LOOK_SECONDS = 3.0
"""Between anything that has pgpool look for its primary, and telling it to look again: each time clients wait."""
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 10.0
FENCE_SECONDS = 1.0
"""So long before the lock may expire at the earliest, its holder is fenced."""
UNLOCKED_SECONDS = 2.0
"""Its holder is fenced when the others have no lock any more: but one that cannot reach etcd says the same at once."""
RENEWED_SECONDS = 3.0
"""A lock that is still there so long after it had to expire is being renewed: the others' answers are that old."""
TTL_SECONDS, LOOP_SECONDS = 30.0, 10.0
"""Patroni's defaults, where it does not tell."""


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
    """When a standby was detached because it did not answer."""
    down: Mapping[int, float] = field(default_factory=dict)
    """When a node that pgpool has detached was first seen so."""

    @property
    def is_busy(self) -> bool:
        """Whether something was done that has not had its effect yet."""
        return any(done.times for done in self.done.values())


@dataclass(frozen=True, slots=True)
class Truth:
    """Who is primary as the cluster says; None: nobody, or it is not known, for this reason."""

    primary: int | None
    reason: str


NOTHING_DONE = Memory(done={}, given_up={})


def truth(members: Sequence[Member], now: float) -> Truth:
    """Who is primary: the holder of Patroni's lock, once it takes writes; without Patroni, whoever takes writes."""
    writable = [each for each in members if _writes(each.sql, now)]
    told = [each.rest for each in members if _answers(each.rest, now)]
    if not told:
        if any(each.rest and now - each.rest.since < UNHEARD_SECONDS for each in members):
            return Truth(None, "no Patroni answers at this moment")
        return _by_timeline(writable)
    holders = [each for each in members if _answers(each.rest, now) and each.rest and each.rest.lock]
    if not holders:
        # The holder's own Patroni may be out of reach, or dead: then the others know, until the lock expires.
        leaders = {rest.leader for rest in told if rest and rest.leader and not rest.unlocked}
        holders = [each for each in members if leaders == {each.name} and not _answers(each.rest, now)]
    if len(holders) != 1:
        return Truth(None, f"{len(holders) or 'no'} members hold Patroni's lock")
    (holder,) = holders
    if holder not in writable:
        untold = holder.sql is None or holder.sql.reach in (Reach.SILENT, Reach.UNTOLD)
        words = "does not tell us whether it takes writes" if untold else "does not take writes"
        return Truth(None, f"{holder.name} holds Patroni's lock, and {words}")
    if _expires(holder, members, now):
        return Truth(None, f"{holder.name} holds Patroni's lock, which expires, for its Patroni does not answer")
    return Truth(holder.node_id, f"{holder.name} holds Patroni's lock and takes writes")


def _by_timeline(writable: Sequence[Member]) -> Truth:
    """A promotion begins a new timeline: of two servers that take writes, the one on the latest was promoted last."""
    if not writable:
        return Truth(None, "no server takes writes")
    timelines = [each.sql.timeline if each.sql else None for each in writable]
    if len(writable) == 1:
        return Truth(writable[0].node_id, f"{writable[0].name} alone takes writes")
    known = [timeline for timeline in timelines if timeline is not None]
    if len(known) < len(writable) or known.count(max(known)) > 1:
        return Truth(None, f"{len(writable)} servers take writes, and neither is the later one")
    latest = writable[timelines.index(max(known))]
    return Truth(latest.node_id, f"{latest.name} takes writes on the latest timeline")


def primary_of(table: Sequence[Row]) -> int | None:
    """The node that pgpool sends writes to, as far as its table says."""
    return next((row.node_id for row in table if row.role == "primary" and _up(row)), None)


def decide(table: Sequence[Row], members: Sequence[Member], memory: Memory, now: float) -> tuple[Action, ...]:
    """What to do now, in this order; nothing, when all is well, or nothing is known for certain.

    Args:
        table: pgpool's nodes.
        members: the cluster's, in the same order.
        memory: of former actions.
        now: of the clock that the observations have their times from.
    """
    found = truth(members, now)
    wanted = [
        *_silent(table, members, found, now),
        *_fence(table, members, found, now),
        *_lead(table, members, memory, found, now),
        *_join(table, members, memory, found, now),
    ]
    first = {action.node_id: action for action in reversed(wanted)}
    wanted = [action for action in wanted if first[action.node_id] is action and _may(action, memory, now)]
    if _is_looking(table):
        # A queue of ten takes what comes meanwhile, and drops the rest, the cure among it, without a word.
        wanted = [action for action in wanted if action.kind is Kind.ATTACH or not _is_sent(action, memory)]
    return tuple(wanted)


def remember(memory: Memory, action: Action, now: float, *, gave_up: bool, taken: bool = True) -> Memory:
    """The memory after an action; `gave_up`: it detached a standby that was silent; `taken`: pgpool did not refuse."""
    before = memory.done.get(action.node_id)
    again = before is not None and before.kind is action.kind
    if not taken:  # it had no effect that could be waited for
        return replace(memory, done={**memory.done, action.node_id: Done(action.kind, now, 1, taken=False)})
    done = Done(action.kind, now, before.times + 1 if before and again else 1)
    given_up = memory.given_up
    if gave_up and not again:
        times = (*given_up.get(action.node_id, ()), now)
        given_up = {**given_up, action.node_id: tuple(each for each in times if now - each < FLAP_SECONDS)}
    return replace(memory, done={**memory.done, action.node_id: done}, given_up=given_up)


def see(memory: Memory, table: Sequence[Row], now: float) -> Memory:
    """The memory after a reading of pgpool's table."""
    down = {row.node_id: memory.down.get(row.node_id, now) for row in table if row.status == "down"}
    return replace(memory, down=down)


def forget(memory: Memory, table: Sequence[Row], members: Sequence[Member], now: float) -> Memory:
    """The memory once the table is as it should be: the next attempt is a first one again."""
    if decide(table, members, replace(memory, done={}), now):
        return memory
    return replace(memory, done={node: replace(done, times=0) for node, done in memory.done.items()})


def _silent(table: Sequence[Row], members: Sequence[Member], found: Truth, now: float) -> list[Action]:
    """Nodes that do not answer are given up, standbys first: each new session connects to every node that is up."""
    actions = []
    primary = primary_of(table)
    anybody = any(each.sql and _recent(each.sql, now) for each in members)
    for row, member in sorted(zip(table, members, strict=False), key=lambda pair: pair[0].node_id == primary):
        if not _up(row) or row.node_id == found.primary:
            continue
        is_primary = row.node_id == primary
        if not _is_silent(member, now, is_primary=is_primary):
            continue
        if (is_primary or not anybody) and not _was_asked_again(member):
            continue  # it may be we who were late: this machine stood still
        actions.append(Action(Kind.DETACH, row.node_id, f"{member.name} does not answer"))
    return actions


def _is_silent(member: Member, now: float, *, is_primary: bool) -> bool:
    sql, rest = member.sql, member.rest
    if sql is None or sql.reach is not Reach.SILENT or now - sql.asked > _STALE_SILENCE:
        return False
    if rest is not None and rest.reach is not Reach.SILENT:
        return False  # a server may be slow, or frozen; its host is there
    silence = now - max(sql.since, rest.since if rest else sql.since)
    if is_primary:
        return silence >= PRIMARY_SILENCE_SECONDS
    return rest is not None or silence >= SILENCE_SECONDS


def _was_asked_again(member: Member) -> bool:
    """Whether more than one question in a row got no answer."""
    return member.sql is not None and member.sql.asked > member.sql.since


_STALE_SILENCE = 10.0


def _fence(table: Sequence[Row], members: Sequence[Member], found: Truth, now: float) -> list[Action]:
    """Whose Patroni is dead may no longer be written to when its lock expires: another one is promoted then."""
    member = next((each for each in members if each.node_id == primary_of(table)), None)
    if (
        member is None
        or found.primary is not None
        or not _writes(member.sql, now)
        or not _expires(member, members, now)
    ):
        return []
    return [Action(Kind.DETACH, member.node_id, f"Patroni of {member.name} does not answer, and its lock expires")]


def _expires(member: Member, members: Sequence[Member], now: float) -> bool:
    """Whether a member's lock may expire at any moment, or has just done so, for its Patroni is dead."""
    rest = member.rest
    if rest is None or rest.reach not in (Reach.REFUSED, Reach.SILENT) or rest.asked <= rest.since:
        return False  # after a single question, it may be we who were late
    if not rest.led:
        return False  # we have never reached it when it had the lock, so that it is out of reach says nothing
    others = [each.rest for each in members if each is not member and each.rest and _answers(each.rest, now)]
    if not others or any(other.paused for other in others):
        return False  # there is nobody to be promoted
    ttl, loop_wait = next(
        ((other.ttl, other.loop_wait) for other in others if other.ttl and other.loop_wait), (TTL_SECONDS, LOOP_SECONDS)
    )
    silence = now - rest.since
    if all(other.unlocked and not other.failsafe for other in others):
        return silence >= UNLOCKED_SECONDS
    if silence >= ttl + RENEWED_SECONDS and {other.leader for other in others if other.leader} == {member.name}:
        return False  # somebody has renewed it: its Patroni lives, and only its REST API is out of reach
    # The lock was renewed for the last time up to one loop before its keeper died.
    return silence >= ttl - loop_wait - FENCE_SECONDS


def _lead(table: Sequence[Row], members: Sequence[Member], memory: Memory, found: Truth, now: float) -> list[Action]:
    """Pgpool is to have the true primary for its own."""
    row = next((row for row in table if row.node_id == found.primary), None)
    if row is None:
        return []
    if row.status == "down":
        sql = next(each.sql for each in members if each.node_id == found.primary)
        # pgpool may know better than an answer that is older: the node has just been lost.
        if sql is None or sql.asked <= memory.down.get(row.node_id, -math.inf):
            return []
        return [Action(Kind.ATTACH, row.node_id, f"{found.reason}, and is down in pgpool")]
    if not _up(row) or (stale := primary_of(table)) == row.node_id:
        return []
    if _is_looking(table):
        return []  # and will find it
    former = next((each for each in members if each.node_id == stale), None)
    if former is not None and _writes(former.sql, now):
        # pgpool would take the one with the higher number (find_primary_node, src/main/pgpool_main.c).
        return [Action(Kind.DETACH, former.node_id, f"{found.reason}; {former.name} takes writes, too")]
    said = f"pgpool's primary is {former.name}" if former else "pgpool has no primary"
    return [Action(Kind.LOOK_AGAIN, row.node_id, f"{found.reason}; {said}")]


def _join(table: Sequence[Row], members: Sequence[Member], memory: Memory, found: Truth, now: float) -> list[Action]:
    """Standbys that are well are taken back, once pgpool has the true primary."""
    primary = primary_of(table)
    if primary is None or primary != found.primary:
        return []
    leader = next(each for each in members if each.node_id == primary)
    actions = []
    for row, member in zip(table, members, strict=False):
        sql = member.sql
        if row.status != "down" or sql is None or not _is_well(member, leader, now):
            continue
        flaps = sum(1 for each in memory.given_up.get(row.node_id, ()) if now - each < FLAP_SECONDS)
        if now - sql.since >= min(STEADY_SECONDS * 2.0**flaps, LONGEST_STEADY_SECONDS):
            actions.append(
                Action(Kind.ATTACH, row.node_id, f"{member.name} follows the primary, and is down in pgpool")
            )
    return actions


def _is_well(member: Member, leader: Member, now: float) -> bool:
    sql = member.sql
    if sql is None or not _recent(sql, now) or sql.in_recovery is not True:
        return False
    streaming = leader.sql.streaming if leader.sql else None
    return member.name in streaming if streaming is not None and not sql.receiving else bool(sql.receiving)


def _may(action: Action, memory: Memory, now: float) -> bool:
    """Neither opposing actions within a second, nor the same one again before it can have had its effect."""
    done = memory.done.get(action.node_id)
    if done is None:
        return True
    if action.kind is Kind.LOOK_AGAIN and done.taken and now - done.at < LOOK_SECONDS:
        return False  # pgpool is looking already
    if done.kind is not action.kind:
        return now - done.at >= OPPOSITE_SECONDS
    if done.times == 0:  # it had its effect
        return True
    return now - done.at >= min(FIRST_RETRY_SECONDS * 2.0 ** (done.times - 1), LONGEST_RETRY_SECONDS)


def _is_sent(action: Action, memory: Memory) -> bool:
    """Whether the same was the last thing done to the node, and has had no effect yet."""
    done = memory.done.get(action.node_id)
    return done is not None and done.kind is action.kind and done.taken and done.times > 0


def _is_looking(table: Sequence[Row]) -> bool:
    """Whether pgpool is looking for a primary at this moment."""
    return any(row.role == "primary" and row.status == "down" for row in table)


def _up(row: Row) -> bool:
    return row.status in ("up", "waiting")


def _recent(seen: Sql | Rest, now: float) -> bool:
    return seen.reach is Reach.ANSWERED and now - seen.asked <= FRESH_SECONDS


def _answers(rest: Rest | None, now: float) -> bool:
    return rest is not None and _recent(rest, now)


def _writes(sql: Sql | None, now: float) -> bool:
    return sql is not None and _recent(sql, now) and sql.in_recovery is False
