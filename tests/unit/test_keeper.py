"""One step of the node loop: what is read, told, counted and done, with fakes at its own seams and in fake time."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from io import StringIO

import pytest

from sidecar.events import Events
from sidecar.keeper import RESTING_SECONDS, SPARING_SECONDS, Keeper, View
from sidecar.member import NOT_ASKED, Member, Reach
from sidecar.nodes import STEADY_SECONDS
from sidecar.pcp import PcpError
from sidecar.table import Row
from sidecar.truth import FRESH_SECONDS, Truth
from support.members import (
    NOW,
    State,
    cluster,
    false,
    following,
    gone,
    leading,
    patroni_dead,
    says,
    shows,
    silent,
    table,
    without_patroni,
)

AWAY = PcpError("pcp_attach_node", "no answer in time", away=True)
REFUSED = PcpError("pcp_attach_node", "an error", away=False)


@dataclass
class Site:
    """A keeper, and all that it touches."""

    acts: bool = True
    good_for: float = 0.0
    now: float = NOW
    states: Sequence[State] = (leading, following, following)
    table: str | PcpError = "PSS"
    refuses: PcpError | None = None
    takes: float = 0.0
    """Seconds that pgpool needs for an action."""
    obeys: Callable[[str], str] = lambda _: "PSS"
    """What an action makes of the table."""
    done: list[str] = field(default_factory=list)
    counted: list[tuple[str, str]] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    readings: int = 0
    log: StringIO = field(default_factory=StringIO)

    def __post_init__(self) -> None:
        events = Events(self.log, "json", lambda: datetime.now(UTC))
        self.keeper = Keeper(
            self,
            self,
            self,
            events,
            self.views.append,
            lambda kind, result: self.counted.append((kind, result)),
            acts=self.acts,
            good_for=self.good_for,
            clock=lambda: self.now,
        )

    def members(self) -> tuple[Member, ...]:
        """Just asked; whatever they are for a while, they were for that while at NOW."""
        late = self.now - NOW
        return tuple(
            replace(
                member,
                sql=member.sql and replace(member.sql, asked=member.sql.asked + late),
                rest=member.rest and replace(member.rest, asked=member.rest.asked + late),
            )
            for member in cluster(*self.states)
        )

    def read(self) -> tuple[Row, ...]:
        self.readings += 1
        if isinstance(self.table, PcpError):
            raise self.table
        return table(self.table)

    def attach(self, node_id: int) -> None:
        self._take(f"attach {node_id}")

    def detach(self, node_id: int) -> None:
        self._take(f"detach {node_id}")

    def look_again(self) -> None:
        self._take("look_again")

    def _take(self, action: str) -> None:
        self.done.append(action)
        self.now += self.takes
        if self.refuses:
            raise self.refuses
        self.table = self.obeys(action)

    def steps(self, count: int, *, every: float = 0.25) -> View:
        for _ in range(count):
            self.keeper.step()
            self.now += every
        return self.keeper.view

    def told(self, event: str = "") -> list[Mapping[str, object]]:
        lines = [json.loads(line) for line in self.log.getvalue().splitlines()]
        return [line for line in lines if line["event"].startswith(f"nodes.{event}")]


def test_what_is_wrong_is_put_right_once() -> None:
    site = Site(table="sSS")
    view = site.steps(8)
    assert site.done == ["attach 0"]
    assert site.counted == [("attach", "taken")]
    assert view.table == table("PSS")
    (line,) = site.told("attach")
    assert line["level"] == "warning"
    assert line["node"] == "0"
    assert line["reason"] == "node-0 holds Patroni's lock and takes writes, and is down in pgpool"
    assert line["ms"] == 0.0


def test_each_kind_of_action_is_taken_by_its_own_switch() -> None:
    site = Site(table="PSS")
    site.steps(1)
    site.states, site.table = (leading, silent, following), "PSs"
    site.obeys = lambda action: "Pss" if action == "detach 1" else "PsS"
    site.steps(12)
    assert site.done == ["detach 1", "attach 2"]
    assert site.counted == [("detach", "taken"), ("attach", "taken")]


def test_pgpool_is_sent_to_look_again_after_two_readings_that_come_at_once() -> None:
    site = Site(states=(following, leading, following), obeys=lambda _: "SPS")
    site.keeper.step()
    assert (site.done, site.keeper.eager) == ([], True)
    site.keeper.step()
    assert (site.done, site.keeper.eager) == (["look_again"], False)
    site.steps(4)
    assert site.done == ["look_again"]
    assert site.counted == [("look_again", "taken")]


def test_a_reading_in_the_midst_of_a_change_sends_nobody_anywhere() -> None:
    site = Site(table="SSS")
    for reading in ("SSS", "PSS", "SSS", "PSS"):
        site.table = reading
        site.keeper.step()
    assert site.done == []


@pytest.mark.parametrize(("error", "result"), [(AWAY, "away"), (REFUSED, "refused")])
def test_an_action_that_fails_is_told_counted_and_tried_again_each_second(error: PcpError, result: str) -> None:
    site = Site(table="sSS", refuses=error)
    site.steps(15)  # 3.75 s
    assert site.done == ["attach 0"] * 4, "at 0, 1, 2 and 3 s"
    assert site.counted == [("attach", result)] * 4
    assert [line["failed"] for line in site.told("attach")] == [str(error)] * 4


def test_what_was_decided_too_long_ago_is_not_done() -> None:
    """PCP is away for two seconds after the first of them; meanwhile the network may be back."""
    site = Site()
    site.steps(1)
    site.states, site.takes = (silent, silent, silent), FRESH_SECONDS + 0.1
    site.obeys = lambda _: "PsS"
    site.keeper.step()
    assert site.done == ["detach 1"]
    site.states = (leading, following, following)
    site.takes = 0.0
    site.obeys = lambda _: "PSS"
    site.steps(12)
    assert site.done == ["detach 1", "attach 1"]


def test_while_pcp_is_away_nothing_is_done_and_the_former_view_stays() -> None:
    site = Site()
    former = site.steps(1)
    site.table = AWAY
    site.states = (following, leading, following)
    view = site.steps(3)
    assert (view.table, view.truth, view.seen_at, view.apart_since) == (former.table, former.truth, NOW, None)
    assert view.members[1].sql is not None
    assert view.members[1].sql.in_recovery is False, "the cluster is seen all the same"
    assert view.problem == str(AWAY)
    assert site.views[-3:] != []
    assert site.done == []
    site.table = "PSS"
    assert site.steps(1).problem == ""


def test_before_anything_was_read_there_is_nothing_to_see() -> None:
    site = Site(table=AWAY)
    view = site.steps(1)
    assert (view.table, view.truth, view.seen_at) == ((), Truth(None, "nothing was seen yet"), None)
    assert site.told() == []


def test_a_keeper_that_may_not_act_tells_once_what_it_would_do() -> None:
    site = Site(acts=False, table="sSS")
    site.steps(20)
    assert (site.done, site.counted) == ([], [])
    (line,) = site.told("would_")
    assert (line["event"], line["node"]) == ("nodes.would_attach", "0")
    site.table = "PSS"
    site.steps(2)
    site.table = "sSS"
    site.steps(2)
    assert len(site.told("would_attach")) == 2, "again, after all was well"


def test_what_would_be_done_for_another_reason_is_not_told_again() -> None:
    site = Site(acts=False, table="PsS", states=(false, leading, following))
    site.steps(2)
    site.states = (patroni_dead(false), patroni_dead(leading), patroni_dead(following))
    site.steps(2)
    (line,) = site.told("would_attach")
    assert "lock" in str(line["reason"])


def test_changes_are_told_when_they_are_seen() -> None:
    site = Site()
    site.steps(3)
    assert [(line["event"], line.get("node")) for line in site.told()] == [
        ("nodes.primary", "0"),
        *(("nodes.pgpool", node) for node in "012"),
    ]
    site.log.truncate(0)
    site.log.seek(0)
    site.states = (gone, following, following)
    site.table = "pSS"
    site.steps(3)
    unanswered, silent_patroni, lost, down = site.told()
    assert [(each["event"], each["node"], each["asked"], each["reach"]) for each in (unanswered, silent_patroni)] == [
        ("nodes.answer", "0", "postgresql", "refused"),
        ("nodes.answer", "0", "patroni", "refused"),
    ]
    assert (lost["event"], lost.get("node"), lost["reason"]) == (
        "nodes.primary",
        None,
        "no members hold Patroni's lock",
    )
    assert (down["node"], down["status"], down["role"]) == ("0", "down", "primary")


def test_why_a_node_is_not_known_is_told_when_it_changes_also_while_pcp_is_away() -> None:
    def answers() -> list[tuple[object, ...]]:
        return [(line["asked"], line["node"], line["reach"], line.get("reason")) for line in site.told("answer")]

    site = Site(states=(leading, says(following, reach=Reach.UNTOLD, reason=NOT_ASKED), following))
    site.steps(2)
    assert answers() == []
    expired = "its certificate is not trusted"
    site.states = (leading, says(following, reach=Reach.UNTOLD, reason=expired), following)
    site.steps(2)
    assert answers() == [("patroni", "1", "untold", expired)]
    site.table = AWAY
    site.states = (leading, following, shows(following, reach=Reach.UNTOLD, reason="password"))
    site.steps(3)
    assert answers()[1:] == [("patroni", "1", "answered", None), ("postgresql", "2", "untold", "password")]


def test_a_view_can_be_shown() -> None:
    site = Site(states=(leading, says(following, reach=Reach.UNTOLD, reason="no TLS"), without_patroni(following)))
    shown = site.steps(1).document(NOW + 2)
    assert json.loads(json.dumps(shown)) == shown
    assert [shown[name] for name in ("primary", "problem", "read_seconds_ago")] == [0, "", 2.0]
    nodes = shown["nodes"]
    assert isinstance(nodes, list)
    assert nodes[1] == {
        "node_id": 1,
        "name": "node-1",
        "pgpool": {"status": "up", "role": "standby"},
        "postgresql": {"reach": "answered", "reason": ""},
        "patroni": {"reach": "untold", "reason": "no TLS"},
    }
    assert nodes[2]["patroni"] is None
    site.table = AWAY
    assert site.steps(1).document(NOW)["problem"] == str(AWAY)
    assert View().document(NOW)["read_seconds_ago"] is None


def test_disagreement_lasts_from_when_it_was_first_seen_until_both_agree() -> None:
    site = Site()
    assert site.steps(2).apart_since is None
    site.states = (gone, following, following)
    began = site.now
    assert site.steps(4).apart_since == began, "nobody leads"
    site.states = (gone, leading, following)
    site.obeys = lambda _: "SSS"
    assert site.steps(4).apart_since == began, "another one leads"
    site.table = AWAY
    assert site.steps(4).apart_since == began, "nobody knows"
    site.table = "SPS"
    assert site.steps(1).apart_since is None


def test_a_standby_that_falls_again_comes_back_later_than_the_first_time() -> None:
    site = Site(states=(leading, silent, following))
    site.steps(1)
    assert site.done == ["detach 1"]
    site.states = (leading, following, following)
    for count, seconds in enumerate((0.0, 2 * STEADY_SECONDS, 4 * STEADY_SECONDS), start=1):
        site.table, site.done = "PsS", []
        began = site.now
        while not site.done:
            site.steps(1)
        assert site.done == ["attach 1"]
        assert site.now - began == pytest.approx(max(seconds, STEADY_SECONDS) + 0.25, abs=0.3), count
        site.steps(8)


# --- a pgpool that logs each reading --------------------------------------------------------------------------------


def test_a_pgpool_that_logs_readings_is_read_less_often_while_all_is_well() -> None:
    site = Site(good_for=SPARING_SECONDS)
    site.steps(int(2 * SPARING_SECONDS / 0.25) + 1)
    assert site.readings == 3


def test_at_rest_every_second_look_is_a_reading() -> None:
    site = Site(good_for=RESTING_SECONDS)
    site.steps(9)
    assert site.readings == 5


def test_any_news_of_the_cluster_is_worth_a_reading() -> None:
    site = Site(good_for=SPARING_SECONDS)
    site.steps(2)
    assert site.readings == 1
    site.states = (leading, gone, following)
    site.steps(2)
    assert site.readings == 2


def test_while_anything_is_wrong_each_look_is_a_reading() -> None:
    for states, letters in (((following, following, following), "PSS"), ((leading, following, following), "sSS")):
        site = Site(good_for=SPARING_SECONDS, states=states, table=letters, refuses=AWAY)
        site.steps(8)
        assert site.readings == 8


def test_time_alone_may_be_reason_enough_to_act_and_then_a_reading_is_not_spared() -> None:
    """The lock of a dead Patroni expires although nothing changes."""
    told = says(following, leader="node-0", ttl=20.0, loop_wait=2.0)
    site = Site(good_for=SPARING_SECONDS, states=(patroni_dead(leading, 15.9), told, told), obeys=lambda _: "pSS")
    site.steps(1)
    assert site.done == []
    while not site.done:
        site.steps(1)
        assert site.now < NOW + SPARING_SECONDS
    assert site.done == ["detach 0"]
    assert site.now - NOW == 1.5, "the first look after 1.1 s, and the time until the next one"


def test_the_timeline_of_former_nodes_keeps_no_new_cluster_from_having_a_primary() -> None:
    site = Site(states=[without_patroni(each) for each in (leading, following, following)])
    assert site.steps(4).truth.primary == 0
    new = [shows(leading, timeline=1), shows(following, timeline=1), silent]
    site.states = [without_patroni(each) for each in new]
    assert site.steps(4).truth.primary is None
    site.keeper.begin_anew()
    assert site.steps(4).truth.primary == 0
