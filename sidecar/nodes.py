"""What to do about pgpool's node table when it is not what the cluster is. Pure: observations in, actions out.

pgpool changes its primary only when a node is attached, detached or promoted, never takes back a primary that it has
once detached, and hangs every login on a node that does not answer. Nothing here acts on what is merely not known.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from sidecar.member import Member, Reach
from sidecar.memory import Action, Kind, Memory, flaps, follows
from sidecar.table import Row, is_up, primary_of
from sidecar.truth import Truth, answers, expires, recent, truth, writes

STEADY_SECONDS = 2.0
"""A standby is attached once it has been well for so long, for logins stall while it is."""
SILENCE_SECONDS = 1.0
"""A standby is given up when PostgreSQL alone has been silent for so long; at once, if its Patroni is silent, too."""
PRIMARY_SILENCE_SECONDS = 3.0
"""A primary, whose sessions end then, is given up only after this."""
_STALE_SILENCE_SECONDS = 10.0
"""A silence that was last heard so long ago says nothing about now."""
OPPOSITE_SECONDS = 1.0
"""Between two opposing actions on the same node."""
LONGEST_STEADY_SECONDS = 60.0
SEARCH_SECONDS = 60.0
"""After which pgpool has given up a search for a primary (`search_primary_node_timeout`, entrypoint/defaults.py)."""
LOOK_SECONDS = 3.0
"""Between anything that has pgpool look for its primary, and telling it to look again: each time clients wait."""
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 10.0


def decide(table: Sequence[Row], members: Sequence[Member], memory: Memory, now: float) -> tuple[Action, ...]:
    """What to do now, in this order; nothing, when all is well, or nothing is known for certain.

    Args:
        table: pgpool's nodes.
        members: the cluster's, in the same order.
        memory: of former actions.
        now: of the clock that the observations have their times from.
    """
    found = truth(members, memory.timeline, now)
    wanted = [
        *_silent(table, members, memory, found, now),
        *_fence(table, members, found, now),
        *_lead(table, members, memory, found, now),
        *_join(table, members, memory, found, now),
        *_join_for_good(table, members, memory, found, now),
    ]
    first = {action.node_id: action for action in reversed(wanted)}
    wanted = [action for action in wanted if first[action.node_id] is action and _may(action, memory, now)]
    if _is_looking(table):
        # A queue of ten takes what comes meanwhile, and drops the rest, the cure among it, without a word.
        wanted = [action for action in wanted if action.kind is Kind.ATTACH or not _is_sent(action, memory)]
    return tuple(wanted)


def forget(memory: Memory, table: Sequence[Row], members: Sequence[Member], now: float) -> Memory:
    """The memory once the table is as it should be: the next attempt is a first one again."""
    if decide(table, members, replace(memory, done={}), now):
        return memory
    return replace(memory, done={node: replace(done, times=0) for node, done in memory.done.items()})


def _silent(table: Sequence[Row], members: Sequence[Member], memory: Memory, found: Truth, now: float) -> list[Action]:
    """Nodes that do not answer are given up, standbys first: each new session connects to every node that is up."""
    if not memory.let_in:
        return []  # what we cannot see the roles of, we could not take back
    actions = []
    primary = primary_of(table)
    anybody = any(each.sql and recent(each.sql, now) for each in members)
    for row, member in sorted(zip(table, members, strict=False), key=lambda pair: pair[0].node_id == primary):
        if not is_up(row) or row.node_id == found.primary:
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
    if sql is None or sql.reach is not Reach.SILENT or now - sql.asked > _STALE_SILENCE_SECONDS:
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


def _fence(table: Sequence[Row], members: Sequence[Member], found: Truth, now: float) -> list[Action]:
    """Whose Patroni is dead may no longer be written to when its lock expires: another one is promoted then."""
    member = next((each for each in members if each.node_id == primary_of(table)), None)
    if member is None or found.primary is not None or not writes(member.sql, now):
        return []
    why = expires(member, members, now)
    return [Action(Kind.DETACH, member.node_id, f"Patroni of {member.name} {why}, and its lock expires")] if why else []


def _lead(table: Sequence[Row], members: Sequence[Member], memory: Memory, found: Truth, now: float) -> list[Action]:
    """Pgpool is to have the true primary for its own."""
    row = next((row for row in table if row.node_id == found.primary), None)
    if row is None:
        return _demoted(table, members, memory, now) if found.primary is None else []
    if row.status == "down":
        sql = next(each.sql for each in members if each.node_id == found.primary)
        # pgpool may know better than an answer that is older: the node has just been lost.
        if sql is None or sql.asked <= memory.down.get(row.node_id, -math.inf):
            return []
        return [Action(Kind.ATTACH, row.node_id, f"{found.reason}, and is down in pgpool")]
    if not is_up(row) or (stale := primary_of(table)) == row.node_id:
        return []
    if _is_looking(table) or any(each.is_always_primary for each in members):
        return []  # and will find it; or it would look in vain, every time
    former = next((each for each in members if each.node_id == stale), None)
    if former is not None and writes(former.sql, now):
        # pgpool would take the one with the higher number (find_primary_node, src/main/pgpool_main.c).
        return [Action(Kind.DETACH, former.node_id, f"{found.reason}; {former.name} takes writes, too")]
    said = f"pgpool's primary is {former.name}" if former else "pgpool has no primary"
    return [Action(Kind.LOOK_AGAIN, row.node_id, f"{found.reason}; {said}")]


def _demoted(table: Sequence[Row], members: Sequence[Member], memory: Memory, now: float) -> list[Action]:
    """Nobody is known to lead, but pgpool's primary says itself that it takes no writes: they are to be held."""
    member = next((each for each in members if each.node_id == primary_of(table)), None)
    if member is None or any(each.is_always_primary or writes(each.sql, now) for each in members):
        return []
    sql, done = member.sql, memory.done.get(member.node_id)
    if sql is None or not recent(sql, now) or sql.in_recovery is not True:
        return []
    if done is not None and done.kind is Kind.LOOK_AGAIN and done.taken and now - done.at < SEARCH_SECONDS:
        return []
    return [Action(Kind.LOOK_AGAIN, member.node_id, f"{member.name} takes no writes, nor does any other")]


