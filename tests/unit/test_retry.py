"""Waiting times between two tries."""

from random import Random

from sidecar.retry import Backoff


def test_the_longest_wait_doubles_from_a_second_to_a_minute_and_stays_there() -> None:
    backoff = Backoff(lambda _, longest: longest)
    assert [backoff.next() for _ in range(9)] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_each_wait_is_drawn_from_nothing_to_the_longest() -> None:
    ranges: list[tuple[float, float]] = []

    def draw(shortest: float, longest: float) -> float:
        ranges.append((shortest, longest))
        return 0.5

    backoff = Backoff(draw)
    assert [backoff.next() for _ in range(3)] == [0.5, 0.5, 0.5]
    assert ranges == [(0, 1), (0, 2), (0, 4)]


def test_something_new_begins_again() -> None:
    backoff = Backoff(lambda _, longest: longest)
    for _ in range(5):
        backoff.next()
    backoff.reset()
    assert backoff.next() == 1


def test_it_goes_on_for_ever() -> None:
    backoff = Backoff(lambda _, longest: longest)
    assert {backoff.next() for _ in range(5000)} >= {1, 60}


def test_many_pods_do_not_knock_at_the_same_moment() -> None:
    waits = []
    for seed in range(200):
        backoff = Backoff(Random(seed).uniform)
        waits.append(sum(backoff.next() for _ in range(4)))
    assert len({round(wait, 1) for wait in waits}) > 80
