"""What is done about pgpool's node table, and above all what is not: every rule, then every combination."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import pytest

from entrypoint.defaults import FAILOVER
from sidecar.member import Member, Reach
from sidecar.memory import (
    FLAP_SECONDS,
    NOTHING_DONE,
    NOTHING_SEEN,
    SETTLING_SECONDS,
    Action,
    Done,
    Kind,
    Memory,
    hear,
    remember,
    see,
)
from sidecar.nodes import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    LONGEST_STEADY_SECONDS,
    LOOK_SECONDS,
    OPPOSITE_SECONDS,
    PRIMARY_SILENCE_SECONDS,
    SEARCH_SECONDS,
    SILENCE_SECONDS,
    STEADY_SECONDS,
    decide,
    forget,
)
from sidecar.table import Row, primary_of
from sidecar.truth import (
    FENCE_SECONDS,
    FRESH_SECONDS,
    LATE_SECONDS,
    LOOP_SECONDS,
    RENEWED_SECONDS,
    TTL_SECONDS,
    UNHEARD_SECONDS,
    UNLOCKED_SECONDS,
    truth,
    writes,
)
from support.members import (
    LONG,
    MOMENT,
    NOW,
    State,
    barred,
    cluster,
    crashed,
    false,
    following,
    frozen,
    gone,
    idle,
    leading,
    patroni_dead,
    promoting,
    rest,
    says,
    seen,
    shows,
    silent,
    table,
    unknown,
    well_for,
    without_patroni,
)


def does(letters: str, members: Sequence[Member], memory: Memory = NOTHING_DONE, now: float = NOW) -> str:
    """Such as `detach 1, attach 0`."""
    return ", ".join(f"{action.kind} {action.node_id}" for action in decide(table(letters), members, memory, now))


def reasons(letters: str, members: Sequence[Member]) -> list[str]:
    return [action.reason for action in decide(table(letters), members, NOTHING_DONE, NOW)]


WELL = cluster(leading, following, following)


def test_a_primary_that_pgpool_has_just_lost_is_not_attached_on_an_older_answer() -> None:
    asked = WELL[0].sql.asked if WELL[0].sql else NOW
    assert does("sSS", WELL) == "attach 0"
    assert does("sSS", WELL, see(NOTHING_DONE, table("sSS"), asked)) == ""
    assert does("sSS", WELL, see(NOTHING_DONE, table("sSS"), asked - 0.001)) == "attach 0"


def test_since_when_a_node_is_down_is_forgotten_when_it_is_up() -> None:
    memory = see(see(NOTHING_DONE, table("sSS"), 1.0), table("sSS"), 2.0)
    assert memory.down == {0: 1.0}
    assert see(see(memory, table("PSS"), 3.0), table("sSS"), 4.0).down == {0: 4.0}


@pytest.mark.parametrize("kind", Kind)
def test_pgpool_is_not_told_to_look_again_while_it_may_be_looking(kind: Kind) -> None:
    memory = Memory(done={0: Done(kind, NOW - LOOK_SECONDS + 0.01)}, given_up={})
    assert does("SSS", WELL) == "look_again 0"
    assert does("SSS", WELL, memory) == ""
    assert does("SSS", WELL, memory, NOW + 0.02) == "look_again 0"


# --- who is primary -------------------------------------------------------------------------------------------------

paused = says(following, paused=True, unlocked=True)
told_0, told_1 = says(following, leader="node-0"), says(following, leader="node-1")


@pytest.mark.parametrize(
    ("states", "primary"),
    [
        ((leading, following, following), 0),
        ((following, following, leading), 2),
        ((false, leading, following), 1),
        # nobody, or nobody knows
        ((unknown, unknown, unknown), None),
        ((silent, silent, silent), None),
        ((following, following, following), None),
        ((leading, leading, following), None),
        ((promoting, following, following), None),
        ((crashed, following, following), None),
        ((barred, following, following), None),
        ((false, following, following), None),
        ((seen(leading, FRESH_SECONDS + MOMENT), following, following), None),
        # its own Patroni does not answer, but the others know
        ((patroni_dead(leading, 5), told_0, told_0), 0),
        ((patroni_dead(leading, 5), told_0, following), 0),
        ((patroni_dead(leading, 5), told_0, silent), 0),
        ((patroni_dead(leading, 5), told_1, told_1), None),
        ((patroni_dead(leading, 5), told_0, told_1), None),
        ((patroni_dead(leading, 5), following, following), None),
        ((patroni_dead(leading, 5), says(told_0, unlocked=True), says(told_0, unlocked=True)), None),
        ((false, told_0, told_0), None),  # and it denies it
        ((silent, told_0, told_0), None),
        # PostgreSQL alone
        ((patroni_dead(leading), patroni_dead(following), patroni_dead(following)), 0),
        ((without_patroni(leading), without_patroni(following), without_patroni(following)), 0),
        ((without_patroni(false), without_patroni(leading), without_patroni(following)), 1),
        ((without_patroni(leading), without_patroni(false), without_patroni(false)), 0),
        ((without_patroni(leading), without_patroni(leading), without_patroni(false)), None),
        ((without_patroni(leading), without_patroni(shows(leading, timeline=None)), without_patroni(following)), None),
        ((without_patroni(following),) * 3, None),
        ((without_patroni(leading), unknown, unknown), 0),
        # a paused cluster, whose leader's Patroni was stopped
        ((patroni_dead(leading), paused, paused), 0),
        ((patroni_dead(leading), paused, gone), 0),
        ((patroni_dead(following), paused, paused), None),
        ((patroni_dead(false), paused, paused), None),
        ((patroni_dead(leading), paused, says(following, unlocked=True)), None),
        ((patroni_dead(leading), paused, says(paused, unlocked=False)), None),
        ((patroni_dead(leading), paused, says(paused, leader="node-1", unlocked=False)), None),
        ((patroni_dead(leading), paused, says(leading, paused=True)), 2),
        # which was left behind by a promotion, as somebody knows
        ((without_patroni(false), without_patroni(barred), without_patroni(following)), None),
        ((without_patroni(false), without_patroni(silent), without_patroni(following)), None),
        ((patroni_dead(false), patroni_dead(seen(leading, LONG)), patroni_dead(following)), None),
        ((without_patroni(false), without_patroni(silent), without_patroni(seen(following, LONG))), 0),
    ],
)
def test_who_is_primary(states: tuple[State, ...], primary: int | None) -> None:
    found = truth(cluster(*states), 0, NOW)
    assert found.primary == primary
    assert found.reason


def test_the_reason_says_who_and_why() -> None:
    assert truth(WELL, 0, NOW).reason == "node-0 holds Patroni's lock and takes writes"
    assert truth(cluster(crashed, following, following), 0, NOW).reason == (
        "node-0 holds Patroni's lock, and does not take writes"
    )
    assert truth(cluster(following, following, following), 0, NOW).reason == "no members hold Patroni's lock"
    assert truth(cluster(leading, leading, following), 0, NOW).reason == "2 members hold Patroni's lock"


def test_a_primary_that_was_left_behind_is_not_taken_back_when_the_later_one_does_not_answer() -> None:
    """Nobody else may know of the promotion: there are two nodes only, and no Patroni is asked."""
    later, former = without_patroni(barred), without_patroni(false)
    memory = hear(NOTHING_DONE, cluster(former, without_patroni(leading)), NOW)
    memory = hear(memory, cluster(former, later), NOW)
    assert does("sP", cluster(former, later), memory) == ""
    assert does("sP", cluster(former, later)) == "attach 0", "if it was never seen"
    reason = truth(cluster(former, later), memory.timeline, NOW).reason
    assert reason == "timeline 5 was seen, and only an earlier one is written (node-0)"
    anew = cluster(former, without_patroni(shows(following, timeline=4)))
    assert does("sS", anew, hear(memory, anew, NOW)) == "attach 0", "the cluster was made anew, and all say so"


def test_what_was_said_a_moment_ago_still_counts() -> None:
    assert truth(cluster(seen(leading, FRESH_SECONDS), following, following), 0, NOW).primary == 0


@pytest.mark.parametrize(
    ("letters", "primary"),
    [("PSS", 0), ("SSW", 2), ("pSS", None), ("SSS", None), ("sss", None), ("usP", 2), ("", None)],
)
def test_whom_pgpool_has_for_its_primary(letters: str, primary: int | None) -> None:
    assert primary_of(table(letters)) == primary


# --- nothing is done ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "states"),
    [
        # all is well
        ("PSS", (leading, following, following)),
        ("Www", (leading, following, following)),
        ("SSP", (following, following, leading)),
        # nothing is known
        ("PSS", (unknown, unknown, unknown)),
        ("sss", (unknown, unknown, unknown)),
        ("SSS", (unknown, unknown, unknown)),
        ("", (unknown, unknown, unknown)),
        ("PSS", ()),
        # what was known is old
        ("sss", (seen(leading, LONG), seen(following, LONG), seen(following, LONG))),
        ("sPS", (seen(leading, 2), seen(following, 2), seen(following, 2))),
        ("PSS", (seen(silent, LONG), seen(silent, LONG), seen(silent, LONG))),
        # nobody leads, or more than one
        ("SSS", (following, following, following)),
        ("pSS", (following, following, following)),
        ("sss", (following, following, following)),
        ("PSS", (leading, leading, following)),
        ("SSP", (leading, leading, following)),
        # the lock is held, PostgreSQL does not take writes (yet)
        ("pSS", (crashed, following, following)),
        ("sSS", (crashed, following, following)),
        ("PSS", (crashed, following, following)),
        ("sSS", (barred, following, following)),
        # two take writes, and nobody knows which is the later one
        ("SPS", (without_patroni(leading), without_patroni(leading), without_patroni(following))),
        # pgpool is looking for its primary, and will find it
        ("Sps", (leading, gone, gone)),
        # nodes that somebody has taken out by other means
        ("uSS", (leading, following, following)),
        ("qSS", (leading, following, following)),
        ("Puq", (leading, following, following)),
        # refusals: whoever is there to refuse is no black hole
        ("PSS", (leading, gone, following)),
        ("PSS", (gone, following, following)),
        ("Pss", (leading, gone, gone)),
        # a frozen PostgreSQL, or one that does not let us in
        ("PSS", (leading, frozen, barred)),
        ("Pss", (leading, frozen, barred)),
        # more nodes in pgpool than members, and fewer
        ("PSSSS", (leading, following, following)),
        ("PSSss", (leading, following, following)),
        ("PS", (leading, following, following)),
        ("SS", (following, following, leading)),
    ],
)
def test_nothing_is_done(letters: str, states: tuple[State, ...]) -> None:
    assert does(letters, cluster(*states)) == ""


# --- pgpool is to have the true primary -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "states", "done"),
    [
        # it is down in pgpool
        ("sSS", (leading, following, following), "attach 0"),
        ("pSS", (leading, following, following), "attach 0"),
        ("sss", (leading, following, following), "attach 0"),
        ("SsS", (following, leading, following), "attach 1"),
        ("sPS", (leading, following, following), "attach 0"),
        ("sPS", (leading, false, following), "attach 0"),
        # pgpool has another one, or none
        ("PSS", (following, leading, following), "look_again 1"),
        ("PSS", (gone, leading, following), "look_again 1"),
        ("PSS", (frozen, leading, following), "look_again 1"),
        ("SSS", (leading, following, following), "look_again 0"),
        ("wSS", (leading, following, following), "look_again 0"),
        ("Sss", (leading, gone, gone), "look_again 0"),
        ("SSSP", (leading, following, following), "look_again 0"),
        # which takes writes, too, so that pgpool might take it again
        ("PSS", (false, leading, following), "detach 0"),
        ("SSP", (leading, following, false), "detach 2"),
        ("SPS", (without_patroni(leading), without_patroni(false), without_patroni(following)), "detach 1"),
        # PostgreSQL alone tells
        ("sSS", (patroni_dead(leading), patroni_dead(following), patroni_dead(following)), "attach 0"),
        ("PSS", (without_patroni(following), without_patroni(leading), without_patroni(following)), "look_again 1"),
        ("pSS", (patroni_dead(leading), paused, paused), "attach 0"),
        # only the other members know
        ("sSS", (patroni_dead(leading, 5), told_0, told_0), "attach 0"),
        ("SPS", (patroni_dead(leading, 5), told_0, told_0), "look_again 0"),
    ],
)
def test_pgpool_is_to_have_the_true_primary(letters: str, states: tuple[State, ...], done: str) -> None:
    assert does(letters, cluster(*states)) == done


def test_a_pgpool_whose_primary_is_fixed_is_not_sent_to_look_for_another() -> None:
    fixed = [replace(each, is_always_primary=each.node_id == 0) for each in cluster(following, leading, following)]
    assert does("PSS", fixed) == ""
    assert does("PsS", fixed) == "attach 1"


def test_the_reasons_say_what_is_wrong() -> None:
    well = "node-1 holds Patroni's lock and takes writes"
    members = cluster(following, leading, following)
    assert reasons("PSS", members) == [f"{well}; pgpool's primary is node-0"]
    assert reasons("SSS", members) == [f"{well}; pgpool has no primary"]
    assert reasons("SsS", members) == [f"{well}, and is down in pgpool"]
    assert reasons("PSS", cluster(false, leading, following)) == [f"{well}; node-0 takes writes, too"]
    assert reasons("PsS", WELL) == ["node-1 follows the primary, and is down in pgpool"]
    assert reasons("PSS", cluster(leading, silent, following)) == ["node-1 does not answer"]


# --- silence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "states", "done"),
    [
        ("PSS", (leading, silent, following), "detach 1"),
        ("PSw", (leading, silent, silent), "detach 1, detach 2"),
        ("Pss", (leading, silent, silent), ""),
        # pgpool's primary is the last one to go
        ("PSS", (silent, silent, silent), "detach 1, detach 2, detach 0"),
        ("SPS", (silent, silent, silent), "detach 0, detach 2, detach 1"),
        ("PSS", (silent, following, following), "detach 0"),
        # before another thing is done about the cluster
        ("PSS", (silent, leading, following), "detach 0, look_again 1"),
        ("sSS", (leading, silent, following), "detach 1, attach 0"),
    ],
)
def test_a_node_that_does_not_answer_is_given_up(letters: str, states: tuple[State, ...], done: str) -> None:
    assert does(letters, cluster(*states)) == done


def test_a_standby_is_given_up_at_once_when_patroni_is_silent_too() -> None:
    hears_nothing = cluster(leading, lambda node: silent(node, MOMENT), following)
    assert does("PSS", hears_nothing) == "detach 1"


@pytest.mark.parametrize(("seconds", "done"), [(SILENCE_SECONDS - MOMENT, ""), (SILENCE_SECONDS, "detach 1")])
def test_without_patroni_a_standby_is_given_up_a_little_later(seconds: float, done: str) -> None:
    assert does("PSS", cluster(leading, without_patroni(lambda node: silent(node, seconds)), following)) == done


@pytest.mark.parametrize(
    ("seconds", "done"), [(PRIMARY_SILENCE_SECONDS - MOMENT, ""), (PRIMARY_SILENCE_SECONDS, "detach 0")]
)
def test_a_primary_is_given_up_later_than_a_standby(seconds: float, done: str) -> None:
    assert does("PSS", cluster(lambda node: silent(node, seconds), following, following)) == done


def test_a_single_question_without_an_answer_may_be_our_own_fault() -> None:
    """All of them are late after this machine stood still; and a primary's sessions are too dear."""
    late = shows(says(silent, since=NOW - 5, asked=NOW - 5), since=NOW - 5, asked=NOW - 5)
    assert does("PSS", cluster(late, late, late)) == ""
    assert does("PSS", cluster(late, following, following)) == ""
    assert does("PSS", cluster(leading, late, following)) == "detach 1", "others answer: it is the node"