def _join(table: Sequence[Row], members: Sequence[Member], memory: Memory, found: Truth, now: float) -> list[Action]:
    """Standbys that are well are taken back, once pgpool has the true primary."""
    primary = primary_of(table)
    if primary is None or primary != found.primary:
        return []
    leader = next(each for each in members if each.node_id == primary)
    actions = []
    for row, member in zip(table, members, strict=False):
        sql = member.sql
        if row.status != "down" or sql is None or not follows(member, (leader,), now) or _is_deaf(member, members, now):
            continue
        times = flaps(memory, row.node_id, now)
        # One that pgpool drops although it answers us may take no new connections.
        since = max(sql.since, memory.following.get(row.node_id, -math.inf))
        if times:
            since = max(since, memory.down.get(row.node_id, now))
        if now - since >= min(STEADY_SECONDS * 2.0**times, LONGEST_STEADY_SECONDS):
            actions.append(
                Action(Kind.ATTACH, row.node_id, f"{member.name} follows the primary, and is down in pgpool")
            )
    return actions


def _join_for_good(
    table: Sequence[Row], members: Sequence[Member], memory: Memory, found: Truth, now: float
) -> list[Action]:
    """In front of a standby cluster nobody leads: what was given up there comes back as soon as it answers."""
    if found.primary is not None or not any(each.is_always_primary for each in members):
        return []
    if any(writes(each.sql, now) for each in members):
        return []  # it has been promoted
    actions = []
    for row, member in zip(table, members, strict=False):
        sql = member.sql
        if row.status != "down" or sql is None or not recent(sql, now):
            continue
        follows = now - memory.following.get(row.node_id, now) >= STEADY_SECONDS
        if sql.asked > memory.down.get(row.node_id, -math.inf) and (member.is_always_primary or follows):
            actions.append(Action(Kind.ATTACH, row.node_id, f"{member.name} answers, and is down in pgpool"))
    return actions


def _is_deaf(member: Member, members: Sequence[Member], now: float) -> bool:
    """Whether its Patroni, to which each question is a new connection, is silent while that of another one answers."""
    return bool(member.rest and member.rest.reach is Reach.SILENT) and any(answers(each.rest, now) for each in members)


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
