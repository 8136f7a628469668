"""Patroni's REST API, as far as it tells who leads: `GET /primary` and `GET /cluster` (patroni/api.py).

Patroni speaks HTTP/1.0: a connection for each question. So do we, and then an answer ends with its connection.
"""

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from entrypoint import values
from entrypoint.backends import Backend
from sidecar.dial import Place, is_far
from sidecar.member import Reach, Rest

_PORT = 8008
_MAX_BYTES = 262_144
"""A node says less than 4 KiB, and `/cluster` some 500 bytes for each member."""
_CONFIG_SECONDS, _CONFIG_AGAIN_SECONDS = 60.0, 5.0
"""Between two questions for what seldom changes; the latter after one without an answer."""
_CLUSTER_SECONDS = 1.0
"""Not more often: Patroni then asks etcd, for 10 s when that is away, in one thread for each question."""
_OK = 200
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[ \r]")


def urls(setting: values.Patroni, backends: Sequence[Backend]) -> tuple[str, ...]:
    """Where Patroni of each backend is to be asked; nowhere when it is off."""
    if not setting.enabled:
        return ()
    return setting.urls or tuple(
        f"http://{f'[{each.host}]' if ':' in each.host else each.host}:{_PORT}" for each in backends
    )


def trust(ca: Path | None) -> ssl.SSLContext:
    """For https: believes whom the system believes and, as pgpool does for PostgreSQL, the authority in a `ca.crt`.

    Raises OSError or ssl.SSLError.
    """
    context = ssl.create_default_context()
    if ca is not None:
        context.load_verify_locations(ca)
    return context


