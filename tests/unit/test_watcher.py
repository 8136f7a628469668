"""Hints about Secrets that may have changed, with real directories and real inotify."""

import itertools
import resource
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
import watchfiles

from sidecar.watcher import Batches, Watcher, never_updated
from support.deadline import wait_until
from support.secret_volume import SecretVolume

BEAT = 0.1


def payload(revision: int) -> dict[str, bytes]:
    return {"username": b"app user %d" % revision, "password": b"pass %d 100%%" % revision}


class Watching:
    """A watcher at work, which notes what it does."""

    def __init__(self, *directories: Path, watch: Callable[..., Batches] = watchfiles.watch) -> None:
        self.hints: list[float] = []
        self.lines: list[str] = []
        self.watches = 0
        self.settled = 0
        """The last watch that stands, and whose first hint was given."""
        self.beats = 0
        self._real_watch = watch
        self._stop = threading.Event()
        self.watcher = Watcher(
            lambda: self.hints.append(time.monotonic()),
            self._stop,
            log=self.lines.append,
            watch=self._noted,
            beat_seconds=BEAT,
            retry_seconds=BEAT,
        )
        self.watcher.look_at(frozenset(directories))
        self.thread = threading.Thread(target=self.watcher.run)

    def _noted(self, *paths: str, **options: object) -> Batches:
        self.watches += 1
        for batch in self._real_watch(*paths, **options):
            yield batch
            self.settled = self.watches
            self.beats += 1

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> float:
        """End it; the seconds this took."""
        begin = time.monotonic()
        self._stop.set()
        self.thread.join(timeout=10)
        assert not self.thread.is_alive()
        return time.monotonic() - begin

    def wait(self, condition: Callable[[], object]) -> None:
        wait_until(lambda: bool(condition()), timeout=10, failure=lambda: f"{vars(self)}, {vars(self.watcher)}")

    def settle(self, watches: int = 1) -> None:
        """Until at least so many watches were made, and the last one stands and has nothing more to tell."""
        self.wait(lambda: self.settled == self.watches >= watches)
        while not self._quiet():
            pass

    def _quiet(self) -> bool:
        beats, events = self.beats, self.watcher.events
        self.wait(lambda: self.beats >= beats + 2)
        return self.watcher.events == events

    def hinted(self, change: Callable[[], object]) -> None:
        """Make the change; there is a hint because of an event, and not because of a new watch."""
        self.settle()
        hints, events = len(self.hints), self.watcher.events
        change()
        self.wait(lambda: self.watcher.events > events and len(self.hints) > hints)


def inotify_instances() -> int:
    count = 0
    for entry in Path("/proc/self/fd").iterdir():
        try:
            count += str(entry.readlink()) == "anon_inode:inotify"
        except FileNotFoundError:
            continue  # the descriptor of this listing
    return count


@pytest.fixture
def no_inotify_instance() -> None:
    """Of earlier tests: watchfiles' own thread closes one, a moment after its watch has ended."""
    wait_until(lambda: inotify_instances() == 0, timeout=10, failure=lambda: f"{inotify_instances()} are still open")


# --- who writes how -------------------------------------------------------------------------------------------------

Writer = Callable[[Path, int], object]


def kubelet(path: Path, revision: int) -> None:
    SecretVolume(path).write(payload(revision))


def older_kubelet(path: Path, revision: int) -> None:
    SecretVolume(path, links_first=True).write(payload(revision))


def optional_secret_deleted_and_returned(path: Path, revision: int) -> None:
    SecretVolume(path).write(payload(revision) if revision % 2 == 0 else {})


def key_removed_and_returned(path: Path, revision: int) -> None:
    SecretVolume(path).write({"username": b"app user", **(payload(0) if revision % 2 == 0 else {})})


def vault_agent(path: Path, revision: int) -> None:
    temporary = path / ".password.tmp"
    temporary.write_bytes(payload(revision)["password"])
    temporary.chmod(0o640)
    temporary.rename(path / "password")


def in_place(path: Path, revision: int) -> None:
    (path / "password").write_bytes(payload(revision)["password"])


def kata(path: Path, revision: int) -> None:
    """Copies into the guest what the host's Secret volume holds, as regular files."""
    host = SecretVolume(path.parent / "host")
    host.write(payload(revision))
    for name in payload(revision):
        (path / name).unlink(missing_ok=True)
        shutil.copy(host.path / name, path / name)