# --- fences ---------------------------------------------------------------------------------------------------------

DUE = TTL_SECONDS - LOOP_SECONDS - FENCE_SECONDS


def fenced_after(seconds: float, *others: State, reach: Reach = Reach.REFUSED, letters: str = "PSS") -> str:
    return does(letters, cluster(patroni_dead(leading, seconds, reach), *others))


@pytest.mark.parametrize("reach", [Reach.REFUSED, Reach.SILENT])
def test_a_primary_whose_patroni_is_dead_is_fenced_before_its_lock_expires(reach: Reach) -> None:
    assert fenced_after(DUE - MOMENT, told_0, told_0, reach=reach) == ""
    assert fenced_after(DUE, told_0, told_0, reach=reach) == "detach 0"
    assert fenced_after(DUE, told_0, gone, reach=reach) == "detach 0"
    assert fenced_after(DUE, following, following, reach=reach) == "detach 0", "who leads is not known"


@pytest.mark.parametrize("seconds", [DUE, TTL_SECONDS, TTL_SECONDS + RENEWED_SECONDS - MOMENT])
@pytest.mark.parametrize("letters", ["pSS", "sSS"])
def test_who_was_fenced_stays_out_while_its_lock_may_expire(letters: str, seconds: float) -> None:
    assert fenced_after(seconds, told_0, told_0, letters=letters) == ""
    assert truth(cluster(patroni_dead(leading, seconds), told_0, told_0), 0, NOW).primary is None


