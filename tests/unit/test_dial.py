"""Connections to hosts that are there, away, or only a name."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from sidecar.dial import Place
from support.deadline import wait_until
from support.ports import free_port


def soon() -> float:
    return time.monotonic() + 1.0


@contextmanager
def full(host: str = "127.0.0.1", port: int = 0) -> Iterator[socket.socket]:
    """A listener whose queue is full: the kernel drops what comes, as a network that is cut does."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        stack.enter_context(socket.create_connection(listener.getsockname()))
        yield listener


def test_a_host_that_does_not_answer_is_given_up_in_time() -> None:
    with full() as hole:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Place("127.0.0.1", hole.getsockname()[1], again=0.1).dial(began + 0.5)
        assert 0.4 < time.monotonic() - began < 1.0


def test_a_network_that_comes_back_is_noticed_at_once() -> None:
    """The kernel alone would knock again a whole second after its first time."""
    with full() as hole:
        place = Place("127.0.0.1", hole.getsockname()[1], again=0.1)
        mended: list[float] = []

        def mend() -> None:
            mended.append(time.monotonic())
            hole.accept()[0].close()

        timer = threading.Timer(0.15, mend)
        timer.start()
        place.dial(time.monotonic() + 5).close()
        assert time.monotonic() - mended[0] < 0.5
        timer.join()


def test_nobody_who_listens_is_told_from_silence() -> None:
    with pytest.raises(ConnectionRefusedError):
        Place("127.0.0.1", free_port(), again=0.1).dial(soon())


def test_of_several_addresses_the_one_that_answers_counts() -> None:
    with full("127.0.0.2") as hole:
        port = hole.getsockname()[1]
        with socket.create_server(("127.0.0.4", port)):
            # The first is silent, the second refuses.
            place = Place("db", port, again=0.1, lookup=lambda _: ("127.0.0.2", "127.0.0.3", "127.0.0.4"))
            assert place.find(soon()) == "127.0.0.4"


def test_name_servers_that_are_away_do_no_harm() -> None:
    told: tuple[str, ...] = ()
    asked: list[str] = []
    released = threading.Event()
    released.set()
    now = 0.0

    def lookup(name: str) -> tuple[str, ...]:
        asked.append(name)
        released.wait(10)
        return told

    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = Place("db", listener.getsockname()[1], again=0.1, lookup=lookup, clock=lambda: now)
        with pytest.raises(OSError, match="name is not found"):
            place.find(soon())
        told, now = ("127.0.0.1",), 10.0
        assert place.find(soon()) == "127.0.0.1"

        told, now = (), 20.0
        assert place.find(soon()) == "127.0.0.1", "what was told last"
        wait_until(lambda: asked == ["db"] * 3, timeout=5, failure=lambda: str(asked))
        released.clear()
        now = 30.0
        began = time.monotonic()
        assert place.find(soon()) == "127.0.0.1"
        assert time.monotonic() - began < 0.5, "nobody waits for a name server"
        released.set()


def test_an_address_that_may_be_somebody_elses_by_now_is_not_used() -> None:
    told: tuple[str, ...] = ("127.0.0.1",)
    now = 0.0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        place = Place("db", port, again=0.1, good_for=5.0, lookup=lambda _: told, clock=lambda: now)
        assert place.find(soon()) == "127.0.0.1"
        told, now = (), 4.0
        assert place.find(soon()) == "127.0.0.1"
        now = 60.0
        with pytest.raises(OSError, match="name is not found"):
            place.find(soon())
        told, now = ("127.0.0.1",), 70.0
        assert place.find(soon()) == "127.0.0.1", "somebody who asks seldom waits for the new one"


def test_a_name_that_cannot_be_one_is_not_found() -> None:
    """Python raises no OSError for it."""
    with pytest.raises(OSError, match="name is not found"):
        Place("db..example", 5432, again=0.1).find(soon())


def test_a_name_that_has_moved_is_followed() -> None:
    told, now = "127.0.0.1", 0.0
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        place = Place("db", port, again=0.1, lookup=lambda _: (told,), clock=lambda: now)
        assert place.find(soon()) == "127.0.0.1"
        told = "127.0.0.2"
        assert place.find(soon()) == "127.0.0.1", "names are looked up now and then only"
        now = 10.0
        wait_until(lambda: place.find(soon()) == "127.0.0.2", timeout=5, failure=lambda: "not asked again")


def test_a_name_server_that_hangs_is_given_up_in_time() -> None:
    release = threading.Event()

    def lookup(_: str) -> tuple[str, ...]:
        release.wait(10)
        return ()

    began = time.monotonic()
    with pytest.raises(OSError, match="name is not found"):
        Place("db", 5432, again=0.1, lookup=lookup).find(began + 0.3)
    assert time.monotonic() - began < 1.0
    release.set()
