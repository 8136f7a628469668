"""The observer's own part: who is asked, who is woken, what becomes of an unforeseen error."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from entrypoint.backends import Backend
from sidecar.cluster import Observer
from sidecar.member import Reach, Rest
from sidecar.standing import Credentials
from support.deadline import wait_until
from support.patroni_answers import CLUSTER, DEMOTED, PRIMARY, REPLICA, node
from support.ports import free_port


@pytest.fixture
def backends() -> list[Backend]:
    return [Backend(name=f"postgres-{number}", host="127.0.0.1", port=free_port()) for number in (1, 2)]


def nobody() -> None:
    """No credentials."""


@contextmanager
def watching(observer: Observer) -> Iterator[None]:
    observer.start()
    try:
        yield
    finally:
        observer.stop()


def rest(observer: Observer, number: int) -> Rest | None:
    return observer.members()[number].rest


def wait(observer: Observer, condition: Callable[[], object]) -> None:
    wait_until(condition, timeout=5, failure=lambda: str(observer.members()))


def leads(observer: Observer, number: int) -> bool:
    said = rest(observer, number)
    return said is not None and said.lock is True


def leader_as_seen_by(observer: Observer, number: int) -> str | None:
    said = rest(observer, number)
    return said.leader if said else "not asked yet"


def test_before_it_starts_nothing_is_known_and_stopping_is_no_error(backends: list[Backend]) -> None:
    observer = Observer(backends, nobody, None)
    assert [(each.node_id, each.name, each.sql, each.rest) for each in observer.members()] == [
        (0, "postgres-1", None, None),
        (1, "postgres-2", None, None),
    ]
    observer.stop()


def test_who_is_primary_for_pgpool_whatever_it_is_is_known(backends: list[Backend]) -> None:
    backends[1] = replace(backends[1], flags=("DISALLOW_TO_FAILOVER", "ALWAYS_PRIMARY"))
    assert [each.is_always_primary for each in Observer(backends, nobody, None).members()] == [False, True]


def test_whoever_says_that_it_leads_spares_the_others_the_question(backends: list[Backend]) -> None:
    with node() as first, node() as second:
        first.answer("/primary", 200, PRIMARY)
        second.answer("/primary", 503, REPLICA)
        second.answer("/cluster", 200, CLUSTER)
        urls = [f"http://127.0.0.1:{each.port}" for each in (first, second)]
        observer = Observer(backends, nobody, urls, period=0.05)
        with watching(observer):
            wait(observer, lambda: leads(observer, 0))
            wait(observer, lambda: leader_as_seen_by(observer, 1) is None)
            # The leader's own Patroni is lost, and another one still knows it.
            first.says["/primary"] = lambda _: None
            wait(observer, lambda: leader_as_seen_by(observer, 1) == "postgres-1")
            lost = rest(observer, 0)
            assert lost is not None
            assert (lost.reach, lost.lock) == (Reach.UNTOLD, None)


def test_when_a_node_last_had_the_lock_is_kept_whatever_it_says_then(backends: list[Backend]) -> None:
    with node() as patroni:
        patroni.answer("/primary", 503, REPLICA)
        observer = Observer(backends[:1], nobody, [f"http://127.0.0.1:{patroni.port}"], period=0.05)

        def led() -> float | None:
            said = rest(observer, 0)
            return said.led if said else None

        def becomes(lock: bool | None) -> bool:  # noqa: FBT001  # one of three
            said = rest(observer, 0)
            return said is not None and said.lock is lock

        with watching(observer):
            wait(observer, lambda: becomes(False))
            assert led() is None
            patroni.answer("/primary", 200, PRIMARY)
            wait(observer, lambda: becomes(True))
            first = led()
            assert first is not None
            wait(observer, lambda: (led() or 0) > first)
            patroni.answer("/primary", 503, PRIMARY)  # it is started anew
            wait(observer, lambda: becomes(False))
            last = led()
            assert last is not None
            patroni.says["/primary"] = lambda _: None  # and dies
            wait(observer, lambda: becomes(None))
            assert led() == last


def test_since_when_patroni_has_not_read_etcd_is_told_by_our_clock(backends: list[Backend]) -> None:
    with node() as patroni:
        patroni.answer("/primary", 503, REPLICA)
        observer = Observer(backends[:1], nobody, [f"http://127.0.0.1:{patroni.port}"], period=0.05)

        def asked_again() -> Rest:
            count = len(patroni.asked)
            wait_until(lambda: len(patroni.asked) > count + 3, timeout=5, failure=lambda: str(patroni.asked))
            said = rest(observer, 0)
            assert said is not None
            return said

        with watching(observer):
            wait(observer, lambda: (said := rest(observer, 0)) and said.dcs_since)
            first = asked_again()
            assert (asked_again().dcs_since, first.dcs_last_seen) == (first.dcs_since, REPLICA["dcs_last_seen"])
            patroni.says["/primary"] = lambda _: None
            lost = asked_again()
            assert (lost.reach, lost.dcs_since) == (Reach.UNTOLD, first.dcs_since)
            patroni.answer("/primary", 503, REPLICA)
            assert asked_again().dcs_since == first.dcs_since
            patroni.answer("/primary", 503, REPLICA | {"dcs_last_seen": REPLICA["dcs_last_seen"] + 1})
            again = asked_again()
            assert (again.dcs_since or 0) > (first.dcs_since or 0)


def test_who_has_just_fallen_silent_is_asked_more_often(backends: list[Backend]) -> None:
    with node() as patroni:
        patroni.answer("/primary", 200, PRIMARY)
        observer = Observer(backends[:1], nobody, [f"http://127.0.0.1:{patroni.port}"], period=0.5)

        def seconds_for_four() -> float:
            begin, until = time.monotonic(), patroni.asked.count("/primary") + 4
            wait(observer, lambda: patroni.asked.count("/primary") >= until)
            return time.monotonic() - begin

        with watching(observer):
            wait(observer, lambda: leads(observer, 0))
            usual = seconds_for_four()
            patroni.says["/primary"] = lambda _: None
            wait(observer, lambda: not leads(observer, 0))
            assert seconds_for_four() < 0.75 * usual


def test_only_what_is_new_wakes(backends: list[Backend]) -> None:
    with node() as patroni:
        patroni.answer("/primary", 503, REPLICA)
        news: list[Rest | None] = []
        observer = Observer(
            backends[:1], nobody, [f"http://127.0.0.1:{patroni.port}"], period=0.05, wake=lambda: news.append(last())
        )

        def last() -> Rest | None:
            return rest(observer, 0)

        def asked_again() -> None:
            count = len(patroni.asked)
            wait_until(lambda: len(patroni.asked) > count + 3, timeout=5, failure=lambda: str(patroni.asked))

        with watching(observer):
            asked_again()
            before = len(news)
            patroni.answer("/primary", 503, REPLICA | {"dcs_last_seen": 1795479999})
            asked_again()
            assert len(news) == before
            said = last()
            assert said is not None
            assert said.dcs_last_seen == 1795479999
            patroni.answer("/primary", 503, DEMOTED)
            asked_again()
            assert len(news) == before + 1
            now = last()
            assert now is not None
            assert (now.unlocked, now.since) == (True, said.since)


def test_with_fewer_urls_than_backends_the_rest_is_asked_in_sql_only(backends: list[Backend]) -> None:
    observer = Observer(backends, nobody, [f"http://127.0.0.1:{free_port()}"])
    with watching(observer):
        wait(observer, lambda: all(each.sql for each in observer.members()) and rest(observer, 0))
    assert rest(observer, 1) is None


def test_an_unforeseen_error_is_told_and_nothing_is_known_until_it_is_over(backends: list[Backend]) -> None:
    failures: list[Exception] = []
    broken = threading.Event()

    def login() -> Credentials | None:
        if broken.is_set():
            raise ValueError("unforeseen")
        return None

    with socket.create_server(("127.0.0.1", backends[0].port)):
        observer = Observer(backends[:1], login, None, period=0.05, failed=failures.append)

        def sql_is_known() -> bool:
            return observer.members()[0].sql is not None

        with watching(observer):
            for state in (broken.clear, broken.set, broken.clear):
                state()
                wait(observer, lambda: sql_is_known() is not broken.is_set())
    assert {str(failure) for failure in failures} == {"unforeseen"}


def test_stopping_waits_for_no_question(backends: list[Backend]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        observer = Observer(backends, nobody, [f"http://127.0.0.1:{silent.getsockname()[1]}"], seconds=5.0)
        observer.start()
        silent.accept()[0].close()
        _hanging, _ = silent.accept()
        began = time.monotonic()
        observer.stop()
        assert time.monotonic() - began < 1.0
        _hanging.close()
