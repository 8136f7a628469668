"""Whatever fails on the way, the pod ends up with the newest Secrets."""

import pytest

from support.schedules import run_schedules

BATCH = 20


@pytest.mark.parametrize("first", range(0, 100, BATCH))
def test_after_any_misfortune_pgpool_serves_the_newest_secrets(first: int) -> None:
    assert [str(outcome) for outcome in run_schedules(BATCH, first) if outcome.faults] == []


def test_a_schedule_is_the_same_each_time() -> None:
    assert list(run_schedules(5, 7)) == list(run_schedules(5, 7))
