"""The decision for each role, row by row."""

import pytest

from entrypoint.secret import Secret
from sidecar.desired import Roles
from sidecar.login import Outcome
from sidecar.plan import Plan, Trial, decide, judge, to_try

ACCEPTED, REJECTED, UNKNOWN = Outcome.ACCEPTED, Outcome.REJECTED, Outcome.UNKNOWN
OLD, NEW = "old 1%", "new 2%"
GONE = frozenset({"n8n", "check", "other"})


def roles(check_user: str = "check", **passwords: str) -> Roles:
    return Roles({role: Secret(password) for role, password in passwords.items()}, check_user)


def given(plan: Plan) -> dict[str, str]:
    return {role: password.reveal() for role, password in plan.roles.passwords.items()}


SERVED = roles(check="check 1%", n8n=OLD)
WANTED = roles(check="check 1%", n8n=NEW)

# (in use, in the Secret) → what pgpool is given, whether it is held, whether somebody must act.
APPLY, HOLD, ALARM = (NEW, False, False), (OLD, True, False), (OLD, True, True)
MATRIX = [
    (ACCEPTED, ACCEPTED, APPLY),
    (REJECTED, ACCEPTED, APPLY),
    (UNKNOWN, ACCEPTED, APPLY),
    (None, ACCEPTED, APPLY),
    (ACCEPTED, REJECTED, HOLD),
    (REJECTED, REJECTED, ALARM),
    (UNKNOWN, REJECTED, HOLD),
    (ACCEPTED, UNKNOWN, HOLD),
    (REJECTED, UNKNOWN, HOLD),
    (UNKNOWN, UNKNOWN, HOLD),
    (None, UNKNOWN, HOLD),
]


@pytest.mark.parametrize(("old", "new", "decision"), MATRIX)
def test_a_changed_password_is_applied_held_or_an_alarm(
    old: Outcome | None, new: Outcome, decision: tuple[str, bool, bool]
) -> None:
    password, held, alarm = decision
    plan = decide(SERVED, WANTED, {"n8n": Trial(old, new, "28P01: no")}, frozenset())
    assert given(plan) == {"check": "check 1%", "n8n": password}
    assert ("n8n" in plan.held) is held
    assert any(each.alarm for each in plan.held.values()) is alarm
    assert plan.unproven == {}
    assert plan.roles.check_user == "check"


def test_each_reason_to_hold_has_its_own_words() -> None:
    reasons = {held.reason for old, new, _ in MATRIX if (held := judge(Trial(old, new, "28P01: no")))}
    assert reasons == {
        "PostgreSQL could not be asked: 28P01: no",
        "PostgreSQL accepts neither the Secret's password nor the one in use: 28P01: no",
        "PostgreSQL does not accept the Secret's password, and could not be asked about the one in use",
        "PostgreSQL does not accept the Secret's password yet, and does accept the one in use",
    }


@pytest.mark.parametrize("new", list(Outcome))
def test_an_added_role_is_given_and_unproven_until_postgresql_accepts_it(new: Outcome) -> None:
    wanted = roles(check="check 1%", n8n=OLD, other="other 1%")
    plan = decide(SERVED, wanted, {"other": Trial(None, new, "28000: unknown")}, frozenset())
    assert given(plan) == {"check": "check 1%", "n8n": OLD, "other": "other 1%"}
    assert plan.held == {}
    assert list(plan.unproven) == ([] if new is ACCEPTED else ["other"])


def test_a_removed_role_stays_until_the_grace_period_is_over() -> None:
    wanted = roles(check="check 1%")
    assert given(decide(SERVED, wanted, {}, frozenset())) == {"check": "check 1%", "n8n": OLD}
    assert given(decide(SERVED, wanted, {}, GONE)) == {"check": "check 1%"}


def test_a_role_that_is_back_is_not_removed_whoever_says_so() -> None:
    assert given(decide(SERVED, SERVED, {}, GONE)) == {"check": "check 1%", "n8n": OLD}


def test_one_held_role_holds_back_no_other() -> None:
    wanted = roles(check="check 2%", n8n=NEW, other="other 1%")
    trials = {
        "check": Trial(None, ACCEPTED),
        "n8n": Trial(ACCEPTED, REJECTED),
        "other": Trial(None, ACCEPTED),
    }
    plan = decide(SERVED, wanted, trials, frozenset())
    assert given(plan) == {"check": "check 2%", "n8n": OLD, "other": "other 1%"}
    assert list(plan.held) == ["n8n"]


OTHER = roles("other", other="other 1%", n8n=OLD)


@pytest.mark.parametrize("leaving", [frozenset(), GONE])
@pytest.mark.parametrize("new", [REJECTED, UNKNOWN])
def test_another_check_role_must_be_accepted_first(new: Outcome, leaving: frozenset[str]) -> None:
    plan = decide(SERVED, OTHER, {"other": Trial(None, new, "28000: unknown")}, leaving)
    assert plan.roles.check_user == "check"
    # The former one stays as long as it is in use, whatever the grace period says.
    assert given(plan) == {"check": "check 1%", "n8n": OLD, "other": "other 1%"}
    assert plan.held["other"].reason == "as the check role, not accepted yet: 28000: unknown"


def test_another_check_role_that_is_accepted_takes_over_and_the_former_leaves_in_time() -> None:
    trials = {"other": Trial(None, ACCEPTED)}
    plan = decide(SERVED, OTHER, trials, frozenset())
    assert plan.roles.check_user == "other"
    assert given(plan) == {"check": "check 1%", "n8n": OLD, "other": "other 1%"}
    assert (plan.held, plan.unproven) == ({}, {})
    assert given(decide(SERVED, OTHER, trials, GONE)) == {"n8n": OLD, "other": "other 1%"}


def test_an_old_role_that_becomes_the_check_role_is_tried_first() -> None:
    wanted = roles("n8n", check="check 1%", n8n=OLD)
    assert to_try(SERVED, wanted) == ("n8n",)
    plan = decide(SERVED, wanted, {"n8n": Trial(None, REJECTED)}, frozenset())
    assert (plan.roles.check_user, list(plan.held)) == ("check", ["n8n"])
    assert decide(SERVED, wanted, {"n8n": Trial(None, ACCEPTED)}, frozenset()).roles.check_user == "n8n"


def test_only_what_is_new_or_changed_is_tried() -> None:
    wanted = roles(check="check 1%", n8n=NEW, other="other 1%")
    assert to_try(SERVED, wanted) == ("n8n", "other")
    assert to_try(SERVED, SERVED) == ()
    assert to_try(SERVED, roles(check="check 1%")) == ()


def test_roles_are_planned_in_the_order_in_which_they_are_rendered() -> None:
    assert list(given(decide(SERVED, roles(check="check 1%"), {}, frozenset()))) == ["check", "n8n"]
    wanted = roles(b="b 1%", a="a 1%", check="check 1%")
    trials = {"a": Trial(None, ACCEPTED), "b": Trial(None, ACCEPTED)}
    assert list(given(decide(SERVED, wanted, trials, frozenset()))) == ["a", "b", "check", "n8n"]