def test_who_was_fenced_is_taken_back_when_its_patroni_answers_again() -> None:
    assert does("pSS", WELL) == "attach 0"


def test_a_lock_that_does_not_expire_is_renewed_by_a_patroni_whose_rest_api_alone_is_away() -> None:
    silence = TTL_SECONDS + RENEWED_SECONDS
    assert fenced_after(silence, told_0, told_0, letters="pSS") == "attach 0"
    assert fenced_after(silence, told_0, told_0) == ""
    assert fenced_after(silence, told_0, following) == "", "one of the others does not know"
    assert fenced_after(silence, following, following) == "detach 0", "nobody knows of the lock any more"


def test_a_patroni_that_was_never_reached_with_the_lock_is_no_reason_to_fence() -> None:
    """Such as one that a NetworkPolicy forgot."""
    unreached = says(patroni_dead(leading), led=None)
    assert does("PSS", cluster(unreached, told_0, told_0)) == ""


def test_a_patroni_that_was_started_in_vain_has_not_renewed_its_lock() -> None:
    again = patroni_dead(leading, 5)  # it answered once, without the lock, and is gone again
    assert does("PSS", cluster(says(again, led=NOW - DUE + MOMENT), told_0, told_0)) == ""
    assert does("PSS", cluster(says(again, led=NOW - DUE), told_0, told_0)) == "detach 0"
    unheard = patroni_dead(following, LONG)
    lasts = TTL_SECONDS + RENEWED_SECONDS
    assert does("sSS", cluster(says(patroni_dead(leading, 6), led=NOW - lasts + MOMENT), unheard, unheard)) == ""
    assert does("sSS", cluster(says(patroni_dead(leading, 6), led=NOW - lasts), unheard, unheard)) == "attach 0"