class Patroni:
    """One node's Patroni."""

    def __init__(  # where, and how long
        self,
        url: str,
        *,
        nobody_leads: Callable[[], bool],
        seconds: float,
        again: float,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Ask nobody yet.

        Args:
            url: `http://host:port` or https.
            nobody_leads: whether no node says that it holds the leader lock; then this one is asked who does.
            seconds: how long one question may take.
            again: seconds after which a connection that does not come about is tried anew.
            clock: the clock of `asked`.
            tls: for https; the system's authorities when not given.
        """
        parts = urlsplit(url)
        encrypted = parts.scheme == "https"
        self._place = Place(parts.hostname or "", parts.port or (443 if encrypted else 80), again=again)
        self._netloc = parts.netloc
        self._tls = (tls or trust(None)) if encrypted else None
        self._nobody_leads = nobody_leads
        self._seconds = seconds
        self._clock = clock
        self._leader: str | None = None
        self._next_cluster = float("-inf")
        self._timing: tuple[float | None, float | None] = (None, None)
        self._next_config = float("-inf")

    def ask(self) -> Rest:
        """What Patroni says now. Takes little more than `seconds`."""
        rest = self._ask(self._clock())
        if rest.reach is Reach.ANSWERED:
            self._ask_timing()
            rest = self._with_leader(rest)
        ttl, loop_wait = self._timing
        return replace(rest, ttl=ttl, loop_wait=loop_wait)

    def close(self) -> None:
        """Nothing is kept open."""

    def _ask(self, asked: float) -> Rest:
        try:
            status, document = self._get("/primary", time.monotonic() + self._seconds)
            return read_node(asked, status, document)
        except (TimeoutError, BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return _no_answer(asked, Reach.SILENT, "no answer in time")
        except ssl.SSLCertVerificationError:
            return _no_answer(asked, Reach.UNTOLD, "its certificate is not trusted")
        except ssl.SSLError:
            return _no_answer(asked, Reach.UNTOLD, "no TLS")
        except ConnectionError:
            return _no_answer(asked, Reach.REFUSED, "not reachable")
        except OSError as error:
            # Of a name that nobody resolves just now, or a lack of our own, nobody is to suffer.
            return _no_answer(asked, Reach.SILENT if is_far(error) else Reach.UNTOLD, "the host is not to be found")
        except (ValueError, RecursionError):
            return _no_answer(asked, Reach.UNTOLD, "the answer is not Patroni's")

    def _ask_timing(self) -> None:
        """Of the one whose Patroni has just died it is worth most, so what was told is kept."""
        if self._clock() < self._next_config:
            return
        self._next_config = self._clock() + _CONFIG_AGAIN_SECONDS
        with suppress(OSError, ValueError, RecursionError):
            status, document = self._get("/config", time.monotonic() + self._seconds / 2)
            if status == _OK:
                self._timing = timing(document)
                self._next_config = self._clock() + _CONFIG_SECONDS

    def _with_leader(self, rest: Rest) -> Rest:
        if rest.lock or rest.unlocked or not self._nobody_leads():
            self._leader = None
        elif self._clock() >= self._next_cluster:
            self._next_cluster = self._clock() + _CLUSTER_SECONDS
            try:
                _, document = self._get("/cluster", time.monotonic() + self._seconds / 2)
                self._leader = leader(document)
            except (OSError, ValueError, RecursionError):
                self._leader = None
        return replace(rest, leader=self._leader)

    def _get(self, path: str, until: float) -> tuple[int, object]:
        """Status and document. Raises OSError, ssl.SSLError among them, or ValueError."""
        stream = self._exchange(f"GET {path} HTTP/1.0\r\nHost: {self._netloc}\r\n\r\n".encode(), until)
        if not stream:
            raise ValueError("it hung up")
        head, _, body = stream.partition(b"\r\n\r\n")
        status = _STATUS.match(head)
        if status is None:
            raise ValueError("not HTTP")
        return int(status[1]), json.loads(body)

    def _exchange(self, request: bytes, until: float) -> bytes:
        with ExitStack() as stack:
            connection = stack.enter_context(self._place.dial(until))
            stack.enter_context(_hanging_up())
            if self._tls is not None:
                connection.settimeout(_left(until))  # of the whole handshake, as of each read
                connection = stack.enter_context(self._tls.wrap_socket(connection, server_hostname=self._place.host))
            connection.settimeout(_left(until))
            connection.sendall(request)
            stream = bytearray()
            while len(stream) <= _MAX_BYTES:
                # In the end, what has arrived is still read: it may be we who were late.
                connection.settimeout(_left(until))
                if not (received := connection.recv(65536)):
                    return bytes(stream)
                stream += received
        raise ValueError("too long")


@contextmanager
def _hanging_up() -> Iterator[None]:
    """Who takes a connection and ends it is there, and is no Patroni that has died: it may want TLS, say."""
    try:
        yield
    except ConnectionError as error:
        raise ValueError("it hung up") from error


def timing(document: object) -> tuple[float | None, float | None]:
    """How long the leader lock lasts, and how often it is renewed, in seconds, from the answer to `GET /config`.

    That shows what somebody wrote. Patroni takes it for integers, raises what is too little, and then makes sure that
    loop_wait + 2 * retry_timeout <= ttl (_validate_and_adjust_timeouts, patroni/config.py). None: not to be told.
    """
    if not isinstance(document, dict):
        return None, None
    try:
        ttl, loop_wait, retry_timeout = (
            max(least, int(document.get(name, usual)))
            for name, usual, least in (("ttl", 30, 20), ("loop_wait", 10, 1), ("retry_timeout", 10, 3))
        )
        return float(ttl), float(max(1, min(loop_wait, ttl - 2 * retry_timeout)))
    except (TypeError, ValueError, OverflowError):
        return None, None


def leader(document: object) -> str | None:
    """Who holds the leader lock, from the answer to `GET /cluster`."""
    members = document.get("members") if isinstance(document, dict) else None
    for member in members if isinstance(members, list) else ():
        if isinstance(member, dict) and member.get("role") == "leader":
            name = member.get("name")
            return name if isinstance(name, str) else None
    return None


def read_node(asked: float, status: int, document: object) -> Rest:
    """The answer to `GET /primary`. Raises ValueError when it is not Patroni's."""
    if status not in (200, 503) or not isinstance(document, dict) or "state" not in document:
        raise ValueError("not Patroni")
    return Rest(
        asked=asked,
        reach=Reach.ANSWERED,
        since=asked,
        lock=status == 200,
        dcs_last_seen=_number(document.get("dcs_last_seen")),
        failsafe=document.get("failsafe_mode_is_active") is True,
        unlocked=document.get("cluster_unlocked") is True,
        paused=document.get("pause") is True,
    )


def _no_answer(asked: float, reach: Reach, reason: str) -> Rest:
    return Rest(asked=asked, reach=reach, since=asked, reason=reason)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _left(until: float) -> float:
    return max(0.0, until - time.monotonic())
