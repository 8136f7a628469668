"""The PCP protocol as far as questions need it: for who asks so often that running a pcp_* tool is too dear.

A packet is a letter, its length in four bytes (which count themselves), and texts, each ended by a zero byte; an answer
has the letter of its request, small (src/libs/pcp/pcp.c, src/pcp_con/pcp_worker.c).
"""

import hashlib
import socket
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from entrypoint.credentials import pcp_hash
from entrypoint.pcp import PcpAddress
from sidecar.pcp import PcpError

Fields = tuple[str, ...]

COMPLETE, AUTHENTICATED = "CommandComplete", "AuthenticationOK"
"""The first field of an answer."""

_HEAD = struct.Struct("!ci")
_SALT_BYTES = 4
_LONGEST = 1 << 16
"""Bytes of a packet. What is asked for here is below 1 kB; more is not PCP."""


class Session:
    """One authenticated connection. Its methods raise PcpError; after that, close it.

    pgpool serves it by a process of its own, which heeds no request to end (die(), src/pcp_con/pcp_worker.c): once PCP
    was restarted, as after each failover, this process outlives pgpool for as long as the session lasts, and goes on
    answering from memory that nobody writes any more. So let no session last, nor one that `is_left_behind`.
    """

    def __init__(self, address: PcpAddress, *, until: float) -> None:
        """Connect and log in; times are those of time.monotonic()."""
        self._path = address.socket_dir / f".s.PGSQL.{address.port}"
        self._made = _identity(self._path)
        self._socket = socket.socket(socket.AF_UNIX)
        self._received = bytearray()
        try:
            self._log_in(address, until)
        except BaseException as error:
            self._socket.close()
            if isinstance(error, OSError):
                raise _away(error) from None
            raise

    @property
    def is_left_behind(self) -> bool:
        """Whether the pgpool that this was begun with has ended: each one makes a socket, and takes it away."""
        return _identity(self._path) != self._made

    def ask(self, requests: Sequence[tuple[str, str | int]], *, until: float) -> list[Fields]:
        """Put questions, each a letter and its argument, at once; return what is in each answer."""
        try:
            self._patience(until)
            self._socket.sendall(b"".join(packet(letter, str(argument)) for letter, argument in requests))
            answers = [fields(self._answer(letter.lower(), until)) for letter, _ in requests]
        except OSError as error:
            raise _away(error) from None
        if any(answer[:1] != (COMPLETE,) for answer in answers):
            raise _nonsense()
        return [answer[1:] for answer in answers]

    def close(self) -> None:
        """End it, saying so: pgpool would log a fatal error otherwise."""
        with self._socket, suppress(OSError):
            self._socket.setblocking(False)
            self._socket.sendall(packet("X"))

    def _log_in(self, address: PcpAddress, until: float) -> None:
        self._patience(until)
        self._socket.connect(str(self._path))
        self._socket.sendall(packet("M"))
        salt = self._answer("m", until)
        self._socket.sendall(packet("R", address.user, response(address, salt)))
        if fields(self._answer("r", until)) != (AUTHENTICATED,):
            raise _nonsense()

    def _answer(self, letter: str, until: float) -> bytes:
        while True:
            kind, length = _HEAD.unpack(self._take(_HEAD.size, until))
            if not _HEAD.size - 1 <= length <= _LONGEST:
                raise _nonsense()
            payload = self._take(length - _HEAD.size + 1, until)
            if kind == b"E":
                raise PcpError("pcp", complaint(payload), away=False)
            if kind == letter.encode():
                return payload
            if kind != b"N":  # a notice
                raise _nonsense()

    def _take(self, count: int, until: float) -> bytes:
        while len(self._received) < count:
            self._patience(until)
            chunk = self._socket.recv(1 << 13)
            if not chunk:
                raise ConnectionResetError("pgpool ended the session")
            self._received += chunk
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken

    def _patience(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def packet(letter: str, *texts: str) -> bytes:
    """A request."""
    payload = b"".join(text.encode(errors="surrogateescape") + b"\0" for text in texts)
    return _HEAD.pack(letter.encode(), len(payload) + _HEAD.size - 1) + payload


def fields(payload: bytes) -> Fields:
    """The texts of an answer. Raises PcpError."""
    *texts, end = payload.split(b"\0")
    if end:
        raise _nonsense()
    return tuple(text.decode(errors="replace") for text in texts)


def complaint(payload: bytes) -> str:
    """What an error says: its message, and the detail."""
    by_kind = {text[:1]: text[1:] for text in fields(payload)}
    said = (by_kind.get(kind, "") for kind in "MD")
    return ": ".join(text for text in said if text) or "an error without a message"


def response(address: PcpAddress, salt: bytes) -> str:
    """What proves the password to whoever gave this salt (pcp_authorize(), src/libs/pcp/pcp.c)."""
    if len(salt) != _SALT_BYTES:
        raise _nonsense()
    return _md5(_md5(pcp_hash(address.password.reveal()).encode() + address.user.encode()).encode() + salt)


def _md5(value: bytes) -> str:
    return hashlib.md5(value, usedforsecurity=False).hexdigest()


def _away(error: OSError) -> PcpError:
    if isinstance(error, TimeoutError):
        return PcpError("pcp", "no answer in time", away=True)
    return PcpError("pcp", error.strerror or str(error), away=True)


def _nonsense() -> PcpError:
    return PcpError("pcp", "an answer that makes no sense", away=False)