def test_whoever_had_the_lock_last_is_fenced_and_nobody_before_it() -> None:
    dead = patroni_dead(leading, DUE)
    assert does("PSS", cluster(dead, says(told_0, led=NOW - LONG), told_0)) == "detach 0"
    assert does("PSS", cluster(dead, says(told_0, led=NOW - DUE + MOMENT), told_0)) == ""


def test_one_answer_of_patroni_that_is_late_does_not_leave_postgresql_alone_to_be_believed() -> None:
    """Of a node that pgpool has lost, while the others' Patronis have given their last answer some seconds ago."""
    lost = cluster(says(leading, led=None), following, following)
    for seconds, done in ((UNHEARD_SECONDS - MOMENT, ""), (UNHEARD_SECONDS, "attach 0")):
        for reach in (Reach.SILENT, Reach.REFUSED, Reach.UNTOLD):
            unheard = [replace(each, rest=rest(reach, since=seconds)) for each in lost]
            assert does("sSS", unheard) == done
        late = [replace(each, rest=rest(since=LONG, age=seconds)) for each in lost]
        assert does("sSS", late) == done


def test_who_was_fenced_is_not_taken_back_when_patronis_answers_are_late_or_none() -> None:
    for age in (FRESH_SECONDS + MOMENT, UNHEARD_SECONDS, LONG):
        late = says(following, asked=NOW - age)
        assert does("sSS", cluster(patroni_dead(leading, DUE), late, late)) == ""
    lasts = TTL_SECONDS + RENEWED_SECONDS
    unheard = patroni_dead(following, LONG, Reach.SILENT)
    assert does("sSS", cluster(patroni_dead(leading, lasts - MOMENT), unheard, gone)) == ""
    assert does("sSS", cluster(patroni_dead(leading, lasts), unheard, gone)) == "attach 0"


def test_a_search_is_not_told_twice_what_it_has_been_told() -> None:
    """Its queue has ten places, and the cure needs one."""
    lost = cluster(leading, silent, following)
    action = Action(Kind.DETACH, 1, "")
    memory = remember(NOTHING_DONE, action, NOW - LONG)
    assert does("pSS", lost, memory) == "attach 0"
    assert does("PSS", lost, memory) == "detach 1"
    refused = remember(NOTHING_DONE, action, NOW - LONG, taken=False)
    assert does("pSS", lost, refused) == does("pSS", lost)
    assert "detach 1" in does("pSS", lost, refused)


def test_a_lock_that_is_gone_already_is_reason_enough_to_fence() -> None:
    lost, failsafe = says(following, unlocked=True), says(following, unlocked=True, failsafe=True)
    assert fenced_after(UNLOCKED_SECONDS, lost, lost) == "detach 0"
    assert fenced_after(UNLOCKED_SECONDS - MOMENT, lost, lost) == "", "one that cannot reach etcd says the same"
    assert fenced_after(UNLOCKED_SECONDS, lost, told_0) == ""
    assert fenced_after(UNLOCKED_SECONDS, lost, failsafe) == "", "the leader goes on without etcd"
    assert fenced_after(LONG, lost, failsafe) == "", "however long"


def test_a_single_question_without_an_answer_fences_nobody() -> None:
    """Such as the one that was under way while this machine stood still."""
    once = says(patroni_dead(leading), asked=NOW - LONG)
    assert does("PSS", cluster(once, told_0, told_0)) == ""


def test_the_lock_lasts_as_long_as_patroni_tells() -> None:
    short = says(told_0, ttl=20.0, loop_wait=2.0)
    assert fenced_after(20 - 2 - FENCE_SECONDS - MOMENT, short, gone) == ""
    assert fenced_after(20 - 2 - FENCE_SECONDS, gone, short) == "detach 0"
    long = says(told_0, ttl=60.0, loop_wait=10.0)
    assert fenced_after(DUE, long, long) == ""


@pytest.mark.parametrize(
    ("ttl", "loop_wait", "due"), [(60.0, None, 60 - LOOP_SECONDS), (20.0, None, 20 - LOOP_SECONDS), (None, 2.0, 28.0)]
)
def test_ttl_and_loop_wait_are_defaults_of_patroni_each_by_itself(
    ttl: float | None, loop_wait: float | None, due: float
) -> None:
    told = says(told_0, ttl=ttl, loop_wait=loop_wait)
    assert fenced_after(due - FENCE_SECONDS - MOMENT, told, told) == ""
    assert fenced_after(due - FENCE_SECONDS, told, told) == "detach 0"
    still_expires = (ttl or TTL_SECONDS) + RENEWED_SECONDS
    assert fenced_after(still_expires - MOMENT, told, told, letters="pSS") == ""
    assert fenced_after(still_expires, told, told, letters="pSS") == "attach 0"


def test_a_dead_patroni_has_told_how_long_its_lock_lasts() -> None:
    dead = says(patroni_dead(leading, DUE), ttl=60.0, loop_wait=10.0)
    assert does("PSS", cluster(dead, told_0, told_0)) == ""
    assert does("PSS", cluster(dead, told_0, says(told_0, ttl=30.0, loop_wait=10.0))) == "detach 0", "it is long since"


