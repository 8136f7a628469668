"""Who is primary, as the cluster says. Pure: what was seen of its members in, the truth out."""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.member import Member, Reach, Rest, Sql

FRESH_SECONDS = 1.5
"""What was asked for longer ago says nothing about now."""
UNHEARD_SECONDS = 5.0
"""PostgreSQL alone is believed when no Patroni has answered for so long: one answer may come late."""
FENCE_SECONDS = 1.0
"""So long before the lock may expire at the earliest, its holder is fenced."""
UNLOCKED_SECONDS = 2.0
"""Its holder is fenced when the others have no lock any more: but one that cannot reach etcd says the same at once."""
RENEWED_SECONDS = 3.0
"""A lock that is still there so long after it had to expire is being renewed: the others' answers are that old."""
LATE_SECONDS = 3.0
"""A round of Patroni may come so much later than loop_wait: its shortest retry_timeout, so that ttl is longer still."""
TTL_SECONDS, LOOP_SECONDS = 30.0, 10.0
"""Patroni's defaults, where it does not tell."""
_AWAY = (Reach.REFUSED, Reach.SILENT)


@dataclass(frozen=True, slots=True)
class Truth:
    """Who is primary as the cluster says; None: nobody, or it is not known, for this reason."""

    primary: int | None
    reason: str


def truth(members: Sequence[Member], timeline: int, now: float) -> Truth:
    """Who is primary: the holder of Patroni's lock, once it takes writes; without Patroni, whoever takes writes.

    Args:
        members: the cluster's.
        timeline: the latest that was seen before.
        now: of the clock that the observations have their times from.
    """
    told = [each.rest for each in members if answers(each.rest, now)]
    if not told:
        if any(each.rest and now - _heard(each.rest) < UNHEARD_SECONDS for each in members):
            return Truth(None, "no Patroni answers at this moment")
        found = _by_timeline(members, timeline, now)
        rest = next((each.rest for each in members if each.node_id == found.primary), None)
        if rest and rest.led is not None and rest.reach in _AWAY and _led_last(rest, members):
            ttl, _ = _timing(members)
            if now - rest.led < ttl + RENEWED_SECONDS:
                return Truth(None, f"{found.reason}; its Patroni does not answer, and its lock may expire")
        return found
    holders = [each for each in members if answers(each.rest, now) and each.rest and each.rest.lock]
    if not holders and all(rest and rest.paused and rest.unlocked for rest in told):
        return _by_timeline(members, timeline, now)  # Patroni of the leader was stopped on purpose, and promotes nobody
    if not holders:
        # The holder's own Patroni may be out of reach, or dead: then the others know, until the lock expires.
        leaders = {rest.leader for rest in told if rest and rest.leader and not rest.unlocked}
        holders = [each for each in members if leaders == {each.name} and not answers(each.rest, now)]
    if len(holders) != 1:
        return Truth(None, f"{len(holders) or 'no'} members hold Patroni's lock")
    (holder,) = holders
    if not writes(holder.sql, now):
        untold = holder.sql is None or holder.sql.reach in (Reach.SILENT, Reach.UNTOLD)
        words = "does not tell us whether it takes writes" if untold else "does not take writes"
        return Truth(None, f"{holder.name} holds Patroni's lock, and {words}")
    if why := expires(holder, members, now):
        return Truth(None, f"{holder.name} holds Patroni's lock, which expires, for its Patroni {why}")
    return Truth(holder.node_id, f"{holder.name} holds Patroni's lock and takes writes")


def _by_timeline(members: Sequence[Member], timeline: int, now: float) -> Truth:
    """A promotion begins a new timeline: of two servers that take writes, the one on the latest was promoted last.

    Whoever writes an earlier one than anybody has seen was left behind by a promotion, although it be the only one that
    answers.
    """
    writable = [each for each in members if writes(each.sql, now)]
    if not writable:
        return Truth(None, "no server takes writes")
    latest = latest_timeline(members, timeline, now)
    leading = [each for each in writable if each.sql and (each.sql.timeline is None or each.sql.timeline >= latest)]
    if not leading:
        names = ", ".join(each.name for each in writable)
        return Truth(None, f"timeline {latest} was seen, and only an earlier one is written ({names})")
    if len(leading) > 1:
        return Truth(None, f"{len(leading)} servers take writes, and neither is the later one")
    (only,) = leading
    words = "alone takes writes" if len(writable) == 1 else "takes writes on the latest timeline"
    return Truth(only.node_id, f"{only.name} {words}")


