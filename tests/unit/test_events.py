"""Each event is one line that a machine can read back."""

import io
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.secret import Secret
from sidecar.events import Events, Format, Unblocking

NOW = datetime(2026, 11, 23, 19, 35, 4, 403999, tzinfo=UTC)
HEAD = "ts=2026-11-23T19:35:04.403Z level=info event="

NASTY = [
    "",
    " ",
    "a b",
    "a=b",
    'a "quoted" word',
    "'",
    "back\\slash",
    "\\",
    '"',
    "two\nlines",
    "a\r\n\tb",
    "\0",
    "\x1b[31mred",
    "\x7f",
    "\x85",
    "no-break\xa0space",
    "line\u2028separator",
    "\ud800",
    "Grüße",
    "level=error event=forged",
    'x" level="error',
    "{}",
    "null",
    "true",
    "100%",
]


def line(form: Format, event: str = "x", **fields: object) -> str:
    stream = io.StringIO()
    Events(stream, form, lambda: NOW).info(event, **fields)
    text = stream.getvalue()
    assert text.endswith("\n")
    assert len(text.splitlines()) == 1
    return text.removesuffix("\n")


def parse(text: str) -> dict[str, str]:
    """A reader of logfmt that knows nothing of the writer: bare words, or JSON strings."""
    found = {}
    while text:
        name, _, text = text.partition("=")
        if text.startswith('"'):
            value, end = json.JSONDecoder().raw_decode(text)
            text = text[end:]
            assert not text or text.startswith(" "), text
            text = text.removeprefix(" ")
        else:
            value, _, text = text.partition(" ")
        assert name not in found
        found[name] = value
    return found


def test_an_event_is_a_line_of_words() -> None:
    written = line("logfmt", "rotation.published", generation="ab12cd34ef56", ms=3.2, roles=2, restart=False)
    assert written == f"{HEAD}rotation.published generation=ab12cd34ef56 ms=3.2 roles=2 restart=false"


def test_an_event_is_an_object() -> None:
    assert json.loads(line("json", "rotation.published", ms=3.2, roles=2, restart=False)) == {
        "ts": "2026-11-23T19:35:04.403Z",
        "level": "info",
        "event": "rotation.published",
        "ms": 3.2,
        "roles": 2,
        "restart": False,
    }


@pytest.mark.parametrize("nasty", NASTY)
def test_nasty_text_is_read_back_as_it_was(nasty: str) -> None:
    expected = {"event": "x", "reason": nasty, "last": "1"}
    written = line("logfmt", reason=nasty, last=1)
    assert parse(written).items() >= expected.items()
    assert set(parse(written)) == {"ts", "level", "event", "reason", "last"}
    assert json.loads(line("json", reason=nasty)).items() >= {"reason": nasty}.items()


@given(st.text())
def test_any_text_is_read_back_as_it_was(text: str) -> None:
    assert parse(line("logfmt", reason=text, last=1))["reason"] == text
    assert json.loads(line("json", reason=text))["reason"] == text


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_a_secret_is_not_told(form: Format) -> None:
    secret = Secret("sentinel 100% secret")
    written = line(form, password=secret, several=[secret], mapping={"app": secret}, text=f"{secret}")
    assert "sentinel" not in written
    assert written.count("(secret)") == 4


def test_what_is_not_known_is_left_out() -> None:
    assert line("logfmt", reason=None, ms=1) == f"{HEAD}x ms=1"
    assert "reason" not in json.loads(line("json", reason=None))


def test_other_values_become_text() -> None:
    assert line("logfmt", path=Path("/run/a b"), age=float("nan")) == f'{HEAD}x path="/run/a b" age=nan'
    assert json.loads(line("json", age=float("inf")))["age"] == "inf"


def test_levels_are_told_apart() -> None:
    stream = io.StringIO()
    events = Events(stream, "logfmt", lambda: NOW)
    events.info("a")
    events.warning("b")
    events.error("c")
    levels = [(event["level"], event["event"]) for event in map(parse, stream.getvalue().splitlines())]
    assert levels == [("info", "a"), ("warning", "b"), ("error", "c")]


def test_time_is_told_in_utc() -> None:
    stream = io.StringIO()
    Events(stream, "logfmt", lambda: NOW.astimezone(timezone(timedelta(hours=5, minutes=30)))).info("a")
    assert stream.getvalue() == f"{HEAD}a\n"


def test_threads_do_not_mix_their_lines() -> None:
    both_are_writing = threading.Barrier(2)

    class Slow(io.StringIO):
        """Takes half a line, then the rest, but gives a second writer the time to come between."""

        def write(self, text: str) -> int:
            half = len(text) // 2
            written = super().write(text[:half])
            with suppress(threading.BrokenBarrierError):
                both_are_writing.wait(0.2)
            return written + super().write(text[half:])

    stream = Slow()
    events = Events(stream, "logfmt", lambda: NOW)
    threads = [threading.Thread(target=events.info, args=("x",)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stream.getvalue() == f"{HEAD}x\n" * 2


def test_a_closed_pipe_stops_nobody() -> None:
    class Broken(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    Events(Broken(), "logfmt", lambda: NOW).error("nobody.listens")


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """Both ends of a pipe of 64 KiB; a thread that still writes to it ends with the reader."""
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        time.sleep(0.05)
        os.close(writer)


def read_lines(reader: int, last: str) -> list[str]:
    """All lines up to one that ends so."""
    text = ""
    while not text.endswith(f"{last}\n"):
        text += os.read(reader, 65536).decode()
    return text.splitlines()


def test_nobody_waits_for_a_reader_and_what_is_dropped_is_counted() -> None:
    with pipe() as (reader, writer):
        stream = Unblocking(writer)
        events = Events(stream, "logfmt", lambda: NOW)  # type: ignore[arg-type]  # all of TextIO that it uses
        begin = time.monotonic()
        for number in range(4000):
            events.info("x", number=number, filler="f" * 100)
        stream.drain()
        assert time.monotonic() - begin < 2
        text = "".join(os.read(reader, 65536).decode() for _ in range(3))
        stream.drain()  # now there is room
        events.info("x", number=4000)
        events.info("x", number="last")
        lines = [parse(line) for line in (text + "\n".join(read_lines(reader, "last"))).splitlines()]
    expected = 0
    for line in lines[:-1]:
        expected += int(line.get("dropped", 0))
        assert int(line["number"]) == expected
        expected += 1
    assert expected == 4001
    assert "dropped" in lines[-2]
    assert 1024 <= len(lines) < 4000


def test_what_waits_is_written_before_the_end() -> None:
    with pipe() as (reader, writer):
        stream = Unblocking(writer)
        for number in range(500):
            stream.write(f"{number}\n")
        stream.write("\udcff 'п'\n")
        stream.drain()
        assert read_lines(reader, "'п'") == [*map(str, range(500)), "\\udcff 'п'"]


def test_a_reader_that_left_stops_nobody() -> None:
    with pipe() as (reader, writer):
        stream = Unblocking(writer)
        os.dup2(writer, reader)  # no reader is left
        assert stream.write("x\n") == 2
        begin = time.monotonic()
        stream.drain()
        assert time.monotonic() - begin < 0.2