@pytest.mark.parametrize(
    "others",
    [
        (gone, gone),
        (silent, silent),
        (seen(told_0, FRESH_SECONDS + MOMENT),) * 2,
        (says(told_0, paused=True), told_0),
    ],
)
def test_nobody_is_fenced_when_nobody_can_be_promoted(others: tuple[State, ...]) -> None:
    done = fenced_after(DUE, *others)
    assert "detach 0" not in done


def test_an_answer_without_the_lock_is_no_reason_to_fence() -> None:
    """Such as that of a Patroni that has just been started: it takes up the lock again in a moment."""
    assert does("PSS", cluster(false, told_0, told_0)) == ""
    assert fenced_after(LONG, told_0, told_0, reach=Reach.UNTOLD) == ""


# --- a Patroni whose REST API alone lives ---------------------------------------------------------------------------


def hung(seconds: float, **said: object) -> State:
    """It has read etcd for the last time so long ago."""
    return says(says(leading, led=NOW, dcs_since=NOW - seconds), **said)


def beside(seconds: float, **said: object) -> State:
    """A replica whose Patroni has read etcd so long ago."""
    return says(following, dcs_since=NOW - seconds, **said)


def test_a_primary_whose_patroni_stands_still_is_fenced_before_its_lock_expires() -> None:
    assert does("PSS", cluster(hung(DUE - MOMENT), beside(1), beside(2))) == ""
    fenced = cluster(hung(DUE), beside(1), beside(2))
    assert does("PSS", fenced) == "detach 0"
    assert does("pSS", fenced) == ""
    assert reasons("PSS", fenced) == ["Patroni of node-0 stands still, and its lock expires"]
    by_its_own_clock = cluster(hung(LONG, lock=False), beside(1, leader="node-0"), beside(2, leader="node-0"))
    assert does("PSS", by_its_own_clock) == "detach 0", "the lock has expired, and it says so"
    assert does("pSS", by_its_own_clock) == ""


@pytest.mark.parametrize(
    ("standing", "other"),
    [
        (hung(DUE), beside(DUE - LOOP_SECONDS - FENCE_SECONDS)),  # etcd is away, for all of them
        (hung(LONG), beside(LONG)),
        (hung(LONG), following),
        (hung(LONG), gone),
        (hung(LONG), seen(beside(1), LONG)),
        (hung(LONG, failsafe=True), beside(1)),
        (hung(LONG, paused=True), beside(1, paused=True)),
        (hung(LONG), beside(1, paused=True)),
        (says(hung(LONG), dcs_since=None), beside(1)),
        (hung(LONG, led=None), beside(1)),
        (says(leading, led=NOW), beside(1)),
    ],
)
def test_a_patroni_that_stands_still_is_no_reason_to_fence_when_nobody_can_be_promoted(
    standing: State, other: State
) -> None:
    assert does("PSS", cluster(standing, other, other)) == ""


def test_a_round_that_is_late_is_no_standstill_however_short_the_ttl_is() -> None:
    """The longest loop_wait that Patroni allows with this ttl."""
    timing = {"ttl": 20.0, "loop_wait": 14.0}
    late = 14 + LATE_SECONDS
    assert does("PSS", cluster(hung(late - MOMENT, **timing), beside(1, **timing), following)) == ""
    assert does("PSS", cluster(hung(late, **timing), beside(1, **timing), following)) == "detach 0"


# --- standbys that come back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "states", "done"),
    [
        ("PsS", (leading, following, following), "attach 1"),
        ("Pss", (leading, following, following), "attach 1, attach 2"),
        ("ssP", (following, following, leading), "attach 0, attach 1"),
        ("PsS", (leading, well_for(STEADY_SECONDS - MOMENT), following), ""),
        ("PsS", (leading, well_for(STEADY_SECONDS), following), "attach 1"),
        ("PsS", (leading, seen(following, FRESH_SECONDS + MOMENT), following), ""),
        # it receives nothing, unless the primary knows better
        ("PsS", (leading, idle, following), "attach 1"),
        ("PsS", (shows(leading, streaming=frozenset({"node-2"})), idle, following), ""),
        ("PsS", (shows(leading, streaming=None), idle, following), ""),
        ("PsS", (shows(leading, streaming=None), following, following), "attach 1"),
        # it follows another standby
        ("PsS", (shows(leading, streaming=frozenset({"node-2"})), following, following), "attach 1"),
        # nobody may tell: the check role is not in pg_monitor
        ("PsS", (shows(leading, streaming=None), shows(following, receiving=None), following), ""),
        # it leads itself, or nobody knows
        ("PsS", (leading, false, following), ""),
        ("PsS", (leading, gone, following), ""),
        ("PsS", (leading, unknown, following), ""),
        # first of all, pgpool is to have its primary
        ("pss", (leading, following, following), "attach 0"),
        ("SsP", (leading, following, following), "look_again 0"),
        ("SsS", (following, following, following), ""),
        ("SSs", (following, following, following), ""),
    ],
)
def test_a_standby_that_is_well_is_taken_back(letters: str, states: tuple[State, ...], done: str) -> None:
    assert does(letters, cluster(*states)) == done


@pytest.mark.parametrize("times", [0, 1, 2, 3, 5, 9])
def test_a_standby_that_flaps_must_be_well_for_longer_each_time(times: int) -> None:
    seconds = min(STEADY_SECONDS * 2.0 ** max(0, times - 1), LONGEST_STEADY_SECONDS)
    fell = (NOW - FLAP_SECONDS + MOMENT,) * times + (NOW - FLAP_SECONDS,)
    memory = Memory(done={}, given_up={1: fell}, down={1: NOW - LONG})
    assert does("PsS", cluster(leading, well_for(seconds - MOMENT), following), memory) == ""
    assert does("PsS", cluster(leading, well_for(seconds), following), memory) == "attach 1"