def latest_timeline(members: Sequence[Member], before: int, now: float) -> int:
    """The latest timeline that was seen, `before` or now; once all answer, nobody else can have a later one."""
    told = [each.sql.timeline for each in members if each.sql and recent(each.sql, now) and each.sql.timeline]
    return max(told if len(told) == len(members) > 0 else (before, *told))


def expires(member: Member, members: Sequence[Member], now: float) -> str:
    """Why a member's lock may expire at any moment, or has just done so: what its Patroni does; nothing: it may not."""
    others = [each.rest for each in members if each is not member and each.rest and answers(each.rest, now)]
    rest = member.rest
    if rest is None or not _led_last(rest, members) or any(other.paused for other in others):
        return ""  # of one that we never saw have it, nothing is known; and in a pause nobody is promoted
    if _dies(rest, member.name, others, _timing(members), now):
        return "does not answer"
    return "stands still" if _stands_still(rest, others, _timing(members), now) else ""


def _dies(rest: Rest, name: str, others: Sequence[Rest], timing: tuple[float, float], now: float) -> bool:
    if rest.led is None or rest.reach not in _AWAY or rest.asked <= rest.since:
        return False  # after a single question, it may be we who were late
    if not others:
        return False  # there is nobody to be promoted
    if any(other.failsafe for other in others):
        return False  # it has reached them without etcd, and holds its lock by that
    if all(other.unlocked for other in others):
        return now - rest.since >= UNLOCKED_SECONDS
    ttl, loop_wait = timing
    silence = now - rest.led  # not since it is out of reach: it may have been started anew meanwhile, in vain
    if silence >= ttl + RENEWED_SECONDS and {other.leader for other in others if other.leader} == {name}:
        return False  # somebody has renewed it: its Patroni lives, and only its REST API is out of reach
    # The lock was renewed for the last time up to one loop before its keeper died.
    return silence >= ttl - loop_wait - FENCE_SECONDS


def _stands_still(rest: Rest, others: Sequence[Rest], timing: tuple[float, float], now: float) -> bool:
    """Whether the main loop hangs behind a REST API that answers: Patroni reads etcd in vain, or not at all."""
    if not answers(rest, now) or rest.paused or rest.failsafe or rest.dcs_since is None:
        return False
    ttl, loop_wait = timing
    # As another one has read etcd a whole round later, it is not etcd that is away, for then nobody is promoted.
    next_one = rest.dcs_since + loop_wait + FENCE_SECONDS
    missed = any(other.dcs_since is not None and other.dcs_since > next_one for other in others)
    # It hangs after the reading, as a rule, and before it renews the lock.
    return missed and now - rest.dcs_since >= max(ttl - loop_wait - FENCE_SECONDS, loop_wait + LATE_SECONDS)


def _led_last(rest: Rest, members: Sequence[Member]) -> bool:
    """Whether it had the lock, and nobody has said so after it, whatever itself has said since: it was just started."""
    return rest.led is not None and rest.led == max(
        each.rest.led for each in members if each.rest and each.rest.led is not None
    )


def _heard(rest: Rest) -> float:
    """Until when it answered, as far as is known; an answer that is late does not mean that there will be none."""
    return rest.asked if rest.reach is Reach.ANSWERED else rest.since


def _timing(members: Sequence[Member]) -> tuple[float, float]:
    """Ttl and loop_wait: each by itself may be missing in what Patroni was given, and is Patroni's default then."""
    told = [each.rest for each in members if each.rest]
    told.sort(key=lambda each: each.reach is not Reach.ANSWERED)  # it may be long since the others told
    return (
        next((each.ttl for each in told if each.ttl), TTL_SECONDS),
        next((each.loop_wait for each in told if each.loop_wait), LOOP_SECONDS),
    )


def recent(seen: Sql | Rest, now: float) -> bool:
    """Whether an answer says something about now."""
    return seen.reach is Reach.ANSWERED and now - seen.asked <= FRESH_SECONDS


def answers(rest: Rest | None, now: float) -> bool:
    """Whether Patroni answers."""
    return rest is not None and recent(rest, now)


def writes(sql: Sql | None, now: float) -> bool:
    """Whether PostgreSQL answers, and takes writes."""
    return sql is not None and recent(sql, now) and sql.in_recovery is False
