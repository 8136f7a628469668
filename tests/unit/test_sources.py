"""Reading files and directories as one moment saw them."""

import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from entrypoint.errors import ConfigurationError, Problem
from entrypoint.sources import MAX_FILE_BYTES, Directory, Raw, Reader, SourceError, consistently, text
from support.secret_volume import SecretVolume

OLD = {"username": b"app_a", "password": b"old pass 100%"}
NEW = {"username": b"app_b", "password": b"new pass 50 %"}

Tree = Mapping[str, "bytes | Tree"]


def tree(directory: Directory) -> Tree:
    return {**directory.files, **{name: tree(below) for name, below in directory.directories.items()}}


def read(path: Path, depth: int = 0) -> Tree:
    return tree(consistently(lambda reader: reader.directory(path, depth=depth), sleep=lambda _: None))


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(SourceError) as raised:
        call()
    return str(raised.value), raised.value.remedy


def faults(path: Path, depth: int = 0) -> list[tuple[str, str]]:
    return [(str(fault), fault.remedy) for fault in Reader().directory(path, depth=depth).faults]


def open_descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


class Changing:
    """Reads, and lets something happen at a chosen attempt."""

    def __init__(self, path: Path, happen: Callable[[int], object]) -> None:
        self.path = path
        self.happen = happen
        self.attempts = 0

    def __call__(self, reader: Reader) -> Tree:
        self.attempts += 1
        content = tree(reader.directory(self.path, depth=1))
        self.happen(self.attempts)
        return content


# --- one directory --------------------------------------------------------------------------------------------------


def test_a_plain_directory_is_read_without_hidden_names(tmp_path: Path) -> None:
    for name in ("n8n", "sr_check", ".hidden", "..2026_06_01", "with space %"):
        (tmp_path / name).write_bytes(name.encode())
    assert read(tmp_path) == {"n8n": b"n8n", "sr_check": b"sr_check", "with space %": b"with space %"}


def test_an_empty_directory_has_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, depth=1) == {}


def test_sub_directories_are_read_as_deep_as_asked(tmp_path: Path) -> None:
    (tmp_path / "a/b/c").mkdir(parents=True)
    (tmp_path / "a/one").write_bytes(b"1")
    (tmp_path / "a/b/two").write_bytes(b"2")
    assert tree(Reader().directory(tmp_path)) == {}
    assert read(tmp_path, depth=1) == {"a": {"one": b"1"}}
    assert read(tmp_path, depth=2) == {"a": {"one": b"1", "b": {"two": b"2"}}}


def test_a_mounted_secret_is_read_by_its_keys(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "v").write(OLD)
    assert read(tmp_path / "v") == OLD


def test_item_paths_of_a_projected_volume_are_sub_directories(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "v").write(
        {"app/username": b"app_a", "app/password": b"pass 100%", "sr_check": b"check 1%"}
    )
    assert read(tmp_path / "v", depth=1) == {
        "app": {"username": b"app_a", "password": b"pass 100%"},
        "sr_check": b"check 1%",
    }


def test_each_sub_directory_can_be_a_mount_of_its_own(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "app").write(OLD)
    SecretVolume(tmp_path / "reports").write(NEW)
    assert read(tmp_path, depth=1) == {"app": OLD, "reports": NEW}


def test_a_secret_mounted_below_another_one_is_read_as_well(tmp_path: Path) -> None:
    SecretVolume(tmp_path).write({"sr_check": b"check 1%"})
    SecretVolume(tmp_path / "app").write(OLD)
    assert read(tmp_path, depth=1) == {"sr_check": b"check 1%", "app": OLD}


def test_links_of_a_plain_directory_are_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"pass 100%")
    (tmp_path / "users").mkdir()
    (tmp_path / "users/n8n").symlink_to(tmp_path / "elsewhere")
    assert read(tmp_path / "users") == {"n8n": b"pass 100%"}


# --- a volume that is being updated ---------------------------------------------------------------------------------