def test_a_standby_that_pgpool_drops_again_and_again_must_stay_out_for_longer_although_it_answers_us() -> None:
    """Its sessions live on, and it takes no new ones."""
    assert does("PsS", WELL, Memory(done={}, given_up={1: (NOW,)}, down={1: NOW})) == "attach 1", "once befalls any"
    flapped = Memory(done={}, given_up={1: (NOW - 9, NOW - 3)}, down={1: NOW - 2 * STEADY_SECONDS})
    assert does("PsS", WELL, flapped) == "attach 1"
    assert does("PsS", WELL, replace(flapped, down={1: NOW - 2 * STEADY_SECONDS + MOMENT})) == ""


def test_a_standby_whose_patroni_alone_is_silent_may_take_no_new_connections() -> None:
    deaf = says(following, reach=Reach.SILENT)
    assert does("PsS", cluster(leading, deaf, following)) == ""
    nobody_hears = [says(state, reach=Reach.SILENT) for state in (leading, following, following)]
    assert does("PsS", cluster(*nobody_hears)) == "attach 1", "port 8008 is closed to us"


def test_a_standby_that_cannot_follow_streams_for_an_instant_at_each_attempt_and_is_not_taken() -> None:
    """Its WAL is gone from the primary, say; it answers us all the time."""
    states = (shows(leading, streaming=frozenset({"node-2"})), idle, following)
    memory = hear(NOTHING_SEEN, cluster(*states), NOW)
    memory = hear(memory, streams := cluster(leading, following, following), NOW)
    assert does("PsS", streams, memory) == ""
    assert does("PsS", streams, replace(memory, following={1: NOW - STEADY_SECONDS + MOMENT})) == ""
    assert does("PsS", streams, replace(memory, following={1: NOW - STEADY_SECONDS})) == "attach 1"
    assert hear(memory, cluster(*states), NOW).following.keys() == {2}


# --- nobody leads ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("letters", "states", "done"),
    [
        # Patroni has demoted it, for etcd is away, or PGPOOL_PATRONI is off
        ("PSS", (says(idle, unlocked=True),) * 3, "look_again 0"),
        ("PSS", (without_patroni(idle),) * 3, "look_again 0"),
        ("Pss", (following, following, following), "look_again 0"),
        ("SPS", (promoting, following, following), "look_again 1"),
        # not of one that is not asked just now, that is gone, or beside one that may take writes
        ("PSS", (seen(following, 2), following, following), ""),
        ("PSS", (gone, following, following), ""),
        ("PSS", (following, without_patroni(leading), without_patroni(leading)), ""),
    ],
)
def test_a_primary_that_says_itself_that_it_takes_no_writes_gets_none(
    letters: str, states: tuple[State, ...], done: str
) -> None:
    assert does(letters, cluster(*states)) == done


def test_pgpool_looks_for_it_once_and_again_when_it_has_given_up() -> None:
    demoted = cluster(idle, idle, idle)
    told = Action(Kind.LOOK_AGAIN, 0, "just so")
    assert does("PSS", demoted, remember(NOTHING_DONE, told, NOW - SEARCH_SECONDS + MOMENT)) == ""
    assert does("PSS", demoted, remember(NOTHING_DONE, told, NOW - SEARCH_SECONDS)) == "look_again 0"


def always(state: State) -> State:
    return lambda node: replace(state(node), is_always_primary=True)


@pytest.mark.parametrize(
    ("letters", "states", "done"),
    [
        ("sss", (always(following), following, following), "attach 0, attach 1, attach 2"),
        ("pSS", (always(following), following, following), "attach 0"),
        ("PsS", (always(following), following, following), "attach 1"),
        ("PsS", (always(following), idle, following), ""),
        ("sSS", (always(silent), following, following), ""),
        ("PSS", (always(following), following, following), ""),
        # it has been promoted, and its leader was fenced
        ("pSS", (always(patroni_dead(leading, DUE)), following, following), ""),
    ],
)
def test_before_a_standby_cluster_what_was_given_up_comes_back(
    letters: str, states: tuple[State, ...], done: str
) -> None:
    """There nobody ever leads; one node is ALWAYS_PRIMARY."""
    members = cluster(*states)
    following_ids = [each.node_id for each in members if each.sql and each.sql.receiving]
    memory = replace(NOTHING_DONE, following=dict.fromkeys(following_ids, NOW - LONG))
    assert does(letters, members, memory) == done


def test_who_was_never_let_in_gives_up_nobody_for_it_could_not_take_it_back() -> None:
    black_hole = cluster(leading, silent, following)
    assert does("PSS", black_hole, NOTHING_SEEN) == ""
    barred_all = hear(NOTHING_SEEN, cluster(barred, barred, barred), NOW)
    assert does("PSS", cluster(silent, silent, silent), barred_all) == ""
    assert does("PSS", black_hole, hear(NOTHING_SEEN, black_hole, NOW)) == "detach 1"


# --- again, and the opposite ----------------------------------------------------------------------------------------


def after(kind: Kind, seconds: float, times: int = 1) -> Memory:
    """This was done to node 1 so long ago."""
    return Memory(done={1: Done(kind, NOW - seconds, times)}, given_up={})


@pytest.mark.parametrize("kind", [Kind.DETACH, Kind.LOOK_AGAIN])
def test_no_two_opposing_actions_within_a_second(kind: Kind) -> None:
    assert does("PsS", WELL, after(kind, OPPOSITE_SECONDS - MOMENT)) == ""
    assert does("PsS", WELL, after(kind, OPPOSITE_SECONDS)) == "attach 1"
    black_hole = cluster(leading, silent, following)
    assert does("PSS", black_hole, after(Kind.ATTACH, OPPOSITE_SECONDS - MOMENT)) == ""
    assert does("PSS", black_hole, after(Kind.ATTACH, OPPOSITE_SECONDS)) == "detach 1"


def test_what_was_done_to_one_node_is_no_obstacle_for_another() -> None:
    assert does("PSs", WELL, after(Kind.DETACH, 0)) == "attach 2"


