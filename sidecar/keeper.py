"""Keeps pgpool's node table true to the cluster: observe, decide, act, and see at the next look whether it helped."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from sidecar.events import Events
from sidecar.member import NOT_ASKED, Member, Reach, Rest, Sql
from sidecar.memory import NOTHING_SEEN, Action, Kind, Memory, hear, remember, see
from sidecar.nodes import decide, forget
from sidecar.pcp import PcpError
from sidecar.table import Row, primary_of
from sidecar.truth import FRESH_SECONDS, Truth, truth

RESTING_SECONDS, SPARING_SECONDS = 0.4, 5.0
"""How long a reading of pgpool's table is good for while all is well and nothing changes: that of a pgpool that logs
each reading, the latter. At rest, the former has every second look do without one."""


class Watched(Protocol):
    """sidecar.nodeloop.BootedCluster."""

    def members(self) -> tuple[Member, ...]:
        """What was last seen of each backend."""


class Table(Protocol):
    """sidecar.table.TableReader."""

    def read(self) -> tuple[Row, ...]:
        """The rows. Raises PcpError."""


class Switch(Protocol):
    """What pgpool can be told about its nodes; sidecar.pool.Pool. All raise PcpError."""

    def attach(self, node_id: int) -> None:
        """Take a node into use."""

    def detach(self, node_id: int) -> None:
        """Take a node out of use."""

    def look_again(self) -> None:
        """Look for the primary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One look, for status and metrics."""

    table: tuple[Row, ...] = ()
    members: tuple[Member, ...] = ()
    truth: Truth = field(default_factory=lambda: Truth(None, "nothing was seen yet"))
    seen_at: float | None = None
    """When pgpool's table was last read; None: never."""
    apart_since: float | None = None
    """Since when pgpool's primary is not the cluster's, or there is none; None: both are the same."""
    problem: str = ""
    """Why the table could not be read this time."""

    def document(self, now: float) -> dict[str, object]:
        """As JSON has it, in our own words; `now` is of the clock of `seen_at`."""
        rows = {row.node_id: {"status": row.status, "role": row.role} for row in self.table}
        return {
            "primary": self.truth.primary,
            "reason": self.truth.reason,
            "problem": self.problem,
            "read_seconds_ago": None if self.seen_at is None else round(now - self.seen_at, 1),
            "nodes": [
                {
                    "node_id": each.node_id,
                    "name": each.name,
                    "pgpool": rows.get(each.node_id),
                    "postgresql": each.sql and {"reach": each.sql.reach.value, "reason": each.sql.reason},
                    "patroni": each.rest and {"reach": each.rest.reach.value, "reason": each.rest.reason},
                }
                for each in self.members
            ],
        }


