"""The thread of the node loop, and whom it observes: real threads, real files of a boot, and nodes that refuse."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest

from entrypoint.backends import Backend, parse_backends
from entrypoint.inputs import Inputs
from entrypoint.publish import BOOTED, write_files
from entrypoint.tree import Tree
from entrypoint.values import Patroni
from sidecar.events import Events
from sidecar.keeper import Keeper
from sidecar.member import Member, Reach, Rest
from sidecar.nodeloop import PERIOD_SECONDS, SHORTEST_SECONDS, BootedCluster, NodeLoop
from sidecar.patroni import urls
from sidecar.pulse import BEAT_SECONDS, Pulse
from sidecar.standing import Credentials
from sidecar.table import Row
from support.deadline import wait_until
from support.members import NOW, cluster, following, leading, table
from support.patroni_answers import PRIMARY, node
from support.ports import free_port

PASSWORD = "a leaked % password"


class Site:
    """A run directory, and a loop whose keeper looks at a table and members that a test sets."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.log = StringIO()
        self.looks: list[float] = []
        self.act: Callable[[], object] = lambda: None
        self.letters = "PSS"
        self.sent = 0
        self.credentials: Callable[[], Credentials | None] = lambda: None
        self.stop = threading.Event()
        self.now = 0.0
        events = Events(self.log, "logfmt", lambda: datetime.now(UTC))
        self.cluster = BootedCluster(run_dir, lambda: self.credentials(), events)  # noqa: PLW0108  # a test sets it later
        self.keeper = Keeper(self, self, self, events, lambda _: None, lambda *_: None, good_for=0, clock=lambda: NOW)
        self.loop = NodeLoop(self.keeper, self.cluster, Pulse("node", lambda: self.now), self.stop, events)

    def members(self) -> tuple[Member, ...]:
        return cluster(leading, following, following)

    def read(self) -> tuple[Row, ...]:
        self.looks.append(time.monotonic())
        self.act()
        return table(self.letters)

    def attach(self, node_id: int) -> None:
        raise NotImplementedError

    detach = attach

    def look_again(self) -> None:
        self.sent += 1
        self.letters = "PSS"

    def boot(self, backends: str, number: int = 1, **environment: str) -> None:
        """What pgpool-entrypoint leaves behind."""
        file = self.run_dir / "backends"
        file.write_text(backends)
        conf = "".join(
            f"backend_hostname{node} = '{each.host}'\nbackend_port{node} = {each.port}\n"
            f"backend_application_name{node} = '{each.name}'\nbackend_flag{node} = '{'|'.join(each.flags)}'\n"
            for node, each in enumerate(parse_backends(backends))
        )
        write_files(Tree({"pgpool.conf": conf.encode()}), self.run_dir / "generations" / str(number))
        environment["PGPOOL_BACKENDS_FILE"] = str(file)
        inputs = Inputs(pgpool="4.6.1", environment=environment, withheld=(), port=1, pcp_port=2, pcp_user="p")
        inputs.write(self.run_dir)
        link = self.run_dir / f"{BOOTED}.{number}"
        link.symlink_to(f"generations/{number}")
        link.rename(self.run_dir / BOOTED)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.loop.thread.start()
        try:
            yield
        finally:
            self.stop.set()
            self.cluster.wake.set()
            self.loop.thread.join(5)
            assert not self.loop.thread.is_alive()

    def wait(self, condition: Callable[[], object]) -> None:
        wait_until(lambda: bool(condition()), timeout=10, failure=lambda: f"{len(self.looks)}\n{self.log.getvalue()}")

    def wait_for_looks(self, total: int) -> None:
        """So many since the beginning: the thread may have looked before this is called."""
        self.wait(lambda: len(self.looks) >= total)

    def failures(self) -> list[str]:
        return [line for line in self.log.getvalue().splitlines() if " event=nodes.failed " in line]

    def names(self) -> list[str]:
        return [member.name for member in self.cluster.members()]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.cluster.stop()


def refusing() -> str:
    return f"127.0.0.1:{free_port()}"


def deaf() -> None:
    raise ValueError(PASSWORD)


# --- the thread -----------------------------------------------------------------------------------------------------


def test_it_looks_again_and_again(site: Site) -> None:
    with site.running():
        site.wait_for_looks(5)
    begin, *_, end = site.looks[:5]
    assert end - begin >= 4 * PERIOD_SECONDS - 0.01


