"""The PCP protocol and the node table, over bytes recorded from pgpool 4.6.1, and with a PCP that misbehaves."""

import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from entrypoint.pcp import PcpAddress
from entrypoint.secret import Secret
from sidecar.pcp import PcpError
from sidecar.pcp_wire import complaint, fields, packet, response
from sidecar.table import Row, TableReader, parse_row

PASSWORD = "pcp pass 100%"
LOGIN = [b"m\0\0\0\x08\x8a\x0bF\x1f", b"r\0\0\0\x15AuthenticationOK\0"]
COUNT = b"l\0\0\0\x16CommandComplete\x001\0"
DOWN = b"0\x00127.0.0.1\x0030540\0down\0primary\x002026-11-23 23:22:03\0"
CHECKS = b"9\x006\x002\x001\x0012\x001.333333\x006\x005167\x0013\x001737.666667\x002026-11-23 23:22:03\0\0\0\0"
STATS = b"h\0\0\0\x88CommandComplete\0" + DOWN + CHECKS
ERROR = (
    b"SERROR\0CXX000\0Minforming health check stats info failed\0Dinvalid node ID 7\0Fpcp_worker.c\0L1015\0\0",
    "informing health check stats info failed: invalid node ID 7",
)
FATAL = (
    (
        b'SFATAL\0CXX000\0Mauthentication failed for user "pgpool"\0Dusername and/or password does not match\0'
        b"Fpcp_worker.c\0L529\0\0"
    ),
    'authentication failed for user "pgpool": username and/or password does not match',
)
ROW = Row(node_id=0, host="127.0.0.1", port=30540, status="down", role="primary")


@pytest.mark.parametrize(("payload", "said"), [ERROR, FATAL, (b"\0", "an error without a message")])
def test_an_error_says_what_pgpool_says(payload: bytes, said: str) -> None:
    assert complaint(payload) == said


@pytest.mark.parametrize(
    ("request_", "bytes_"),
    [
        (packet("M"), b"M\0\0\0\x04"),
        (packet("X"), b"X\0\0\0\x04"),
        (packet("H", "12"), b"H\0\0\0\x0712\0"),
        (packet("R", "a user", "abc"), b"R\0\0\0\x0fa user\0abc\0"),
    ],
)
def test_a_request_has_a_letter_its_length_and_texts(request_: bytes, bytes_: bytes) -> None:
    assert request_ == bytes_


def test_the_password_is_proved_by_what_md5_makes_of_it() -> None:
    # printf '%s' 'pcp pass 100%' | md5sum; then with 'pgpool' and with the salt behind it.
    assert response(address(Path("/run/pool")), b"salt") == "1952ef34cc2fe7d2716ad3449edf8d16"


@pytest.mark.parametrize(
    "answer",
    [
        (),
        ("0", "127.0.0.1", "5432", "up"),
        ("", "h", "5432", "up", "primary", ""),
        ("0", "h", "", "", "", ""),
    ],
)
def test_an_answer_without_what_a_row_needs_is_none(answer: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_row(answer)


def test_a_text_without_its_end_makes_no_sense() -> None:
    assert fields(b"a text\0\0another\0") == ("a text", "", "another")
    with pytest.raises(PcpError, match="makes no sense"):
        fields(b"a text\0another")


class Impostor:
    """A PCP that gives each session in turn what it was told to, an answer for each request.

    After an empty one, it ends the session.
    """

    def __init__(self, directory: Path, sessions: list[list[bytes]]) -> None:
        self.said: list[bytes] = []
        """What each session was sent."""
        self.directory = directory
        self._sessions = sessions
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.9898"))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(5)
        assert not self._thread.is_alive(), "not every session was asked for"
        self._listener.close()

    def _serve(self) -> None:
        for answers in self._sessions:
            session, _ = self._listener.accept()
            said = b""
            with session, suppress(ConnectionError):
                session.settimeout(5)
                for answer in filter(None, answers):
                    said += session.recv(8192)
                    session.sendall(answer)
                while answers[-1] and (more := session.recv(8192)):
                    said += more
            self.said.append(said)


@pytest.fixture
def impostor() -> Iterator[Callable[[list[list[bytes]]], tuple[Impostor, TableReader]]]:
    with ExitStack() as stack:

        def start(sessions: list[list[bytes]]) -> tuple[Impostor, TableReader]:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="t-")))
            made = Impostor(directory, sessions)
            stack.callback(made.close)
            reader = TableReader(lambda: address(directory), seconds=0.5)
            stack.callback(reader.close)
            return made, reader

        yield start


StartImpostor = Callable[[list[list[bytes]]], tuple[Impostor, TableReader]]


def address(directory: Path) -> PcpAddress:
    return PcpAddress(directory, 9898, "pgpool", Secret(PASSWORD))