@pytest.mark.parametrize(
    "write",
    [
        kubelet,
        older_kubelet,
        optional_secret_deleted_and_returned,
        key_removed_and_returned,
        vault_agent,
        in_place,
        kata,
    ],
)
def test_every_update_is_hinted_the_third_like_the_first(tmp_path: Path, write: Writer) -> None:
    path = tmp_path / "app secret %"
    path.mkdir()
    write(path, 0)
    with Watching(path) as watching:
        for revision in range(1, 5):
            watching.hinted(lambda revision=revision: write(path, revision))  # type: ignore[misc]
    assert watching.watches == 1
    assert watching.watcher.errors == 0


def test_names_that_watchfiles_would_pass_over_are_hinted(tmp_path: Path) -> None:
    path = tmp_path / "node_modules"
    path.mkdir()
    with Watching(path) as watching:
        watching.hinted(lambda: (path / "password.swp").write_bytes(b"pass 100%"))


# --- directories that come and go -----------------------------------------------------------------------------------


def test_a_directory_that_is_removed_and_made_again_is_watched_again(tmp_path: Path) -> None:
    path = tmp_path / "app"
    path.mkdir()
    with Watching(path) as watching:
        for revision in range(5):
            watching.settle()
            hints, watches = len(watching.hints), watching.watches
            shutil.rmtree(path)
            path.mkdir()
            watching.settle(watches + 1)
            assert len(watching.hints) > hints
            watching.hinted(lambda revision=revision: in_place(path, revision))  # type: ignore[misc]
    assert watching.lines == []


def test_a_directory_that_another_one_replaces_is_watched_again(tmp_path: Path) -> None:
    path = tmp_path / "app"
    path.mkdir()
    (tmp_path / "new").mkdir()
    with Watching(path) as watching:
        watching.settle()
        path.rename(tmp_path / "old")
        (tmp_path / "new").rename(path)
        watching.settle(2)
        watching.hinted(lambda: in_place(path, 1))


def test_a_missing_directory_is_hinted_when_it_appears_and_watched_from_then_on(tmp_path: Path) -> None:
    present, late = tmp_path / "present", tmp_path / "late"
    present.mkdir()
    with Watching(present, late) as watching:
        watching.hinted(lambda: in_place(present, 1))
        hints, events = len(watching.hints), watching.watcher.events
        kubelet(late, 1)
        watching.settle(2)
        assert len(watching.hints) > hints
        assert watching.watcher.events == events
        watching.hinted(lambda: kubelet(late, 2))
        watching.hinted(lambda: in_place(present, 2))


def test_a_directory_is_waited_for_when_none_is_there(tmp_path: Path) -> None:
    path = tmp_path / "late"
    with Watching(path) as watching:
        kubelet(path, 1)
        watching.hinted(lambda: kubelet(path, 2))
    assert watching.lines == []


def test_a_directory_that_may_not_be_read_does_not_cost_the_others_their_watch(tmp_path: Path) -> None:
    path, closed = tmp_path / "app", tmp_path / "closed"
    path.mkdir()
    closed.mkdir(mode=0)
    with Watching(path, closed) as watching:
        watching.hinted(lambda: in_place(path, 1))
        closed.chmod(0o755)
        watching.settle(2)
        watching.hinted(lambda: in_place(closed, 1))
    assert watching.lines == []


