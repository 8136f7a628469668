import stat
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.secret_volume import SecretVolume


@pytest.fixture
def volume(tmp_path: Path) -> SecretVolume:
    return SecretVolume(tmp_path / "volume")


def visible(volume: SecretVolume) -> dict[str, bytes]:
    """What a user sees who follows the links."""
    files = (path for entry in volume.path.glob("[!.]*") for path in (entry, *entry.rglob("*")))
    return {str(path.relative_to(volume.path)): path.read_bytes() for path in files if path.is_file()}


def generations(volume: SecretVolume) -> list[Path]:
    return [path for path in volume.path.glob("..20*") if path.is_dir()]


def test_layout(volume: SecretVolume) -> None:
    volume.write({"n8n": b"secret"})
    (generation,) = generations(volume)
    assert (volume.path / "..data").readlink() == Path(generation.name)
    assert (volume.path / "n8n").readlink() == Path("..data/n8n")
    assert (generation / "n8n").read_bytes() == b"secret"
    assert {path.name for path in volume.path.iterdir()} == {"n8n", "..data", generation.name}


def test_a_nested_key_is_linked_by_its_first_component(volume: SecretVolume) -> None:
    volume.write({"n8n/username": b"n8n", "n8n/password": b"secret"})
    assert (volume.path / "n8n").readlink() == Path("..data/n8n")
    assert visible(volume) == {"n8n/username": b"n8n", "n8n/password": b"secret"}


def test_an_update_replaces_everything(volume: SecretVolume) -> None:
    volume.write({"kept": b"1", "changed": b"1", "gone": b"1"})
    (before,) = generations(volume)
    assert volume.write({"kept": b"1", "changed": b"2", "new": b"1"})
    (after,) = generations(volume)
    assert after != before
    assert visible(volume) == {"kept": b"1", "changed": b"2", "new": b"1"}
    assert not (volume.path / "gone").is_symlink()


def test_the_same_content_is_not_written_again(volume: SecretVolume) -> None:
    volume.write({"a": b"1", "b/c": b"2"})
    before = generations(volume)
    assert not volume.write({"b/c": b"2", "a": b"1"})
    assert generations(volume) == before


def test_a_nested_key_can_go_while_its_directory_stays(volume: SecretVolume) -> None:
    volume.write({"a/b": b"1", "a/c": b"2", "d/e": b"3"})
    volume.write({"a/b": b"1"})
    assert visible(volume) == {"a/b": b"1"}
    assert not (volume.path / "d").is_symlink()


def test_a_deleted_optional_secret_leaves_an_empty_volume(volume: SecretVolume) -> None:
    volume.write({"a": b"1"})
    assert volume.write({})
    (generation,) = generations(volume)
    assert {path.name for path in volume.path.iterdir()} == {"..data", generation.name}


def test_modes(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path, mode=0o440)
    volume.write({"a": b"1", "b": b"2"}, modes={"b": 0o400})
    (generation,) = generations(volume)
    paths = (generation, generation / "a", generation / "b")
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o755, 0o440, 0o400]


def test_nothing_is_visible_before_the_rename(volume: SecretVolume) -> None:
    volume.write({"a": b"old", "gone": b"old"})
    steps = volume.steps({"a": b"new", "b": b"new"})
    assert next(steps) == "files written"
    assert visible(volume) == {"a": b"old", "gone": b"old"}
    assert next(steps) == "..data renamed"
    assert visible(volume) == {"a": b"new"}
    assert (volume.path / "gone").is_symlink()
    assert next(steps) == "links created"
    assert visible(volume) == {"a": b"new", "b": b"new"}
    assert next(steps) == "links removed"
    assert not (volume.path / "gone").is_symlink()
    assert len(generations(volume)) == 2
    assert list(steps) == ["old files removed"]
    assert len(generations(volume)) == 1


def test_the_older_order_links_first(tmp_path: Path) -> None:
    volume = SecretVolume(tmp_path, links_first=True)
    volume.write({"a": b"1"})
    steps = volume.steps({"a": b"1", "b": b"2"})
    assert [next(steps), next(steps)] == ["files written", "links created"]
    assert (volume.path / "b").is_symlink()
    assert not (volume.path / "b").exists()
    assert list(steps)[0] == "..data renamed"  # noqa: RUF015 - the rest of the steps has to run too
    assert (volume.path / "b").read_bytes() == b"2"


def test_a_reader_through_data_sees_one_version(volume: SecretVolume) -> None:
    """Names are never missing from the directory that `..data` names, and belong together."""
    volume.write({"username": b"0", "password": b"0"})
    stop = threading.Event()

    def rotate() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            volume.write(dict.fromkeys(("username", "password"), b"%d" % number))

    writer = threading.Thread(target=rotate)
    writer.start()
    versions: set[tuple[bytes, bytes]] = set()
    try:
        while len(versions) < 50:
            generation = volume.path / (volume.path / "..data").readlink()  # exists at every moment
            try:
                username, password = (generation / name for name in ("username", "password"))
                pair = (username.read_bytes(), password.read_bytes())
            except FileNotFoundError:
                continue  # outlived by two updates
            assert pair[0] == pair[1]
            versions.add(pair)
    finally:
        stop.set()
        writer.join()


@pytest.mark.parametrize("key", ["", "/a", "..a", "../a", "a/../b", "a//b", "a/", "./a", ".."])
def test_a_path_the_kubelet_refuses(volume: SecretVolume, key: str) -> None:
    with pytest.raises(ValueError, match="refuse"):
        volume.write({key: b""})
    assert list(volume.path.iterdir()) == []


payloads = st.dictionaries(st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h"]), st.binary(max_size=2))


@given(st.lists(payloads, min_size=1, max_size=4))
def test_the_volume_holds_what_was_written_last(
    tmp_path_factory: pytest.TempPathFactory, writes: list[dict[str, bytes]]
) -> None:
    volume = SecretVolume(tmp_path_factory.mktemp("volume"))
    for payload in writes:
        volume.write(payload)
        assert visible(volume) == payload
        assert len(generations(volume)) == 1