@pytest.mark.parametrize("links_first", [False, True])
@pytest.mark.parametrize("pause", range(6))
def test_a_half_done_update_shows_one_revision_and_only_its_keys(
    tmp_path: Path, pause: int, *, links_first: bool
) -> None:
    volume = SecretVolume(tmp_path / "v", links_first=links_first)
    volume.write({**OLD, "only-old": b"1"})
    steps = volume.steps({**NEW, "only-new": b"2"})
    for _ in range(pause):
        next(steps, None)
    assert read(tmp_path / "v") in ({**OLD, "only-old": b"1"}, {**NEW, "only-new": b"2"})
    assert sum(1 for _ in steps) >= 5 - pause
    assert read(tmp_path / "v") == {**NEW, "only-new": b"2"}


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_an_update_while_reading_is_noticed_and_read_again(tmp_path: Path, attempt: int) -> None:
    volume = SecretVolume(tmp_path / "app")
    volume.write(OLD)

    def happen(now: int) -> None:
        if now <= attempt:
            volume.write({**NEW, "number": b"%d" % now})

    changing = Changing(tmp_path, happen)
    assert consistently(changing, sleep=lambda _: None) == {"app": {**NEW, "number": b"%d" % attempt}}
    assert changing.attempts == attempt + 1


def test_a_plain_file_that_is_rewritten_while_reading_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "n8n").write_bytes(b"old 100%")
    changing = Changing(
        tmp_path, lambda now: (tmp_path / "n8n").write_bytes(b"new 1000%") and None if now == 1 else None
    )
    assert consistently(changing, sleep=lambda _: None) == {"n8n": b"new 1000%"}
    assert changing.attempts == 2


@pytest.mark.parametrize("happening", ["added", "removed"])
def test_a_plain_file_that_comes_or_goes_while_reading_is_noticed(tmp_path: Path, happening: str) -> None:
    (tmp_path / "n8n").write_bytes(b"pass 100%")

    def happen(now: int) -> None:
        if now == 1:
            if happening == "added":
                (tmp_path / "late").write_bytes(b"late 1%")
            else:
                (tmp_path / "n8n").unlink()

    expected = {"n8n": b"pass 100%", "late": b"late 1%"} if happening == "added" else {}
    assert consistently(Changing(tmp_path, happen), sleep=lambda _: None) == expected


def test_two_looks_at_one_file_must_see_the_same(tmp_path: Path) -> None:
    file = tmp_path / "username"
    file.write_bytes(b"app_a")
    reader = Reader()
    first = reader.file(file)
    file.unlink()
    file.write_bytes(b"app_bb")
    assert (first, reader.file(file)) == (b"app_a", b"app_bb")
    assert reader.changed()


def test_what_stands_still_has_not_changed(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "v").write(OLD)
    (tmp_path / "plain").write_bytes(b"1")
    reader = Reader()
    reader.directory(tmp_path, depth=1)
    reader.file(tmp_path / "plain")
    assert not reader.changed()


def test_a_reader_knows_where_it_looked(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "volume").write({"a": b"1 %"})
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain/b").write_bytes(b"2 %")
    reader = Reader()
    reader.directory(tmp_path / "volume")
    reader.directory(tmp_path / "plain", depth=1)
    with pytest.raises(SourceError):
        reader.file(tmp_path / "none")
    assert reader.places == {tmp_path / name for name in ("volume", "plain", "plain/b", "none")}


def test_a_file_in_a_mounted_secret_changes_with_it(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path / "v")
    volume.write(OLD)
    reader = Reader()
    assert reader.file(tmp_path / "v/username") == b"app_a"
    volume.write(NEW)
    assert reader.changed()


def test_a_path_that_was_missing_and_appears_has_changed(tmp_path: Path) -> None:
    reader = Reader()
    refusal(lambda: reader.file(tmp_path / "late"))
    assert not reader.changed()
    (tmp_path / "late").write_bytes(b"1")
    assert reader.changed()