def test_the_directories_to_watch_can_be_others(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    with Watching(first) as watching:
        watching.settle()
        watching.watcher.look_at(frozenset([second]))
        watching.settle(2)
        watching.hinted(lambda: in_place(second, 1))
        events = watching.watcher.events
        in_place(first, 1)
        watching.settle()
        assert watching.watcher.events == events
        watching.watcher.look_at(frozenset([second]))
        watching.settle()
    assert watching.watches == 2


def test_a_volume_mounted_below_a_watched_directory_is_one_more_directory(tmp_path: Path) -> None:
    app = tmp_path / "users/app"
    kubelet(app, 1)
    with Watching(tmp_path / "users", app) as watching:
        watching.hinted(lambda: kubelet(app, 2))
        watching.hinted(lambda: in_place(tmp_path / "users", 1))
        watching.hinted(lambda: kubelet(tmp_path / "users/other", 1))


# --- how many hints -------------------------------------------------------------------------------------------------


def test_changes_that_follow_each_other_closely_share_a_hint(tmp_path: Path) -> None:
    volumes = [tmp_path / name for name in ("app", "reports", "check")]
    for volume in volumes:
        kubelet(volume, 0)
    with Watching(*volumes) as watching:
        watching.settle()
        hints = len(watching.hints)
        for volume in volumes:
            kubelet(volume, 1)
        watching.settle()
        assert 1 <= len(watching.hints) - hints <= 2


def test_changes_without_end_are_hinted_every_second(tmp_path: Path) -> None:
    with Watching(tmp_path) as watching:
        watching.settle()
        hints = len(watching.hints)
        begin = time.monotonic()
        pace = threading.Event()
        while time.monotonic() < begin + 3:
            kubelet(tmp_path, time.monotonic_ns())
            pace.wait(0.02)
        times = [begin, *watching.hints[hints:], time.monotonic()]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert max(gaps) < 1.2
    assert len(gaps) < 15, "nothing was put together"


def test_nothing_is_hinted_when_nothing_happens(tmp_path: Path) -> None:
    with Watching(tmp_path) as watching:
        watching.settle()
        hints = len(watching.hints)
        list(tmp_path.iterdir())
        watching.settle()
    assert len(watching.hints) == hints


# --- inotify that fails ---------------------------------------------------------------------------------------------


@pytest.fixture
def no_descriptors() -> Iterator[Callable[[], None]]:
    """Call it, and inotify_init(2) fails with EMFILE as it does with too many instances; again, and it works."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def toggle() -> None:
        now, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3 if now == soft else soft, hard))

    yield toggle
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_exhausted_inotify_is_no_failure_and_is_used_again_later(
    tmp_path: Path, no_descriptors: Callable[[], None]
) -> None:
    no_descriptors()
    watching = Watching(tmp_path)
    with watching:
        watching.wait(lambda: watching.watcher.errors > 2)
        no_descriptors()
        watching.hinted(lambda: in_place(tmp_path, 1))
        assert watching.watcher.mode == "inotify"
    first, second = watching.lines
    assert "Too many open files" in first
    assert second == "inotify works again"


@pytest.mark.parametrize(
    "error", [OSError("OS file watch limit reached"), RuntimeError("Too many open files (os error 24)")]
)
@pytest.mark.parametrize("when", ["at once", "later"])
def test_a_failing_watch_means_poll_until_it_works_again(tmp_path: Path, error: Exception, when: str) -> None:
    broken = threading.Event()
    broken.set()

    def watch(*paths: str, **options: object) -> Batches:
        if when == "at once" and broken.is_set():
            raise error
        for batch in watchfiles.watch(*paths, **options):  # type: ignore[arg-type]
            yield batch
            if broken.is_set():
                raise error

    with Watching(tmp_path, watch=watch) as watching:
        watching.wait(lambda: watching.watcher.errors == 1)
        watching.wait(lambda: watching.watcher.mode == "poll")
        broken.clear()
        watching.hinted(lambda: in_place(tmp_path, 1))
        assert watching.watcher.mode == "inotify"
    assert watching.lines[0].endswith(f"by the timed reading alone: {error}")
    assert watching.lines[-1] == "inotify works again"


def test_a_directory_that_appears_is_hinted_without_inotify_too(tmp_path: Path) -> None:
    def watch(*_: str, **__: object) -> Batches:
        raise OSError("OS file watch limit reached")

    hints: list[int] = []
    lines: list[str] = []
    stop = threading.Event()
    watcher = Watcher(lambda: hints.append(1), stop, log=lines.append, watch=watch, beat_seconds=BEAT)
    watcher.look_at(frozenset([tmp_path, tmp_path / "late"]))
    thread = threading.Thread(target=watcher.run)
    thread.start()
    try:
        wait_until(lambda: len(hints) == 2, timeout=5, failure=lambda: f"{hints}")
        (tmp_path / "late").mkdir()
        wait_until(lambda: len(hints) > 2, timeout=5, failure=lambda: f"{hints}")
    finally:
        stop.set()
        thread.join()
    assert (watcher.mode, watcher.errors, len(lines)) == ("poll", 1, 1)


def test_a_directory_that_goes_before_it_is_watched_is_no_fault_of_inotify(tmp_path: Path) -> None:
    paths = []

    def watch(*given: str, **options: object) -> Batches:
        paths.append(given)
        return watchfiles.watch(*given, *[f"{tmp_path}/gone"][: len(paths) == 1], **options)  # type: ignore[arg-type]

    with Watching(tmp_path, watch=watch) as watching:
        watching.settle(2)
        watching.hinted(lambda: in_place(tmp_path, 1))
    assert (watching.watcher.errors, watching.lines) == (0, [])


# --- thrift ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_inotify_instance")
def test_one_inotify_instance_serves_all_directories_and_is_given_back(tmp_path: Path) -> None:
    directories = [tmp_path / f"{number}" for number in range(4)]
    for directory in directories:
        directory.mkdir()
    with Watching(*directories) as watching:
        for rebuilt in range(1, 4):
            watching.settle(rebuilt)
            watching.wait(lambda: inotify_instances() == 1)
            watching.watcher.look_at(frozenset(directories[rebuilt:]))
        watching.settle(4)
        watching.watcher.look_at(frozenset())
        watching.wait(lambda: inotify_instances() == 0)


@pytest.mark.usefixtures("no_inotify_instance")
@pytest.mark.parametrize("state", ["watching", "waiting for a directory"])
def test_it_stops_at_once(tmp_path: Path, state: str) -> None:
    watching = Watching(tmp_path if state == "watching" else tmp_path / "missing")
    with watching:
        watching.wait(lambda: watching.beats or (state != "watching" and len(watching.hints) > 1))
        assert watching.stop() < 0.3
    watching.wait(lambda: inotify_instances() == 0)


# --- what will never be updated -------------------------------------------------------------------------------------

MOUNTS = r"""
22 1 0:30 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b
40 22 0:51 / /etc/pgpool/users rw - tmpfs tmpfs rw,size=65536k
41 22 0:52 / /etc/pgpool/with\040blank\134 ro,relatime - tmpfs tmpfs rw
63 40 0:39 /..2026_06_01_12_00_00.123/pass\040word//deleted /etc/pgpool/users/pass\040word ro - tmpfs none rw
64 40 8:1 /kubelet/pods/1/volumes/kubernetes.io~configmap/c/..2026_06_01.9/app /etc/pgpool/users/app ro - ext4 x rw
65 22 8:1 /srv/secrets/hba /etc/pgpool/hba ro,relatime shared:7 master:1 - ext4 /dev/vda rw
66 22 0:53 /..2026_06_01_12_00_00.5 /etc/pgpool/covered ro - tmpfs tmpfs rw
67 66 0:54 / /etc/pgpool/covered ro - tmpfs tmpfs rw
68 22 0:55 /share /etc/pgpool/shared rw - tmpfs tmpfs rw
""".lstrip()


@pytest.mark.parametrize(
    ("file", "never"),
    [
        ("/etc/pgpool/users/n8n", False),
        ("/etc/pgpool/users/pass word", True),
        ("/etc/pgpool/users/pass wor", False),
        ("/etc/pgpool/users/app/password", True),
        ("/etc/pgpool/users/app/below/password", True),
        ("/etc/pgpool/users/app2/password", False),
        ("/etc/pgpool/with blank\\/password", False),
        ("/etc/pgpool/hba", True),
        ("/etc/pgpool/covered/password", False),
        ("/etc/pgpool/shared/password", False),
        ("/elsewhere", False),
        ("relative", False),
    ],
)
def test_a_file_mounted_by_sub_path_is_told_from_the_mounts(file: str, *, never: bool) -> None:
    assert never_updated([Path(file)], MOUNTS) == ([Path(file)] if never else [])


def test_the_mounts_of_this_machine_make_no_false_alarm(tmp_path: Path) -> None:
    kubelet(tmp_path, 1)
    files = [tmp_path / name for name in payload(1)]
    mountinfo = Path("/proc/self/mountinfo").read_text()
    assert never_updated([*files, *(file.resolve() for file in files)], mountinfo) == []
    assert never_updated([Path("/proc/version")], mountinfo) == []