def test_one_session_serves_several_readings_and_ends_with_a_word(impostor: StartImpostor) -> None:
    pcp, reader = impostor([[*LOGIN, COUNT, STATS, STATS]])
    assert reader.read() == reader.read() == (ROW,)
    reader.close()
    pcp.close()
    (said,) = pcp.said
    assert said.endswith(packet("X"))
    assert PASSWORD.encode() not in said


def test_a_pgpool_that_was_started_anew_gets_a_session_of_its_own(impostor: StartImpostor) -> None:
    former, reader = impostor([[*LOGIN, COUNT, STATS]])
    assert reader.read() == (ROW,)
    former.directory.joinpath(".s.PGSQL.9898").unlink()
    pcp = Impostor(former.directory, [[*LOGIN, COUNT, STATS.replace(b"down", b"idle")]])
    with closing(pcp):
        assert reader.read()[0].status == "idle"
        reader.close()


def test_notices_and_answers_in_pieces_are_understood(impostor: StartImpostor) -> None:
    _, reader = impostor([[*LOGIN, b"N\0\0\0\x09Shi\0\0" + COUNT, STATS]])
    assert reader.read() == (ROW,)


def test_a_session_that_pgpool_ended_is_followed_by_another_at_once(impostor: StartImpostor) -> None:
    _, reader = impostor([[*LOGIN, COUNT, STATS, b""], [*LOGIN, COUNT, STATS]])
    assert reader.read() == (ROW,)
    assert reader.read() == (ROW,)


@pytest.mark.parametrize(
    "answers",
    [
        [b"x\0\0\0\x04"],
        [b"m\0\0\0\x06ab"],
        [b"m\0\0\0\x01"],
        [b"m\x7f\xff\xff\xff"],
        [LOGIN[0], b"r\0\0\0\x0bdenied\0"],
        [*LOGIN, b"l\0\0\0\x16CommandComplete\0x\0"],
        [*LOGIN, b"l\0\0\0\x0bFailed\0"],
        [*LOGIN, COUNT, b"h\0\0\0\x14CommandComplete\0"],
        [*LOGIN, COUNT, COUNT],
    ],
)
def test_what_is_not_pcp_makes_no_sense(impostor: StartImpostor, answers: list[bytes]) -> None:
    _, reader = impostor([answers])
    with pytest.raises(PcpError, match="makes no sense") as caught:
        reader.read()
    assert not caught.value.away


def test_an_error_in_the_middle_costs_the_session(impostor: StartImpostor) -> None:
    error = b"E\0\0\0" + bytes([len(ERROR[0]) + 4]) + ERROR[0]
    _, reader = impostor([[*LOGIN, COUNT, error], [*LOGIN, COUNT, STATS]])
    with pytest.raises(PcpError, match="invalid node ID 7") as caught:
        reader.read()
    assert not caught.value.away
    assert reader.read() == (ROW,)


@pytest.mark.parametrize("answers", [[b""], [*LOGIN, b""], [*LOGIN, COUNT[:4], b""]])
def test_two_sessions_that_break_off_mean_away(impostor: StartImpostor, answers: list[bytes]) -> None:
    _, reader = impostor([answers, answers])
    with pytest.raises(PcpError, match=r"ended the session|Broken pipe|reset") as caught:
        reader.read()
    assert caught.value.away


@pytest.mark.parametrize("answers", [[b""], [*LOGIN, b""], [*LOGIN, COUNT[:4], b""]])
def test_one_session_that_breaks_off_goes_unnoticed(impostor: StartImpostor, answers: list[bytes]) -> None:
    _, reader = impostor([answers, [*LOGIN, COUNT, STATS]])
    assert reader.read() == (ROW,)


def test_nobody_there_means_away(tmp_path: Path) -> None:
    with pytest.raises(PcpError, match="No such file") as caught:
        TableReader(lambda: address(tmp_path)).read()
    assert caught.value.away


def test_a_trickle_of_bytes_does_not_prolong_a_reading() -> None:
    with tempfile.TemporaryDirectory(prefix="t-") as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/.s.PGSQL.9898")
        listener.listen()
        done = threading.Event()

        def trickle() -> None:
            session, _ = listener.accept()
            with session, suppress(ConnectionError):
                session.sendall(b"N\0\0\x10\0")
                while not done.wait(0.05):
                    session.sendall(b"a")

        thread = threading.Thread(target=trickle, daemon=True)
        thread.start()
        before = time.monotonic()
        with pytest.raises(PcpError, match="no answer in time") as caught:
            TableReader(lambda: address(Path(directory)), seconds=0.3).read()
        assert 0.3 <= time.monotonic() - before < 2
        assert caught.value.away
        done.set()
        thread.join(5)