def test_reading_gives_up_when_it_never_stands_still(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path / "v")
    pauses: list[float] = []
    changing = Changing(tmp_path, lambda now: volume.write({"n": b"%d" % now}))
    volume.write({"n": b"0"})
    with pytest.raises(ConfigurationError) as raised:
        consistently(changing, sleep=pauses.append)
    assert raised.value.problems == (
        Problem(
            "Secrets",
            "files",
            "they kept changing during 25 attempts to read them at one moment",
            "find out what rewrites the mounted files all the time",
        ),
    )
    assert changing.attempts == 25
    assert sum(pauses) == pytest.approx(0.5)


def test_a_configuration_error_counts_once_nothing_moves(tmp_path: Path) -> None:
    (tmp_path / "n8n").write_bytes(b"1")
    pauses: list[float] = []
    attempts: list[int] = []
    error = ConfigurationError([Problem("a", "b", "c", "d")])

    def fail(reader: Reader) -> None:
        reader.directory(tmp_path)
        attempts.append(1)
        if len(attempts) == 1:
            (tmp_path / "n8n").write_bytes(b"longer")
        raise error

    with pytest.raises(ConfigurationError) as raised:
        consistently(fail, sleep=pauses.append)
    assert raised.value is error
    assert (len(attempts), len(pauses)) == (2, 1)


def test_a_file_that_vanishes_between_listing_and_reading_counts_as_motion(tmp_path: Path) -> None:
    (tmp_path / "n8n").symlink_to("nowhere")
    reader = Reader()
    assert reader.directory(tmp_path).faults
    assert reader.changed()


def test_user_name_and_password_of_two_revisions_are_never_mixed(tmp_path: Path) -> None:
    """The kubelet at work as fast as it can, beside a reader."""
    volume = SecretVolume(tmp_path / "users/app")
    plain = tmp_path / "users"
    volume.write({"username": b"app 0", "password": b"pass 0 100%"})
    stop = threading.Event()

    def rotate() -> None:
        revision = 0
        while not stop.is_set():
            revision += 1
            volume.write({"username": b"app %d" % revision, "password": b"pass %d 100%%" % revision})

    writer = threading.Thread(target=rotate)
    writer.start()
    seen: set[bytes] = set()
    collided = rounds = 0
    deadline = time.monotonic() + 30
    try:
        while rounds < 400 or (len(seen) <= 10 and time.monotonic() < deadline):
            rounds += 1
            try:
                content = read(plain, depth=1)["app"]
            except (SourceError, ConfigurationError):
                collided += 1
                continue
            assert isinstance(content, dict)
            number = content["username"].removeprefix(b"app ")
            assert content == {"username": b"app " + number, "password": b"pass " + number + b" 100%"}
            seen.add(number)
    finally:
        stop.set()
        writer.join()
    assert len(seen) > 10, f"the writer was too slow to prove anything ({collided} collisions)"


# --- what cannot be read --------------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_told_with_a_remedy(tmp_path: Path) -> None:
    mounts = "check the path and the volume mounts"
    regular = "give a regular file of a Secret"
    reader = Reader()
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
    told = {
        name: refusal(lambda name=name: reader.file(tmp_path / name))  # type: ignore[misc]
        for name in ("missing", "dangling", "file/below", "loop", "fifo", "large", "socket", ".")
    }
    assert told == {
        "missing": (f"{tmp_path}/missing does not exist", mounts),
        "dangling": (f"{tmp_path}/dangling does not exist", mounts),
        "file/below": (f"{tmp_path}/file/below is not a directory", "give the directory, not a file in it"),
        "loop": (f"{tmp_path}/loop Too many levels of symbolic links", regular),
        "fifo": (f"{tmp_path}/fifo is not a regular file", regular),
        "large": (f"{tmp_path}/large is longer than 1048576 bytes", regular),
        "socket": (f"{tmp_path}/socket No such device or address", regular),
        ".": (f"{tmp_path} is not a regular file", regular),
    }


