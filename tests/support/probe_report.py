"""What clients saw, told from a prober's records alone."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from support.probe_log import LOGIN, STEADY, Ack, Failure, Intent, Record, Skip, kind_of

READ_ONLY = "25006"
"""SQLSTATE of a write that a read-only server refuses."""

HELD = 29.0
"""Seconds after which somebody who was not let in had been held: pgpool does so for 30 s, and looks once in a while."""

LAST_BREATH = 0.5
"""Seconds for which a crashed server's processes may go on with logins that they have begun."""

Row = tuple[str, int]
"""Worker and sequence number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Some span of time, as clients lived through it; seconds, and nothing (0) of what had no workers.

    The gaps count until the span's end: whoever waits for ever has a gap that grows with the span.
    """

    since: float
    until: float
    operations: int
    """Rows acknowledged, by all kinds of workers."""
    gap: float
    """Longest time in which no steady worker got an acknowledgment."""
    gap_began: float
    worst_gap: float
    """The same for the steady worker that had the longest."""
    login_gap: float
    """Longest time in which nobody logged in and wrote."""
    slowest: float
    """Longest wait for an acknowledgment, from when the operation was due, of steady workers."""
    slowest_login: float
    skipped: int
    errors: Mapping[str, int]
    """By SQLSTATE, or `timeout`, `eof`, `connect`."""
    words: Mapping[str, int]
    """By message."""
    busy_errors: int
    """Of sessions that had worked before."""
    new_errors: int
    """Of new connections."""
    refusals: int
    """Those of them that were not held before for as long as pgpool holds anybody.

    Nor is one counted that was on its way in when the first session broke, and was let in by what still lived of the
    server: its first statement ends as those of all sessions do.
    """
    worst_session: int
    """Errors of the one session that had most, among those that had worked before."""
    worst_worker: int
    """Errors of the worker that had most, of any kind, among those that keep their session."""
    read_only_seconds: float
    """From the first to the last refusal of a read-only server, over all workers."""
    timelines: tuple[str, ...]
    """In the order in which they were first written to."""
    nodes: tuple[str, ...]
    """The same."""

    @property
    def read_only_errors(self) -> int:
        return self.errors.get(READ_ONLY, 0)


def report(records: Iterable[Record], since: float, until: float) -> Report:
    """Everything from `since` to `until`; an earlier acknowledgment may begin a gap."""
    records = [record for record in records if record.at <= until]
    acks = sorted((record for record in records if isinstance(record, Ack)), key=lambda ack: ack.at)
    inside = [ack for ack in acks if ack.at >= since]
    failures = [record for record in records if isinstance(record, Failure) and record.at >= since]
    workers = {record.worker for record in records}
    by_worker = {name: [ack.at for ack in acks if ack.worker == name] for name in workers if kind_of(name) == STEADY}
    steady = [ack.at for ack in acks if kind_of(ack.worker) == STEADY]
    logins = [ack.at for ack in acks if kind_of(ack.worker) == LOGIN]
    gap, gap_began = longest_silence(steady, since, until) if by_worker else (0.0, since)
    refused = [failure.at for failure in failures if failure.reason == READ_ONLY]
    broken = min((failure.at for failure in failures if failure.busy), default=math.inf)
    return Report(
        since=since,
        until=until,
        operations=len(inside),
        gap=gap,
        gap_began=gap_began,
        worst_gap=max((longest_silence(times, since, until)[0] for times in by_worker.values()), default=0.0),
        login_gap=longest_silence(logins, since, until)[0] if any(kind_of(name) == LOGIN for name in workers) else 0.0,
        slowest=max((ack.at - ack.due for ack in inside if kind_of(ack.worker) == STEADY), default=0.0),
        slowest_login=max((ack.at - ack.due for ack in inside if kind_of(ack.worker) == LOGIN), default=0.0),
        skipped=sum(record.operations for record in records if isinstance(record, Skip) and record.at >= since),
        errors=Counter(failure.reason for failure in failures),
        words=Counter(failure.words for failure in failures),
        busy_errors=sum(failure.busy for failure in failures),
        new_errors=sum(not failure.busy for failure in failures),
        refusals=sum(is_refused(failure, broken) for failure in failures),
        worst_session=_most(Counter((each.worker, each.session) for each in failures if each.busy)),
        worst_worker=_most(Counter(failure.worker for failure in failures if kind_of(failure.worker) != LOGIN)),
        read_only_seconds=max(refused) - min(refused) if refused else 0.0,
        timelines=tuple(dict.fromkeys(ack.timeline for ack in inside if ack.timeline)),
        nodes=tuple(dict.fromkeys(ack.node for ack in inside if ack.node)),
    )


def is_refused(failure: Failure, broken: float) -> bool:
    """Whether a new client was turned away; `broken`: when the first session ended in an error."""
    was_held = failure.at - failure.due >= HELD
    was_in = failure.let_in is not None and failure.due <= broken and failure.let_in <= broken + LAST_BREATH
    return not (failure.busy or was_held or was_in)


def longest_silence(times: Sequence[float], since: float, until: float) -> tuple[float, float]:
    """The longest time without any of `times` (ascending) between two moments, and its beginning.

    It begins before `since` if the last one before was earlier.
    """
    before = max((time for time in times if time < since), default=since)
    edges = [before, *(time for time in times if since <= time <= until), until]
    return max((end - begin, begin) for begin, end in pairwise(edges))


def next_ack(records: Iterable[Record], moment: float, kind: str = STEADY) -> float | None:
    """Seconds from a moment to the next acknowledgment of workers of a kind; None if there is none yet."""
    later = (ack.at for ack in records if isinstance(ack, Ack) and ack.at >= moment and kind_of(ack.worker) == kind)
    first = min(later, default=None)
    return None if first is None else first - moment


@dataclass(frozen=True, slots=True)
class Audit:
    """The log compared with the table; nothing of it should be there."""

    lost: tuple[Row, ...]
    """Acknowledged, and not in the table."""
    phantom: tuple[Row, ...]
    """In the table, and never sent."""
    duplicate: tuple[Row, ...]
    """More than once in the table."""


def audit(acknowledged: AbstractSet[Row], table: Iterable[Row], sent: AbstractSet[Row]) -> Audit:
    """Compare; rows that were sent and never acknowledged may be there or not.

    While the prober runs, this is the order in which the three are to be asked for.
    """
    stored = Counter(table)
    return Audit(
        lost=tuple(sorted(acknowledged - stored.keys())),
        phantom=tuple(sorted(stored.keys() - sent)),
        duplicate=tuple(sorted(row for row, count in stored.items() if count > 1)),
    )


def rows(records: Iterable[Record], kind: type[Ack | Intent]) -> set[Row]:
    """The rows that were acknowledged, or were to be sent."""
    return {(record.worker, record.seq) for record in records if isinstance(record, kind)}


def _most(counts: Mapping[Any, int]) -> int:
    return max(counts.values(), default=0)