def test_news_of_the_cluster_have_it_look_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.nodeloop.PERIOD_SECONDS", 60.0)
    with site.running():
        site.wait_for_looks(1)
        site.cluster.wake.set()
        site.wait_for_looks(2)


def test_news_without_end_leave_a_moment_between_two_looks(site: Site) -> None:
    site.act = site.cluster.wake.set
    with site.running():
        site.wait_for_looks(10)
    begin, *_, end = site.looks[:10]
    assert end - begin >= 9 * SHORTEST_SECONDS - 0.01


def test_a_second_reading_comes_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.nodeloop.PERIOD_SECONDS", 60.0)
    site.letters = "SSS"
    with site.running():
        site.wait(lambda: site.sent)
    assert len(site.looks) == 2


def test_an_error_is_told_once_without_its_words_and_the_loop_goes_on(site: Site) -> None:
    site.act = deaf
    with site.running():
        site.wait_for_looks(3)
        (line,) = site.failures()
        assert "level=error" in line
        assert "error=ValueError" in line
        assert "test_nodeloop.py:" in line
        site.act = lambda: None
        site.wait_for_looks(len(site.looks) + 2)
        site.act = deaf
        site.wait(lambda: len(site.failures()) == 2)
    assert PASSWORD not in site.log.getvalue()


def test_a_look_that_hangs_for_more_than_a_minute_is_dead_and_one_that_fails_is_not(site: Site) -> None:
    go_on = threading.Event()
    site.act = lambda: go_on.wait(20)
    with site.running():
        site.wait_for_looks(1)
        site.now = BEAT_SECONDS
        assert site.loop.live().good
        site.now += 0.1
        verdict = site.loop.live()
        assert (verdict.good, verdict.reason) == (False, "the node loop showed life 60 s ago")
        site.act = deaf
        go_on.set()
        site.wait(lambda: site.loop.live().good)
        site.wait(site.failures)
        site.now += BEAT_SECONDS + 1
        site.wait(lambda: site.loop.live().good)