def test_a_file_of_exactly_one_mebibyte_is_read(tmp_path: Path) -> None:
    (tmp_path / "largest").write_bytes(b"x" * MAX_FILE_BYTES)
    assert len(Reader().file(tmp_path / "largest")) == 1048576


def test_an_unreadable_file_is_told_with_our_user_id(tmp_path: Path) -> None:
    (tmp_path / "n8n").write_bytes(b"pass 100%")
    (tmp_path / "n8n").chmod(0)
    expected = (
        f"{tmp_path}/n8n is not readable for user id {os.geteuid()}",
        "check defaultMode of the volume, and fsGroup of the pod",
    )
    assert refusal(lambda: Reader().file(tmp_path / "n8n")) == expected
    assert faults(tmp_path) == [expected]


def test_a_directory_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    assert refusal(lambda: Reader().directory(tmp_path / "file"))[0] == f"{tmp_path}/file is not a directory"
    assert refusal(lambda: Reader().directory(tmp_path / "none"))[0] == f"{tmp_path}/none does not exist"


@pytest.mark.parametrize("name", ["fifo", "large", "dangling"])
def test_one_bad_entry_of_a_directory_names_itself(tmp_path: Path, name: str) -> None:
    (tmp_path / "good").write_bytes(b"1")
    if name == "fifo":
        os.mkfifo(tmp_path / name)
    elif name == "large":
        (tmp_path / name).write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    else:
        (tmp_path / name).symlink_to("nowhere")
    directory = Reader().directory(tmp_path)
    assert directory.files == {"good": b"1"}
    (fault,) = directory.faults
    assert str(fault).startswith(f"{tmp_path}/{name} ")


def test_every_fault_of_a_directory_is_told_those_below_it_too(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "app").mkdir()
    (tmp_path / "app/password").symlink_to("nowhere")
    (tmp_path / "app/username").write_bytes(b"app")
    (tmp_path / "closed").mkdir(mode=0)
    told = [what.removeprefix(f"{tmp_path}/").partition(" ")[0] for what, _ in faults(tmp_path, depth=1)]
    assert told == ["app/password", "closed", "fifo"]


def test_a_path_with_a_nul_character_is_told(tmp_path: Path) -> None:
    for call in (Reader().file, Reader().directory):
        assert "NUL" in refusal(lambda call=call: call(Path(f"{tmp_path}/a\0b")))[0]  # type: ignore[misc]


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "app").write(OLD)
    (tmp_path / "app/bad").mkdir(mode=0)
    before = open_descriptors()
    read(tmp_path / "app")
    assert faults(tmp_path, depth=2)
    refusal(lambda: Reader().file(tmp_path))
    assert open_descriptors() == before


# --- text -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", ""),
        (b"pass 100%", "pass 100%"),
        (b"pass 100%\n", "pass 100%"),
        (b"pass 100%\n\n", "pass 100%\n"),
        (b"\n", ""),
        (b" pass 100% \r\n", " pass 100% \r"),
        ("pässwörd %".encode(), "pässwörd %"),
    ],
)
def test_one_newline_at_the_end_is_taken_off(content: bytes, expected: str) -> None:
    assert text(content) == expected


def test_what_is_not_utf_8_is_no_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        text(b"pass\xff100%")


def test_contents_never_appear_in_a_representation(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "app").write(OLD)
    directory = Reader().directory(tmp_path, depth=1)
    assert "100%" not in repr(directory) + str(directory)
    assert "100%" not in repr(Raw("pass 100%", "environment"))


@pytest.mark.parametrize("value", ["http://u:s3cr3t@h", "u:s3cr3t@h", "postgres://h?password=s3cr3t"])
def test_a_text_that_looks_like_a_url_is_not_repeated(value: str) -> None:
    assert Raw(value, "environment").quoted("is wrong") == "is wrong"
    assert Raw("h:5432", "environment").quoted("is wrong") == "'h:5432' is wrong"


def test_a_secret_text_is_only_said_to_be_there() -> None:
    assert Raw("pass 100%", "environment", secret=True).shown() == "(secret)"
    assert Raw("app", "environment").shown() == "app"
