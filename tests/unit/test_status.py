"""The account that the sidecar gives of itself."""

import json
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.status import STATUS, Restart, State, Status, rejected_before, shown

FULL = Status(
    state=State.PENDING,
    reason="role 'п 1%': not yet",
    since="2026-06-01T12:00:00.000+00:00",
    desired="d" * 64,
    applied="a" * 64,
    verified=None,
    rejected=("e" * 12,),
    held={"п 1%": "not yet"},
    unproven={"new": "unknown"},
    restart=Restart(required_by=("tls.crt", "tls.key"), policy="never", in_seconds=None),
    settled=True,
)


def test_the_document_has_everything_and_short_digests() -> None:
    assert FULL.document() == {
        "state": "pending",
        "reason": "role 'п 1%': not yet",
        "since": "2026-06-01T12:00:00.000+00:00",
        "desired": "d" * 12,
        "applied": "a" * 12,
        "verified": None,
        "rejected": ("e" * 12,),
        "held": {"п 1%": "not yet"},
        "unproven": {"new": "unknown"},
        "restart": {"required_by": ("tls.crt", "tls.key"), "policy": "never", "in_seconds": None},
        "settled": True,
    }


def test_the_file_holds_the_document_and_is_nobody_elses(tmp_path: Path) -> None:
    FULL.write(tmp_path)
    text = (tmp_path / STATUS).read_text()
    assert json.loads(text) == json.loads(json.dumps(FULL.document()))
    assert "п 1%" in text
    assert text.endswith("}\n")
    assert stat.S_IMODE((tmp_path / STATUS).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [STATUS]


def test_a_file_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    """Python has its bytes as lone surrogates, which UTF-8 does not."""
    status = replace(FULL, reason="/users/п\udcff: has no file `username`")
    status.write(tmp_path)
    text = (tmp_path / STATUS).read_bytes().decode()
    assert "/users/п\\udcff: has" in text
    for each in (text, status.text()):
        assert each.encode()
        assert json.loads(each)["reason"] == status.reason


def test_a_status_is_replaced_as_a_whole(tmp_path: Path) -> None:
    FULL.write(tmp_path)
    with (tmp_path / STATUS).open() as reader:
        Status(state=State.IN_SYNC).write(tmp_path)
        assert json.load(reader)["state"] == "pending"
    assert json.loads((tmp_path / STATUS).read_text())["state"] == "in_sync"


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FULL.write(tmp_path / "missing")


def test_the_next_sidecar_knows_what_was_rejected(tmp_path: Path) -> None:
    FULL.write(tmp_path)
    assert rejected_before(tmp_path) == ("e" * 12,)
    assert shown("e" * 64) == "e" * 12


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b"{}", b'{"rejected": 1}', b"\xff"])
def test_a_status_that_is_no_use_tells_nothing(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / STATUS).write_bytes(content)
    assert rejected_before(tmp_path) == ()
