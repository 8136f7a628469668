"""The loops of a running sidecar around a rotation that does what a test says."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, NoReturn

import pytest

from entrypoint.errors import ProgramUnusableError
from entrypoint.inputs import Inputs
from entrypoint.publish import GENERATIONS
from sidecar import watcher
from sidecar.events import Events
from sidecar.loops import Loops, directories
from sidecar.metrics import Metrics
from sidecar.options import Options
from sidecar.pulse import Pulse
from sidecar.status import State, Status
from sidecar.surroundings import Surroundings
from support.deadline import wait_until
from support.fakes import Clock, FakeDatabase, FakePgpool
from support.secret_volume import SecretVolume

NEVER = 3600.0
PASSWORD = "a leaked % password"


class FakeRotation:
    """Counts its steps, and does in each what a test says."""

    def __init__(self) -> None:
        self.status = Status(state=State.STARTING)
        self.places: frozenset[Path] = frozenset()
        self.due = NEVER
        self.steps: list[float] = []
        self.act: Callable[[], object] = lambda: None

    def step(self) -> Status:
        self.steps.append(time.monotonic())
        self.act()
        return self.status

    def due_seconds(self) -> float:
        return self.due


class Site:
    """Loops, and all that they touch."""

    def __init__(self, root: Path, *, reread: float = NEVER) -> None:
        self.run_dir = root / "run"
        (self.run_dir / GENERATIONS).mkdir(parents=True)
        self.rotation = FakeRotation()
        self.metrics = Metrics("0")
        self.log = StringIO()
        self.now = 0.0
        self.mounts = root / "mountinfo"
        self.env: dict[str, str] = {}
        clock = Clock()
        database = FakeDatabase(clock, {})
        options = Options(
            run_dir=self.run_dir,
            http=("", 0),
            restart="auto",
            restart_spread=0,
            reread=reread,
            removal_grace=0,
            database="postgres",
            nodes="keep",
            log="logfmt",
        )
        self.around = Surroundings(
            run_dir=self.run_dir,
            env=self.env,
            database=lambda _backends, _name: database,
            pgpool=FakePgpool(self.run_dir, database),
            dry_run=lambda _: None,
            options=options,
            host_name="pgpool-0",
            events=Events(self.log, "logfmt", lambda: datetime.now(UTC)),
            metrics=self.metrics,
        )
        self.loops = Loops(self.rotation, Pulse("rotation", lambda: self.now), self.around, mounts=self.mounts)

    @contextmanager
    def running(self) -> Iterator[None]:
        self.loops.start()
        try:
            yield
        finally:
            self.loops.end()

    def wait(self, condition: Callable[[], object]) -> None:
        wait_until(
            lambda: bool(condition()),
            timeout=10,
            failure=lambda: f"{len(self.rotation.steps)} steps, due in {self.rotation.due}\n{self.log.getvalue()}",
        )

    def wait_until_quiet(self) -> None:
        """Until the watch stands and has hinted, so that a further step has another reason."""
        self.wait(lambda: self.value("watch_mode", mode="inotify") == 1)
        before, since = len(self.rotation.steps), time.monotonic()

        def quiet() -> bool:
            nonlocal before, since
            if len(self.rotation.steps) != before:
                before, since = len(self.rotation.steps), time.monotonic()
            return time.monotonic() - since > 1.5  # longer than a beat of the watcher

        self.wait(quiet)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(f"pgpool_reloader_{name}", labels)

    def told(self, event: str) -> list[str]:
        return [line for line in self.log.getvalue().splitlines() if f" event={event} " in line]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def deaf(*_: object, **__: object) -> NoReturn:
    raise ValueError(PASSWORD)


def test_a_change_in_a_watched_directory_wakes_the_rotation_at_once(site: Site, tmp_path: Path) -> None:
    secret = SecretVolume(tmp_path / "users")
    secret.write({"app": b"a % password"})
    site.rotation.places = frozenset({secret.path})
    with site.running():
        site.wait_until_quiet()
        steps, events = len(site.rotation.steps), site.value("watch_events_total")
        begin = time.monotonic()
        secret.write({"app": b"another % password"})
        site.wait(lambda: len(site.rotation.steps) > steps)
        assert site.rotation.steps[steps] - begin < 1.5
        site.wait(lambda: (site.value("watch_events_total") or 0) > (events or 0))
        assert site.value("watch_errors_total") == 0


def test_a_boot_wakes_the_rotation(site: Site) -> None:
    with site.running():
        site.wait_until_quiet()
        steps = len(site.rotation.steps)
        (site.run_dir / GENERATIONS / "new").mkdir()
        site.wait(lambda: len(site.rotation.steps) > steps)


def test_a_hint_during_a_step_brings_another_step(site: Site, tmp_path: Path) -> None:
    site.rotation.places = frozenset({tmp_path})
    entered, go_on = threading.Event(), threading.Event()
    with site.running():
        site.wait_until_quiet()
        steps, events = len(site.rotation.steps), site.loops._watcher.events  # noqa: SLF001  # no metric within a step

        def act() -> None:
            entered.set()
            assert go_on.wait(10)

        site.rotation.act = act
        (tmp_path / "first").touch()
        assert entered.wait(10)
        # The first change may still be told of; then nothing more, until the second.
        (tmp_path / "second").touch()
        site.wait(lambda: site.loops._watcher.events > events + 1)  # noqa: SLF001
        assert len(site.rotation.steps) == steps + 1
        go_on.set()
        site.wait(lambda: len(site.rotation.steps) > steps + 1)


def test_the_timer_alone_suffices_when_the_watcher_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher.Watcher, "run", deaf)
    site = Site(tmp_path, reread=0.2)
    with site.running():
        site.wait(lambda: len(site.rotation.steps) >= 5)
        begin, *_, end = site.rotation.steps[:5]
        assert 0.75 < end - begin < 3
        assert site.value("watch_mode", mode="poll") == 1
        assert site.value("watch_mode", mode="inotify") == 0
        assert len(site.told("watch.failed")) == 1
    assert PASSWORD not in site.log.getvalue()


def test_inotify_that_fails_is_counted_and_the_mode_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise OSError(28, "no space left on device")

    def with_full_watch(*args: Any, **kwargs: Any) -> watcher.Watcher:  # noqa: ANN401  # handed on
        return watcher.Watcher(*args, **kwargs, watch=full)

    monkeypatch.setattr("sidecar.loops.Watcher", with_full_watch)
    site = Site(tmp_path, reread=0.1)
    with site.running():
        site.wait(lambda: site.value("watch_errors_total") == 1)
        site.wait(lambda: site.value("watch_mode", mode="poll") == 1)
        assert len(site.told("watch.mode")) == 1


def test_a_step_that_is_due_comes_when_it_is_due(site: Site) -> None:
    site.rotation.due = 0.3
    with site.running():
        site.wait(lambda: len(site.rotation.steps) >= 8)
    # Hints of new watches bring some steps earlier; none comes later.
    gaps = [after - before for before, after in zip(site.rotation.steps, site.rotation.steps[1:], strict=False)]
    assert max(gaps) < 2
    assert sorted(gaps)[-4] > 0.29


def test_neither_a_step_that_is_overdue_nor_no_reread_time_spins(tmp_path: Path) -> None:
    for name, reread in (("due", NEVER), ("reread", 0.0)):
        site = Site(tmp_path / name, reread=reread)
        site.rotation.due = 0.0 if reread else NEVER
        with site.running():
            site.wait(lambda site=site: len(site.rotation.steps) >= 20)  # type: ignore[misc]  # cannot infer its type
        assert site.rotation.steps[19] - site.rotation.steps[0] > 0.5


def test_an_error_in_a_step_is_told_once_without_its_words_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.loops._AFTER_FAILURE_SECONDS", 0.05)
    site = Site(tmp_path, reread=0.05)
    site.rotation.act = deaf
    with site.running():
        site.wait(lambda: len(site.rotation.steps) >= 5)
        (line,) = site.told("rotation.failed")
        assert "level=error" in line
        assert "error=ValueError" in line
        assert "test_loops.py:" in line
        site.rotation.act = lambda: None
        before = len(site.rotation.steps)
        site.wait(lambda: len(site.rotation.steps) > before + 2)
        site.rotation.act = deaf
        site.wait(lambda: len(site.told("rotation.failed")) == 2)
    assert PASSWORD not in site.log.getvalue()
    assert "Traceback" not in site.log.getvalue()


def test_our_own_words_and_the_kernels_are_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.loops._AFTER_FAILURE_SECONDS", 0.05)
    site.rotation.due = 0.0
    errors = iter([ProgramUnusableError("another pgpool"), OSError(28, "No space left on device", PASSWORD)])

    def fail() -> None:
        if error := next(errors, None):
            raise error

    site.rotation.act = fail
    with site.running():
        site.wait(lambda: len(site.told("rotation.failed")) == 2)
    first, second = site.told("rotation.failed")
    assert 'reason="another pgpool"' in first
    assert 'reason="No space left on device"' in second
    assert PASSWORD not in second


@pytest.mark.parametrize("reread", [10.0, 0.0])
def test_a_step_that_hangs_for_more_than_a_minute_and_a_rereading_is_dead(tmp_path: Path, reread: float) -> None:
    site = Site(tmp_path, reread=reread)
    go_on = threading.Event()
    site.rotation.act = lambda: go_on.wait(20)
    site.loops.start()
    try:
        site.wait(lambda: site.rotation.steps)
        assert site.loops.live().good
        site.now = 60 + reread
        assert site.loops.live().good
        site.now += 0.1
        verdict = site.loops.live()
        assert (verdict.good, verdict.reason) == (False, f"the rotation loop showed life {site.now:.0f} s ago")
        go_on.set()
        site.wait(lambda: site.loops.live().good)
    finally:
        go_on.set()
        site.loops.end()


def test_steps_that_fail_are_a_sign_of_life(tmp_path: Path) -> None:
    site = Site(tmp_path, reread=0.05)
    site.rotation.act = deaf
    with site.running():
        site.wait(lambda: site.told("rotation.failed"))
        site.now = 1000
        site.wait(lambda: site.loops.live().good)


def test_the_end_does_not_wait_for_a_step_that_hangs(site: Site) -> None:
    go_on = threading.Event()
    site.rotation.act = lambda: go_on.wait(20)
    site.loops.start()
    try:
        site.wait(lambda: site.rotation.steps)
        begin = time.monotonic()
        site.loops.end()
        assert 0.4 < time.monotonic() - begin < 0.6
    finally:
        go_on.set()


def test_the_end_waits_for_the_step_at_work_and_no_other_begins(site: Site) -> None:
    entered, done = threading.Event(), threading.Event()

    def act() -> None:
        entered.set()
        site.loops.stop.wait(10)
        done.set()

    site.rotation.act = act
    site.loops.start()
    assert entered.wait(10)
    begin = time.monotonic()
    site.loops.end()
    assert done.is_set()
    assert time.monotonic() - begin < 0.6
    assert len(site.rotation.steps) == 1
    assert not any(thread.is_alive() for thread in site.loops._threads)  # noqa: SLF001  # nothing else tells


def test_ready_is_what_the_rotation_has_settled(site: Site) -> None:
    site.rotation.status = Status(state=State.APPLYING, reason="just so")
    assert (site.loops.ready().good, site.loops.ready().reason) == (False, "just so")
    site.rotation.status = Status(state=State.IN_SYNC, settled=True)
    assert (site.loops.ready().good, site.loops.ready().reason) == (True, "in_sync")
    site.rotation.status = Status(state=State.INVALID, reason="a bad Secret", settled=True)
    assert site.loops.ready().good


MOUNTS = """\
24 1 0:22 / / rw,relatime shared:1 - overlay overlay rw
31 24 0:30 / {root}/whole ro,relatime - tmpfs tmpfs rw
32 24 0:31 /..2026_06_01_12_00_00.123/app {root}/alone/app ro,relatime - tmpfs tmpfs rw
33 24 0:32 /..2026_06_01_12_00_00.456 {root}/part ro,relatime - tmpfs tmpfs rw
"""


def test_files_that_will_never_follow_their_secret_are_told_once(tmp_path: Path) -> None:
    site = Site(tmp_path, reread=0.05)
    SecretVolume(tmp_path / "whole").write({"follows": b"a % password"})
    for name in ("alone/app", "alone/beside", "part/key"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("a % password")
    site.mounts.write_text(MOUNTS.format(root=tmp_path))
    site.rotation.places = frozenset({tmp_path / "whole", tmp_path / "alone", tmp_path / "part" / "key"})
    with site.running():
        site.wait(lambda: len(site.told("watch.never_updated")) == 2)
        site.rotation.places |= {tmp_path / "alone" / "app", tmp_path / "gone"}
        site.wait(lambda: site.loops._places == site.rotation.places)  # noqa: SLF001  # looked at, and nothing said
        steps = len(site.rotation.steps)
        site.wait(lambda: len(site.rotation.steps) > steps + 1)
    stuck = [str(tmp_path / name) for name in ("alone/app", "part/key")]
    assert [file for line in site.told("watch.never_updated") for file in stuck if f"file={file} " in line] == stuck


def test_without_proc_nothing_is_said_of_mounts(site: Site, tmp_path: Path) -> None:
    site.rotation.places = frozenset({tmp_path})
    with site.running():
        site.wait_until_quiet()
    assert site.told("watch.never_updated") == site.told("rotation.failed") == []


def test_settings_of_the_sidecar_that_only_the_pgpool_container_has_are_told_once(tmp_path: Path) -> None:
    site = Site(tmp_path, reread=0.05)
    site.env |= {"PGPOOL_SIDECAR_LOG": "json", "PGPOOL_SIDECAR_RESTART": "never", "PGPOOL_SIDECAR_HTTP": ":9719"}
    given = {
        "PGPOOL_BACKENDS": "node-1=127.0.0.2",
        "PGPOOL_SIDECAR_LOG": "json",
        "PGPOOL_SIDECAR_RESTART": "auto",
        "PGPOOL_SIDECAR_REREAD": "1s",
    }
    with site.running():
        site.wait(lambda: len(site.rotation.steps) > 2)
        assert site.told("settings.unheeded") == []
        Inputs(pgpool="4.6.1", environment=given, withheld=(), port=1, pcp_port=2, pcp_user="p").write(site.run_dir)
        site.wait(lambda: len(site.told("settings.unheeded")) == 2)
        steps = len(site.rotation.steps)
        site.wait(lambda: len(site.rotation.steps) > steps + 2)
    differently, not_given = sorted(
        site.told("settings.unheeded"), key=lambda line: "setting=PGPOOL_SIDECAR_RER" in line
    )
    assert "level=warning" in differently
    assert "setting=PGPOOL_SIDECAR_RESTART" in differently
    assert "but otherwise to this one" in differently
    assert "setting=PGPOOL_SIDECAR_REREAD" in not_given
    assert "but not to this one" in not_given


def test_of_a_file_its_directory_is_watched(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    places = [tmp_path / "a directory", file, tmp_path / "missing" / "file"]
    places[0].mkdir()
    assert directories(places) == {tmp_path / "a directory", tmp_path, tmp_path / "missing"}