@pytest.mark.parametrize("times", [1, 2, 3, 4, 5, 50])
def test_what_did_not_help_is_done_again_later_each_time(times: int) -> None:
    seconds = min(FIRST_RETRY_SECONDS * 2.0 ** (times - 1), LONGEST_RETRY_SECONDS)
    assert does("PsS", WELL, after(Kind.ATTACH, seconds - MOMENT, times)) == ""
    assert does("PsS", WELL, after(Kind.ATTACH, seconds, times)) == "attach 1"


def test_repetitions_are_counted_until_something_else_is_done() -> None:
    attach, detach = Action(Kind.ATTACH, 1, "just so"), Action(Kind.DETACH, 1, "just so")
    memory = NOTHING_DONE
    counted = []
    for action in (attach, attach, attach, detach, detach, attach):
        memory = remember(memory, action, NOW)
        counted.append((memory.done[1].kind, memory.done[1].times))
    A, D = Kind.ATTACH, Kind.DETACH  # noqa: N806  # a table
    assert counted == [(A, 1), (A, 2), (A, 3), (D, 1), (D, 2), (A, 1)]
    assert memory.given_up == {}


def fallen(*readings: tuple[float, str]) -> Memory:
    memory = NOTHING_DONE
    for at, letters in readings:
        memory = see(memory, table(letters), at)
    return memory


def test_each_fall_of_a_standby_counts_once_whoever_took_it_out_and_old_ones_are_forgotten() -> None:
    assert fallen((1, "PsS"), (2, "PsS")).given_up == {}, "nobody knows since when"
    once = fallen((1, "PSS"), (2, "PsS"), (3, "PsS"))
    assert once.given_up == {1: (2,)}
    assert see(see(once, table("PSS"), 4), table("PsS"), 5).given_up == {1: (2, 5)}
    later = 2 + FLAP_SECONDS
    assert see(see(once, table("PSS"), 4), table("PsS"), later).given_up == {1: (later,)}


def test_a_primary_that_falls_on_its_way_to_be_a_standby_does_not_flap() -> None:
    assert fallen((1, "PSS"), (2, "pSS"), (3, "sPS")).given_up == {}
    assert fallen((1, "PSS"), (2, "SPS"), (1 + SETTLING_SECONDS - MOMENT, "sPS")).given_up == {}
    assert 0 in fallen((1, "PSS"), (2, "SPS"), (1 + SETTLING_SECONDS, "sPS")).given_up


def test_once_the_table_is_as_it_should_be_the_next_attempt_is_a_first_one() -> None:
    many = after(Kind.ATTACH, MOMENT, times=9)
    assert forget(many, table("PsS"), WELL, NOW) == many
    forgiven = forget(many, table("PSS"), WELL, NOW)
    assert does("PsS", WELL, forgiven) == "attach 1"
    assert remember(forgiven, Action(Kind.ATTACH, 1, "again"), NOW).done[1].times == 1
    assert does("PSS", cluster(leading, silent, following), forgiven) == "", "the opposite is still too early"


def test_flaps_are_not_forgotten_with_what_was_done() -> None:
    memory = Memory(done={}, given_up={1: (NOW,)})
    assert forget(memory, table("PSS"), WELL, NOW).given_up == {1: (NOW,)}


# --- every combination ----------------------------------------------------------------------------------------------

STATES: Mapping[str, State] = {
    "leading": leading,
    "following": following,
    "silent": silent,
    "gone": gone,
    "unknown": unknown,
    "crashed": crashed,
    "promoting": promoting,
    "frozen": frozen,
    "false": false,
    "old": seen(leading, LONG),
    "Patroni dead": patroni_dead(says(leading), DUE),
    "PostgreSQL alone": without_patroni(leading),
    "says node-0 leads": told_0,
}
TABLES = {
    letters: table(letters)
    for ups in product((True, False), repeat=3)
    for primary in (0, 1, 2, None)
    for letters in ["".join(("pP" if node == primary else "sS")[up] for node, up in enumerate(ups))]
}


def test_whatever_is_seen_little_is_done_and_no_harm() -> None:
    for names in product(STATES, repeat=3):
        members = cluster(*(STATES[name] for name in names))
        primary = truth(members, 0, NOW).primary
        for letters, rows in TABLES.items():
            if actions := decide(rows, members, NOTHING_DONE, NOW):
                assert list(harm(actions, names, letters, members, primary)) == [], f"{names} {letters}: {actions}"


def harm(
    actions: Sequence[Action], names: Sequence[str], letters: str, members: Sequence[Member], primary: int | None
) -> Iterator[str]:
    if len({action.node_id for action in actions}) < len(actions):
        yield "more than one action for a node"
    for action in actions:
        name, is_up, seen_of = names[action.node_id], letters[action.node_id] in "PS", members[action.node_id].sql
        if name in ("unknown", "old", "gone"):
            yield "something is done to a node that nothing is known of"
        if is_up is (action.kind is Kind.ATTACH):
            yield "it is so already"
        if action.kind is Kind.DETACH:
            if action.node_id == primary:
                yield "the true primary is given up"
        elif primary is None and action.kind is Kind.LOOK_AGAIN:
            if seen_of is None or not seen_of.in_recovery or any(writes(each.sql, NOW) for each in members):
                yield "nobody knows who leads, and somebody may take writes"
        elif primary is None:
            yield "nobody knows who leads"
        elif seen_of is None or seen_of.reach is not Reach.ANSWERED:
            yield "a node is taken that does not answer"


# --- a pgpool that does as it is told -------------------------------------------------------------------------------


