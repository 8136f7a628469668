"""A slow question is asked once, and nobody waits long for it."""

import threading
from collections.abc import Callable

import pytest

from sidecar.latest import Latest, Seen

SOON = 10.0


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Question:
    """Answers with the number of the asking, as soon as it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.may_answer = threading.Event()
        self.may_answer.set()

    def __call__(self) -> int:
        self.asked += 1
        number = self.asked
        assert self.may_answer.wait(SOON)
        return number


def together(count: int, what: Callable[[], object]) -> list[object]:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(what())) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    return found


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def question() -> Question:
    return Question()


@pytest.fixture
def latest(question: Question, clock: Clock) -> Latest[int]:
    return Latest(question, fresh=3, clock=clock)


def test_nothing_is_asked_before_somebody_wants_to_know(latest: Latest[int], question: Question) -> None:
    assert question.asked == 0
    assert latest.get(SOON) == Seen(1, 0.0)
    assert question.asked == 1


def test_an_answer_is_shared_while_it_is_fresh(latest: Latest[int], question: Question, clock: Clock) -> None:
    latest.get(SOON)
    clock.now += 2.5
    assert latest.get(SOON) == Seen(1, 2.5)
    clock.now += 0.5
    assert latest.get(SOON) == Seen(2, 0.0)


def test_who_asks_at_the_same_time_shares_one_asking(latest: Latest[int], question: Question) -> None:
    question.may_answer.clear()
    release = threading.Timer(0.2, question.may_answer.set)
    release.start()
    assert together(8, lambda: latest.get(SOON)) == [Seen(1, 0.0)] * 8
    release.join()
    assert question.asked == 1


def test_a_slow_answer_is_not_waited_for(latest: Latest[int], question: Question, clock: Clock) -> None:
    question.may_answer.clear()
    assert latest.get(0) is None
    question.may_answer.set()
    assert latest.get(SOON) == Seen(1, 0.0)

    question.may_answer.clear()
    clock.now += 5
    assert latest.get(0.01) == Seen(1, 5.0)
    clock.now += 5
    assert latest.get(0.01) == Seen(1, 10.0)
    assert question.asked == 2
    clock.now += 1
    question.may_answer.set()
    seen = latest.get(SOON)
    assert seen == Seen(2, 6.0), "its age counts from when it was asked for"


def test_a_question_that_fails_is_asked_again(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: failed.set())
    asked = 0

    def ask() -> int:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("a bug")
        return asked

    latest = Latest(ask, fresh=3, clock=clock)
    assert latest.get(SOON) is None
    assert latest.get(SOON) == Seen(2, 0.0)
    assert failed.wait(SOON)
