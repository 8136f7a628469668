"""Publishing, and what is left of it when it dies at any moment."""

import fcntl
import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from entrypoint.errors import PublishError
from entrypoint.model import CURRENT
from entrypoint.publish import (
    BOOTED,
    GENERATIONS,
    VERIFIED,
    SupersededError,
    mark,
    marked,
    marked_at,
    publish,
    replace_file,
    write_files,
)
from entrypoint.tree import Tree

FIRST = Tree({"pgpool.conf": b"port = 1\n", "pool_passwd": b"n8n:TEXTfirst pass 100%\n"})
SECOND = Tree({"pgpool.conf": b"port = 1\n", "pool_passwd": b"n8n:TEXTsecond pass 100%\n", "tls.crt": b"pem"})
THIRD = Tree({"pgpool.conf": b"port = 3\n", "pool_passwd": b"n8n:TEXTthird pass 100%\n"})
FOURTH = Tree({"pgpool.conf": b"port = 4\n", "pool_passwd": b"n8n:TEXTfourth pass 100%\n"})

# Every call by which publishing changes something, or makes a change last.
OPERATIONS = ("mkdir", "open", "fsync", "rename", "replace", "symlink", "unlink", "rmdir")


class Killed(BaseException):
    """The process ends here: nothing that follows is executed."""


@contextmanager
def counting(monkeypatch: pytest.MonkeyPatch, at: int, raising: Callable[[], BaseException]) -> Iterator[list[str]]:
    """Let the operation with this number (from 1) fail, and every later one as well when the process is killed."""
    calls: list[str] = []

    def wrap(name: str) -> None:
        original = getattr(os, name)

        def call(*args: object, **kwargs: object) -> object:
            calls.append(name)
            if at and (len(calls) == at or (len(calls) > at and isinstance(raising(), Killed))):
                raise raising()
            return original(*args, **kwargs)

        patch.setattr(os, name, call)

    with monkeypatch.context() as patch:
        for name in OPERATIONS:
            wrap(name)
        yield calls


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def live(run_dir: Path) -> dict[str, bytes]:
    return contents(run_dir / CURRENT)


def generations(run_dir: Path) -> list[str]:
    return sorted(path.name for path in (run_dir / GENERATIONS).iterdir())


def published(run_dir: Path, trees: list[Tree]) -> Path:
    run_dir.mkdir()
    for tree in trees:
        publish(tree, run_dir)
    return run_dir


def operations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, before: list[Tree]) -> int:
    directory = published(tmp_path / "count", before)
    with counting(monkeypatch, 0, Killed) as calls:
        publish(SECOND, directory)
    return len(calls)


# --- what it does ---------------------------------------------------------------------------------------------------


def test_a_tree_is_live_under_its_digest(tmp_path: Path) -> None:
    assert publish(FIRST, tmp_path) == tmp_path / GENERATIONS / FIRST.digest
    assert (tmp_path / CURRENT).readlink() == Path(GENERATIONS) / FIRST.digest
    assert live(tmp_path) == FIRST.files
    assert sorted(path.name for path in tmp_path.iterdir()) == [CURRENT, GENERATIONS]