class Keeper:
    """The loop's body: `step` looks once."""

    def __init__(  # noqa: PLR0913  # its seams
        self,
        watched: Watched,
        table: Table,
        switch: Switch,
        events: Events,
        note: Callable[[View], None],
        count: Callable[[str, str], None],
        *,
        acts: bool = True,
        good_for: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at nothing yet.

        Args:
            watched: the cluster.
            table: pgpool's table.
            switch: pgpool's switches.
            events: told about every change and every action.
            note: given every view.
            count: given the kind of every action, and whether it was `taken`, `refused`, or PCP was `away`.
            acts: if not, what would be done is only told.
            good_for: seconds after which pgpool's table is read anew although all is well and nothing changes.
            clock: the one that the observations have their times from.
        """
        self._watched = watched
        self._table = table
        self._switch = switch
        self._events = events
        self._note = note
        self._count = count
        self._acts = acts
        self._good_for = good_for
        self._clock = clock
        self._memory: Memory = NOTHING_SEEN
        self._told: frozenset[tuple[Kind, int]] = frozenset()
        self._doubtful: tuple[Action, ...] = ()
        self.view = View()
        self.eager = False
        """Whether the next look is to come at once."""

    def step(self) -> View:
        """Look, decide, act. Raises nothing that time may cure."""
        former = self.view
        self.eager = False
        if self._may_wait(former):
            return former
        try:
            table = self._table.read()
        except PcpError as error:
            self.view = replace(former, members=self._hear(self._clock()), problem=str(error))
            self._note(self.view)
            return self.view
        now = self._clock()
        members = self._hear(now)
        found = truth(members, self._memory.timeline, now)
        agrees = found.primary is not None and found.primary == primary_of(table)
        self.view = View(
            table=table,
            members=members,
            truth=found,
            seen_at=now,
            apart_since=None if agrees else former.apart_since or now,
        )
        self._tell_changes(former, self.view)
        self._note(self.view)
        self._memory = see(self._memory, table, now)
        actions = decide(table, members, self._memory, now)
        for action in actions:
            if self._clock() - now > FRESH_SECONDS:
                break  # pgpool took its time, and the rest was decided on what is old by now
            # Rows are read one after the other: that there is no primary, or another one, takes two readings.
            if action.kind is Kind.LOOK_AGAIN and action not in self._doubtful:
                self.eager = True
            else:
                self._act(action)
        self._doubtful = actions
        if not actions:
            self._memory = forget(self._memory, table, members, now)
            self._told = frozenset()
        return self.view

    def begin_anew(self) -> None:
        """With other nodes: what was seen of the former ones, such as their timeline, says nothing of these."""
        self._memory, self._doubtful = NOTHING_SEEN, ()

    def _may_wait(self, former: View) -> bool:
        """Whether nothing has changed that could be worth a reading, nor is time itself a reason to act."""
        if former.seen_at is None or former.apart_since is not None or former.problem or self._memory.is_busy:
            return False
        members, now = self._watched.members(), self._clock()
        if now - former.seen_at >= self._good_for or decide(former.table, members, self._memory, now):
            return False
        return [_state(each) for each in members] == [_state(each) for each in former.members]

    def _hear(self, now: float) -> tuple[Member, ...]:
        members = self._watched.members()
        self._memory = hear(self._memory, members, now)
        former = {each.node_id: each for each in self.view.members}
        for each in members:
            before = former.get(each.node_id)
            self._tell_answer(each, "postgresql", before.sql if before else None, each.sql)
            self._tell_answer(each, "patroni", before.rest if before else None, each.rest)
        return members

    def _tell_answer(self, member: Member, asked: str, former: Sql | Rest | None, answer: Sql | Rest | None) -> None:
        """Why a node is not known, when that changes; at first, that it answers is no news."""
        if answer is None or answer.reason == NOT_ASKED:
            return
        before = (former.reach, former.reason) if former and former.reason != NOT_ASKED else (Reach.ANSWERED, "")
        if before != (answer.reach, answer.reason):
            fields = {"node": str(member.node_id), "asked": asked, "reach": answer.reach.value}
            self._events.info("nodes.answer", **fields, reason=answer.reason or None)

    def _act(self, action: Action) -> None:
        fields = {"node": str(action.node_id), "reason": action.reason}
        if not self._acts:
            if (action.kind, action.node_id) not in self._told:
                self._told |= {(action.kind, action.node_id)}
                self._events.warning(f"nodes.would_{action.kind}", **fields)
            return
        begin = self._clock()
        try:
            if action.kind is Kind.ATTACH:
                self._switch.attach(action.node_id)
            elif action.kind is Kind.DETACH:
                self._switch.detach(action.node_id)
            else:
                self._switch.look_again()
        except PcpError as error:
            result = "away" if error.away else "refused"
            self._events.warning(f"nodes.{action.kind}", **fields, failed=str(error))
        else:
            result = "taken"
            self._events.warning(f"nodes.{action.kind}", **fields, ms=round((self._clock() - begin) * 1000, 1))
        self._count(action.kind, result)
        self._memory = remember(self._memory, action, self._clock(), taken=result == "taken")

    def _tell_changes(self, former: View, view: View) -> None:
        if view.truth.primary != former.truth.primary:
            self._events.info("nodes.primary", node=_text(view.truth.primary), reason=view.truth.reason)
        before = {row.node_id: (row.status, row.role) for row in former.table}
        for row in view.table:
            if before.get(row.node_id) != (row.status, row.role):
                self._events.info("nodes.pgpool", node=str(row.node_id), status=row.status, role=row.role)


def _state(member: Member) -> tuple[object, ...]:
    """What would be news of a member."""
    sql, rest = member.sql, member.rest
    return (
        sql and (sql.reach, sql.in_recovery, sql.timeline, sql.receiving),
        rest and (rest.reach, rest.lock, rest.unlocked, rest.leader),
    )


def _text(node: int | None) -> str | None:
    return None if node is None else str(node)