def test_a_boot_that_cannot_be_read_does_not_make_it_spin(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Although the former look wanted another one at once."""
    tried: list[float] = []

    def follow() -> None:
        tried.append(time.monotonic())
        deaf()

    monkeypatch.setattr(site.cluster, "follow", follow)
    site.keeper.eager = True
    with site.running():
        site.wait(lambda: len(tried) >= 4)
    assert tried[3] - tried[0] >= 3 * PERIOD_SECONDS - 0.01
    assert site.looks == []


def test_it_ends_at_once_and_with_it_all_that_it_observes(site: Site) -> None:
    before = set(threading.enumerate())
    site.boot(f"a={refusing()},b={refusing()}")
    with site.running():
        site.wait(lambda: len(set(threading.enumerate()) - before) == 3)
        ours = set(threading.enumerate()) - before
        begin = time.monotonic()
    assert time.monotonic() - begin < 1.0
    site.wait(lambda: not any(thread.is_alive() for thread in ours))
    assert site.cluster.members() == ()


# --- whom it observes -----------------------------------------------------------------------------------------------


def test_before_a_boot_nobody_is_observed(site: Site) -> None:
    site.cluster.follow()
    assert site.cluster.members() == ()
    assert site.failures() == []


def test_the_backends_of_the_last_boot_are_observed(site: Site) -> None:
    site.boot(f"a={refusing()},b={refusing()}")
    site.cluster.follow()
    assert site.names() == ["a", "b"]
    site.wait(lambda: all(each.sql and each.sql.reach is Reach.REFUSED for each in site.cluster.members()))
    assert all(each.rest is None for each in site.cluster.members()), "Patroni is off"
    site.boot(f"c={refusing()}", 2)
    site.cluster.follow()
    assert site.names() == ["c"]


def test_whether_they_are_others_than_before_is_told(site: Site) -> None:
    one, other = f"a={refusing()}", f"a={refusing()}"
    told = []
    for number, nodes in enumerate((one, one, other), start=1):
        site.boot(nodes, number)
        told += [site.cluster.follow(), site.cluster.follow()]
    assert told == [True, False, False, False, True, False]


def test_what_was_seen_of_other_nodes_is_forgotten(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    forgotten: list[tuple[str, ...]] = []

    def wait_for(number: int) -> None:
        site.wait(lambda: len(forgotten) == number)

    monkeypatch.setattr(site.keeper, "begin_anew", lambda: forgotten.append(tuple(site.names())))
    with site.running():
        for number, name in enumerate("aba", start=1):
            site.boot(f"{name}={refusing()}", number)
            site.cluster.wake.set()
            wait_for(number)
    assert forgotten == [("a",), ("b",), ("a",)]


@pytest.mark.parametrize("now", ["b={b},a={a}", "garbage", ""])
def test_a_list_of_backends_that_has_changed_since_counts_for_nothing(site: Site, now: str) -> None:
    """Ids are those that pgpool was started with: else the wrong node would be detached."""
    a, b = refusing(), refusing()
    site.boot(f"a={a},b={b}?flag=ALWAYS_PRIMARY")
    (site.run_dir / "backends").write_text(now.format(a=a, b=b))
    site.cluster.follow()
    seen = [(each.node_id, each.name, each.is_always_primary) for each in site.cluster.members()]
    assert seen == [(0, "a", False), (1, "b", True)]


def test_those_of_the_same_boot_are_observed_without_interruption(site: Site) -> None:
    site.boot(f"a={refusing()}")
    site.cluster.follow()
    site.wait(lambda: site.cluster.members()[0].sql)
    site.cluster.follow()
    assert site.cluster.members()[0].sql is not None


def test_an_answer_wakes_the_loop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.boot(f"a={refusing()}")
    site.cluster.follow()
    assert site.cluster.wake.wait(5)


def test_a_boot_that_cannot_be_read_changes_nothing_and_is_tried_again(site: Site) -> None:
    site.boot(f"a={refusing()}")
    site.cluster.follow()
    site.boot(f"b={refusing()}", 2)
    inputs = site.run_dir / "inputs.json"
    good = inputs.read_bytes()
    inputs.write_text("{")
    for _ in range(2):
        with pytest.raises(ValueError, match=r"."):
            site.cluster.follow()
        assert site.names() == ["a"]
    inputs.write_bytes(good)
    site.cluster.follow()
    assert site.names() == ["b"]


def test_an_error_that_nobody_has_foreseen_is_told_once_for_all_nodes(site: Site) -> None:
    asked = []

    def credentials() -> Credentials:
        asked.append(time.monotonic())
        raise ValueError(PASSWORD)

    site.credentials = credentials
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        site.boot(f"a=127.0.0.1:{one.getsockname()[1]},b=127.0.0.1:{two.getsockname()[1]}")
        site.cluster.follow()
        site.wait(lambda: len(asked) >= 6)
        site.cluster.stop()
    (line,) = site.failures()
    assert "error=ValueError" in line
    assert PASSWORD not in site.log.getvalue()


def test_a_pgpool_that_is_started_anew_with_the_same_nodes_makes_nobody_forget_who_held_the_lock(site: Site) -> None:
    with node() as patroni:
        patroni.answer("/primary", 200, PRIMARY)
        url = f"http://127.0.0.1:{patroni.port}"
        site.boot("a=127.0.0.1:5999", PGPOOL_PATRONI=url)
        site.cluster.follow()

        def rest() -> Rest | None:
            return next((each.rest for each in site.cluster.members()), None)

        site.wait(lambda: (said := rest()) and said.led)
        patroni.says["/primary"] = lambda _: None  # its Patroni dies
        site.wait(lambda: (said := rest()) and said.reach is Reach.UNTOLD)
        site.boot("a=127.0.0.1:5999", 2, PGPOOL_PATRONI=url)
        assert not site.cluster.follow()
        said = rest()
        assert said is not None
        assert said.led is not None
        site.boot("b=127.0.0.1:5999", 3, PGPOOL_PATRONI=url)
        assert site.cluster.follow()
        said = rest()
        assert said is None or said.led is None


@pytest.mark.parametrize("content", [None, "onn\n"])
def test_patroni_that_cannot_be_read_is_missed_aloud_and_found_when_it_can(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    used: list[bool] = []

    def seen(patroni: Patroni, nodes: Sequence[Backend]) -> tuple[str, ...]:
        used.append(patroni.enabled)
        return urls(patroni, nodes)

    monkeypatch.setattr("sidecar.nodeloop.urls", seen)
    file = tmp_path / "patroni"
    if content is not None:
        file.write_text(content)
    site.boot(f"a={refusing()}", PGPOOL_PATRONI_FILE=str(file))
    assert site.cluster.follow()
    assert not site.cluster.follow()
    assert used == [False]
    assert site.log.getvalue().count("event=nodes.without_patroni") == 1
    file.write_text("on\n")
    assert not site.cluster.follow(), "the nodes are the same"
    assert used == [False, True]
    assert not site.cluster.follow()
    assert used == [False, True]