def test_the_link_holds_wherever_the_volume_is_mounted(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    publish(FIRST, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    assert live(tmp_path / "there") == FIRST.files


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o027])
def test_only_the_owner_can_read_anything(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        publish(FIRST, tmp_path)
        write_files(SECOND, tmp_path / "out/deep")
    finally:
        os.umask(before)
    modes = {
        str(path.relative_to(tmp_path)): stat.S_IMODE(path.lstat().st_mode)
        for path in tmp_path.rglob("*")
        if not path.is_symlink()
    }
    generation = f"{GENERATIONS}/{FIRST.digest}"
    assert {name: mode for name, mode in modes.items() if name != "out"} == {
        GENERATIONS: 0o700,
        generation: 0o700,
        f"{generation}/pgpool.conf": 0o600,
        f"{generation}/pool_passwd": 0o600,
        "out/deep": 0o700,
        "out/deep/pgpool.conf": 0o600,
        "out/deep/pool_passwd": 0o600,
        "out/deep/tls.crt": 0o600,
    }


def test_publishing_what_is_live_changes_nothing(tmp_path: Path) -> None:
    publish(FIRST, tmp_path)

    def state() -> dict[str, tuple[int, int]]:
        return {str(path): (path.lstat().st_ino, path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")}

    before = state()
    publish(FIRST, tmp_path)
    assert state() == before


def test_the_one_before_is_kept_and_older_ones_are_removed(tmp_path: Path) -> None:
    for tree in (FIRST, SECOND, THIRD):
        publish(tree, tmp_path)
    assert generations(tmp_path) == sorted([SECOND.digest, THIRD.digest])
    publish(SECOND, tmp_path)
    assert generations(tmp_path) == sorted([SECOND.digest, THIRD.digest])
    publish(FIRST, tmp_path)
    assert len(generations(tmp_path)) == 2
    assert live(tmp_path) == FIRST.files


def test_what_a_killed_predecessor_left_is_removed(tmp_path: Path) -> None:
    publish(FIRST, tmp_path)
    (tmp_path / GENERATIONS / ".new-0123").mkdir()
    (tmp_path / GENERATIONS / ".new-0123/pool_passwd").write_bytes(b"half")
    publish(FIRST, tmp_path)
    assert generations(tmp_path) == [FIRST.digest]


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link", "link to what is live"])
def test_what_lies_beside_the_generations_is_removed_when_it_is_old(tmp_path: Path, kind: str) -> None:
    """A young one may be another program's, which is about to rename it."""
    publish(FIRST, tmp_path)
    abandoned = tmp_path / ".new-0123"
    if kind == "file":
        abandoned.write_bytes(b"half")
    elif kind == "directory":
        (abandoned / "deep").mkdir(parents=True)
    else:
        abandoned.symlink_to("nowhere" if kind == "dangling link" else Path(GENERATIONS) / FIRST.digest)
    publish(FIRST, tmp_path)
    assert abandoned in tmp_path.iterdir()
    old = time.time() - 61
    os.utime(abandoned, (old, old), follow_symlinks=False)
    publish(FIRST, tmp_path)
    assert abandoned not in tmp_path.iterdir()
    assert live(tmp_path) == FIRST.files


@pytest.mark.parametrize("damage", ["truncated", "missing", "more", "emptied"])
def test_a_damaged_generation_is_repaired(tmp_path: Path, damage: str) -> None:
    generation = publish(FIRST, tmp_path)
    if damage == "truncated":
        (generation / "pool_passwd").write_bytes(b"n8n:")
    elif damage == "missing":
        (generation / "pool_passwd").unlink()
    elif damage == "more":
        (generation / "other").write_bytes(b"")
    else:
        for path in generation.iterdir():
            path.unlink()
    assert publish(FIRST, tmp_path) == generation
    assert live(tmp_path) == FIRST.files
    assert generations(tmp_path) == [FIRST.digest]


@pytest.mark.parametrize("target", ["nowhere", "/etc", GENERATIONS])
def test_a_link_to_elsewhere_is_pointed_right(tmp_path: Path, target: str) -> None:
    (tmp_path / CURRENT).symlink_to(target)
    publish(FIRST, tmp_path)
    assert live(tmp_path) == FIRST.files


def test_a_reader_never_meets_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two operations, what is live is all of the old or all of the new."""
    publish(FIRST, tmp_path)
    seen = []
    original = os.fsync

    def look(descriptor: int) -> None:
        seen.append(live(tmp_path))
        original(descriptor)
        seen.append(live(tmp_path))

    monkeypatch.setattr(os, "fsync", look)
    publish(SECOND, tmp_path)
    assert [files for files in seen if files not in (FIRST.files, SECOND.files)] == []
    assert seen[0] == FIRST.files
    assert seen[-1] == SECOND.files


def test_everything_is_on_disk_before_it_is_pointed_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace

    def synced(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(tmp_path)
        events.append("sync " + re.sub(r"\.new-[0-9a-f]{16}", "NEW", str(path)))
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        events.append(f"rename to {target.relative_to(tmp_path)}")
        rename(source, target)

    def replaced(source: Path, target: Path) -> None:
        events.append(f"rename to {target.relative_to(tmp_path)}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(os, "replace", replaced)
    publish(FIRST, tmp_path)
    assert events == [
        f"sync {GENERATIONS}/NEW/pgpool.conf",
        f"sync {GENERATIONS}/NEW/pool_passwd",
        f"sync {GENERATIONS}/NEW",
        f"rename to {GENERATIONS}/{FIRST.digest}",
        f"sync {GENERATIONS}",
        f"rename to {CURRENT}",
        "sync .",
    ]


# --- marks ----------------------------------------------------------------------------------------------------------


def test_what_was_booted_and_what_was_verified_are_kept(tmp_path: Path) -> None:
    publish(FIRST, tmp_path)
    mark(tmp_path, BOOTED, FIRST.digest)
    publish(SECOND, tmp_path)
    mark(tmp_path, VERIFIED, SECOND.digest)
    fifth = Tree({"pgpool.conf": b"port = 5\n"})
    for tree in (THIRD, FOURTH, fifth, THIRD, FOURTH):
        publish(tree, tmp_path)
    assert generations(tmp_path) == sorted(tree.digest for tree in (FIRST, SECOND, THIRD, FOURTH))
    assert contents(tmp_path / BOOTED) == FIRST.files
    assert contents(tmp_path / VERIFIED) == SECOND.files
    mark(tmp_path, BOOTED, FOURTH.digest)
    mark(tmp_path, VERIFIED, FOURTH.digest)
    publish(FIRST, tmp_path)
    assert generations(tmp_path) == sorted(tree.digest for tree in (FIRST, THIRD, FOURTH))


def test_a_mark_names_its_generation_and_since_when(tmp_path: Path) -> None:
    assert [marked(tmp_path, name) for name in (CURRENT, BOOTED, VERIFIED)] == [None, None, None]
    publish(FIRST, tmp_path)
    mark(tmp_path, BOOTED, FIRST.digest)
    assert [marked(tmp_path, name) for name in (CURRENT, BOOTED, VERIFIED)] == [FIRST.digest, FIRST.digest, None]
    assert (tmp_path / BOOTED).readlink() == Path(GENERATIONS) / FIRST.digest
    os.utime(tmp_path / BOOTED, (1, 1), follow_symlinks=False)
    before = time.time()
    mark(tmp_path, BOOTED, FIRST.digest)
    assert (tmp_path / BOOTED).lstat().st_mtime >= before - 1


def test_a_generation_that_is_gone_cannot_be_marked(tmp_path: Path) -> None:
    publish(FIRST, tmp_path)
    mark(tmp_path, VERIFIED, FIRST.digest)
    with pytest.raises(SupersededError):
        mark(tmp_path, VERIFIED, SECOND.digest)
    assert marked(tmp_path, VERIFIED) == FIRST.digest


def test_a_mark_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    publish(FIRST, tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PublishError, match=f"cannot write below PGPOOL_RUN_DIR {tmp_path}: Permission denied"):
            mark(tmp_path, BOOTED, FIRST.digest)
    finally:
        tmp_path.chmod(0o700)


# --- more than one publisher ----------------------------------------------------------------------------------------


def test_only_what_was_seen_is_replaced(tmp_path: Path) -> None:
    with pytest.raises(SupersededError):
        publish(SECOND, tmp_path, replacing=FIRST.digest)
    assert marked(tmp_path, CURRENT) is None
    publish(FIRST, tmp_path)
    assert publish(SECOND, tmp_path, replacing=FIRST.digest) == tmp_path / GENERATIONS / SECOND.digest
    with pytest.raises(SupersededError):
        publish(THIRD, tmp_path, replacing=FIRST.digest)
    assert live(tmp_path) == SECOND.files
    assert generations(tmp_path) == sorted([FIRST.digest, SECOND.digest])


COUNT = """
import sys
from pathlib import Path
from entrypoint.model import CURRENT
from entrypoint.publish import GENERATIONS, SupersededError, marked, publish
from entrypoint.tree import Tree

run_dir, left = Path(sys.argv[1]), int(sys.argv[2])
while left:
    seen = marked(run_dir, CURRENT)
    try:
        count = int((run_dir / GENERATIONS / seen / "count").read_bytes()) + 1
        publish(Tree({"count": b"%d" % count, "twin": b"%d" % count}), run_dir, replacing=seen)
    except (SupersededError, FileNotFoundError):
        continue
    left -= 1
"""


def test_publishers_at_the_same_time_lose_nothing_and_readers_see_no_half(tmp_path: Path) -> None:
    """Two processes count one up from what is live, each so often; what is live is always whole and never goes back."""
    each = 60
    zero = Tree({"count": b"0", "twin": b"0"})
    publish(zero, tmp_path)
    mark(tmp_path, BOOTED, zero.digest)
    command = [sys.executable, "-c", COUNT, str(tmp_path), str(each)]
    publishers = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
    counts = [0]
    try:
        while any(publisher.poll() is None for publisher in publishers):
            seen = marked(tmp_path, CURRENT)
            assert seen is not None
            try:
                files = contents(tmp_path / GENERATIONS / seen)
            except FileNotFoundError:
                files = {}
            if sorted(files) == ["count", "twin"]:
                assert files["count"] == files["twin"]
                counts.append(int(files["count"]))
            else:  # removed, because meanwhile there have been two more
                assert marked(tmp_path, CURRENT) != seen
    finally:
        for publisher in publishers:
            publisher.kill()
            publisher.wait()
    assert [publisher.returncode for publisher in publishers] == [0, 0]
    assert counts == sorted(counts)
    assert len(set(counts)) > 10
    assert live(tmp_path) == {"count": b"120", "twin": b"120"}
    assert contents(tmp_path / BOOTED) == zero.files
    assert len(generations(tmp_path)) == 3


def test_a_publisher_waits_for_its_turn_and_takes_that_of_a_dead_one(tmp_path: Path) -> None:
    publish(FIRST, tmp_path)
    hold = (
        "import fcntl, os, sys\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print(flush=True)\n"
        "input()"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / GENERATIONS)]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder,
        ThreadPoolExecutor() as executor,
    ):
        assert holder.stdout
        try:
            assert holder.stdout.readline() == b"\n"
            publishing = executor.submit(publish, SECOND, tmp_path)
            with pytest.raises(TimeoutError):
                publishing.result(timeout=0.2)
            assert live(tmp_path) == FIRST.files
        finally:
            holder.kill()
        publishing.result(timeout=20)
    assert live(tmp_path) == SECOND.files


def test_a_publisher_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(FIRST, tmp_path)
    monkeypatch.setattr("entrypoint.publish.TURN_SECONDS", 0.1)
    descriptor = os.open(tmp_path / GENERATIONS, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(PublishError, match="restart both containers"):
            publish(SECOND, tmp_path)
    finally:
        os.close(descriptor)
    assert live(tmp_path) == FIRST.files
    publish(SECOND, tmp_path)
    assert live(tmp_path) == SECOND.files


# --- dying at every step --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [[], [FIRST], [FIRST, THIRD]], ids=["first", "second", "third"])
def test_dying_at_any_step_leaves_a_complete_generation_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[Tree]
) -> None:
    total = operations(monkeypatch, tmp_path, before)
    assert total > 10
    ends = set()
    for step in range(1, total + 1):
        run_dir = published(tmp_path / f"run{step}", before)
        with counting(monkeypatch, step, Killed), pytest.raises(Killed):
            publish(SECOND, run_dir)
        if (run_dir / CURRENT).is_symlink():
            assert live(run_dir) in [tree.files for tree in (*before[-1:], SECOND)]
            ends.add((run_dir / CURRENT).readlink().name)
        else:
            assert before == []
        publish(SECOND, run_dir)
        assert live(run_dir) == SECOND.files
        assert generations(run_dir) == sorted(tree.digest for tree in (*before[-1:], SECOND))
    assert ends == {tree.digest for tree in (*before[-1:], SECOND)}


@pytest.mark.parametrize("before", [[], [FIRST]], ids=["first", "second"])
def test_a_failure_at_any_step_is_told_and_leaves_a_complete_generation_live(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: list[Tree]
) -> None:
    def full() -> OSError:
        return OSError(28, "No space left on device", "somewhere")

    begin = 2 if before else 1  # the first one makes a directory that may be there already
    for step in range(begin, operations(monkeypatch, tmp_path, before) + 1):
        run_dir = published(tmp_path / f"run{step}", before)
        with counting(monkeypatch, step, full), pytest.raises(PublishError) as raised:
            publish(SECOND, run_dir)
        assert str(raised.value).startswith(
            f"cannot write below PGPOOL_RUN_DIR {run_dir}: No space left on device (somewhere)\n"
        )
        if before:
            assert live(run_dir) in (FIRST.files, SECOND.files)
        assert [path.name for path in run_dir.rglob(".new-*")] == []
        publish(SECOND, run_dir)
        assert live(run_dir) == SECOND.files


def test_dying_at_any_step_takes_no_marked_generation_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def marked_run_dir(name: str) -> Path:
        run_dir = published(tmp_path / name, [FIRST])
        mark(run_dir, BOOTED, FIRST.digest)
        publish(THIRD, run_dir)
        mark(run_dir, VERIFIED, THIRD.digest)
        publish(FOURTH, run_dir)
        publish(Tree({"pgpool.conf": b"port = 5\n"}), run_dir)
        return run_dir

    with counting(monkeypatch, 0, Killed) as calls:
        run_dir = marked_run_dir("count")
        calls.clear()
        publish(SECOND, run_dir)
    assert "rmdir" in calls
    for step in range(1, len(calls) + 1):
        run_dir = marked_run_dir(f"run{step}")
        with counting(monkeypatch, step, Killed), pytest.raises(Killed):
            publish(SECOND, run_dir)
        for _ in range(2):
            assert contents(run_dir / BOOTED) == FIRST.files
            assert contents(run_dir / VERIFIED) == THIRD.files
            publish(SECOND, run_dir)
        assert live(run_dir) == SECOND.files
        assert len(generations(run_dir)) == 4


def test_dying_while_a_mark_is_set_leaves_the_old_or_the_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def verified_run_dir(name: str) -> Path:
        run_dir = published(tmp_path / name, [FIRST])
        mark(run_dir, VERIFIED, FIRST.digest)
        publish(SECOND, run_dir)
        return run_dir

    run_dir = verified_run_dir("count")
    with counting(monkeypatch, 0, Killed) as calls:
        mark(run_dir, VERIFIED, SECOND.digest)
    seen = set()
    for step in range(1, len(calls) + 1):
        run_dir = verified_run_dir(f"run{step}")
        with counting(monkeypatch, step, Killed), pytest.raises(Killed):
            mark(run_dir, VERIFIED, SECOND.digest)
        assert contents(run_dir / VERIFIED) in (FIRST.files, SECOND.files)
        seen.add(marked(run_dir, VERIFIED))
    assert seen == {FIRST.digest, SECOND.digest}


def test_dying_while_the_live_generation_is_repaired_takes_no_file_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(name: str) -> Path:
        run_dir = published(tmp_path / name, [SECOND])
        (run_dir / CURRENT / "pgpool.conf").write_bytes(b"damaged")
        (run_dir / CURRENT / "more").write_bytes(b"")
        return run_dir

    run_dir = damaged("count")
    with counting(monkeypatch, 0, Killed) as calls:
        publish(SECOND, run_dir)
    for step in range(1, len(calls) + 1):
        run_dir = damaged(f"run{step}")
        with counting(monkeypatch, step, Killed), pytest.raises(Killed):
            publish(SECOND, run_dir)
        left = live(run_dir)
        assert left["pool_passwd"] == SECOND.files["pool_passwd"]
        assert left["pgpool.conf"] in (b"damaged", SECOND.files["pgpool.conf"])
        publish(SECOND, run_dir)
        assert live(run_dir) == SECOND.files


def test_dying_while_a_file_is_replaced_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "inputs.json"
    seen = set()
    for step in range(1, 6):
        path.write_bytes(b"old")
        with counting(monkeypatch, step, Killed) as calls, pytest.raises(Killed):
            replace_file(path, b"new")
        assert calls
        seen.add(path.read_bytes())
    assert seen == {b"old", b"new"}
    replace_file(path, b"newest")
    assert path.read_bytes() == b"newest"


def test_a_file_that_cannot_be_replaced_leaves_no_other_behind(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "taken", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


# --- where it cannot write ------------------------------------------------------------------------------------------


def test_a_directory_that_is_not_writable_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PublishError) as raised:
            publish(FIRST, tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert str(raised.value) == (
        f"cannot write below PGPOOL_RUN_DIR {tmp_path}: Permission denied ({tmp_path}/generations)\n"
        f"  → mount a writable volume there (an emptyDir with medium: Memory) for user id {os.geteuid()}"
    )


@pytest.mark.parametrize("where", ["none", "file"])
def test_a_run_directory_that_is_none_is_told(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError, match="cannot write below PGPOOL_RUN_DIR"):
        publish(FIRST, tmp_path / where)


def test_files_are_written_into_any_directory(tmp_path: Path) -> None:
    write_files(FIRST, tmp_path / "out")
    write_files(SECOND, tmp_path / "out")
    assert contents(tmp_path / "out") == SECOND.files
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PublishError, match=f"cannot write into {tmp_path}/file: "):
        write_files(FIRST, tmp_path / "file")


def test_no_message_shows_a_content(tmp_path: Path) -> None:
    with pytest.raises(PublishError) as raised:
        publish(FIRST, tmp_path / "none")
    assert "100%" not in str(raised.value)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_a_later_mark_has_a_later_time_whatever_the_clock_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sidecar tells from these times what pgpool was started with, and what it was seen to work with."""
    times = iter([5_000, 5_000, 3_000, 1_000, 9_000])
    monkeypatch.setattr("time.time_ns", lambda: next(times))
    publish(FIRST, tmp_path, booting=True)  # two in one tick
    mark(tmp_path, VERIFIED, FIRST.digest)  # the clock was set back
    publish(SECOND, tmp_path)
    in_order = [marked_at(tmp_path, name) for name in (BOOTED, VERIFIED, CURRENT)]
    assert in_order == sorted(set(in_order))
    mark(tmp_path, VERIFIED, SECOND.digest)
    assert marked_at(tmp_path, VERIFIED) > marked_at(tmp_path, CURRENT)
    assert marked_at(tmp_path, "nothing") == 0


def test_a_boot_publishes_and_says_so_in_one_turn(tmp_path: Path) -> None:
    publish(FIRST, tmp_path, booting=True)
    assert marked(tmp_path, BOOTED) == marked(tmp_path, CURRENT) == FIRST.digest
    before = marked_at(tmp_path, BOOTED)
    publish(SECOND, tmp_path)
    assert marked(tmp_path, BOOTED) == FIRST.digest
    publish(FIRST, tmp_path, booting=True)
    assert marked_at(tmp_path, BOOTED) > max(before, marked_at(tmp_path, CURRENT))