class ModelPgpool:
    """What pgpool makes of the actions (failover(), find_primary_node(): src/main/pgpool_main.c).

    patient: it looks for a primary for as long as there is none, not only once.
    failback: seconds from one attach of its own accord to the next (establish_persistent_connection, health_check.c).
    """

    def __init__(self, letters: str, *, patient: bool, failback: float = math.inf) -> None:
        self.up = [letter in "PS" for letter in letters]
        self.primary = next((node for node, letter in enumerate(letters) if letter in "Pp"), None)
        self.patient = patient
        self.looking = "p" in letters
        self.failback = failback
        self.next_failback = [0.0 if failback < math.inf else math.inf] * 3

    def table(self) -> tuple[Row, ...]:
        letters = zip(range(3), self.up, strict=True)
        return table("".join(("pP" if node == self.primary else "sS")[up] for node, up in letters))

    def take(self, action: Action, members: Sequence[Member]) -> None:
        if action.kind is not Kind.LOOK_AGAIN:
            self.up[action.node_id] = action.kind is Kind.ATTACH
        if action.kind is not Kind.DETACH or self.primary in (None, action.node_id):
            self.looking = True
        self.look(members)

    def check(self, members: Sequence[Member], seconds: float) -> None:
        """Every five seconds, each node by itself: standbys that are down and stream are attached."""
        for node, member in enumerate(members):
            streams = member.sql is not None and member.sql.receiving
            if seconds % 5 == 0 and streams and not self.up[node] and seconds > self.next_failback[node]:
                self.up[node], self.next_failback[node] = True, seconds + self.failback

    def look(self, members: Sequence[Member]) -> None:
        """Of those that take writes it takes the last; unless none is a standby, then the first."""
        answers = {
            each.node_id: each.sql.in_recovery
            for each in members
            if self.up[each.node_id] and each.sql and each.sql.reach is Reach.ANSWERED
        }
        writable = [node for node, in_recovery in answers.items() if not in_recovery]
        if not self.looking:
            return
        if writable:
            self.primary = max(writable) if any(answers.values()) else min(writable)
            self.looking = False
        elif not self.patient or not any(self.up):
            self.primary, self.looking = None, False


STEP = 0.25
DEFAULTS = {each.name: each.value for each in FAILOVER.defaults}


class Simulation:
    """The loop, pgpool and the cluster in fake time."""

    def __init__(self, pgpool: ModelPgpool) -> None:
        self.pgpool = pgpool
        self.memory = NOTHING_DONE
        self.seconds = 0.0
        self.done: list[tuple[float, str]] = []

    def step(self, states: Sequence[State], seconds: float = STEP) -> bool:
        """Whether anything was done; the members are as they were at NOW, and were just asked."""
        self.seconds += seconds
        now = NOW + self.seconds
        members = tuple(_asked_at(member, now - 0.1) for member in cluster(*states))
        self.pgpool.look(members)
        rows = self.pgpool.table()
        self.memory = see(hear(self.memory, members, now), rows, now)
        actions = decide(rows, members, self.memory, now)
        for action in actions:
            self.done.append((self.seconds, f"{action.kind} {action.node_id}"))
            self.pgpool.take(action, members)
            self.memory = remember(self.memory, action, now)
        if not actions:
            self.memory = forget(self.memory, rows, members, now)
        return bool(actions)

    def settle(self, states: Sequence[State]) -> None:
        """Until nothing is done for longer than anything waits."""
        while self.step(states) or self.step(states, LONGEST_RETRY_SECONDS + STEP):
            assert len(self.done) < 20, f"no end of it: {self.done}"


def _asked_at(member: Member, asked: float) -> Member:
    return replace(
        member,
        sql=member.sql and replace(member.sql, asked=asked),
        rest=member.rest and replace(member.rest, asked=asked),
    )


LASTING = ("leading", "following", "silent", "crashed", "false")


@pytest.mark.parametrize("patient", [True, False], ids=["patient pgpool", "impatient pgpool"])
def test_the_table_comes_true_in_a_few_steps_and_then_nothing_more_is_done(*, patient: bool) -> None:
    for names in product(LASTING, repeat=3):
        states = [STATES[name] for name in names]
        found = truth(cluster(*states), 0, NOW).primary
        for letters in TABLES:
            simulation = Simulation(ModelPgpool(letters, patient=patient))
            simulation.settle(states)
            wrong = list(untrue(simulation.pgpool, names, found))
            assert (wrong, len(simulation.done) <= 6) == ([], True), f"{names} {letters}: {simulation.done}"


def untrue(pgpool: ModelPgpool, names: Sequence[str], primary: int | None) -> Iterator[str]:
    if primary is not None and primary_of(pgpool.table()) != primary:
        yield "the primary is not the true one"
    for name, is_up in zip(names, pgpool.up, strict=True):
        if name == "silent" and is_up:
            yield "a node that does not answer is in use"
        if name == "following" and not is_up and primary is not None:
            yield "a standby that is well is not in use"


def test_a_standby_that_flaps_is_taken_back_less_and_less_often() -> None:
    simulation = Simulation(ModelPgpool("PSS", patient=True))
    period = 6.0  # 3 s silent, 3 s well
    while simulation.seconds < 2 * FLAP_SECONDS:
        begin, phase = divmod(simulation.seconds + STEP, period)
        began = NOW + begin * period
        is_silent = phase < period / 2
        since = began if is_silent else began + period / 2
        state = silent if is_silent else following
        simulation.step([leading, shows(says(state, since=since), since=since), following])
    taken_back = [at for at, what in simulation.done if what == "attach 1"]
    assert {what for _, what in simulation.done} == {"attach 1", "detach 1"}
    assert 1 <= len(taken_back) <= 4, simulation.done


@pytest.mark.parametrize(
    "failback", [math.inf, float(DEFAULTS["auto_failback_interval"])], ids=["alone", "beside pgpool"]
)
def test_a_standby_that_pgpool_drops_at_each_login_is_attached_less_and_less_often(failback: float) -> None:
    pgpool = ModelPgpool("PSS", patient=True, failback=failback)
    simulation = Simulation(pgpool)
    attached: list[float] = [0.0]
    while simulation.seconds < FLAP_SECONDS:
        if pgpool.up[1] and simulation.seconds - attached[-1] >= 3.0:
            pgpool.up[1] = False
        was_up = pgpool.up[1]
        simulation.step([leading, following, following])
        pgpool.check(cluster(leading, following, following), simulation.seconds)
        if pgpool.up[1] and not was_up:
            attached.append(simulation.seconds)
    assert attached[1] == 3.25, "the first time at once"
    assert 5 <= len(attached) <= 12, attached
