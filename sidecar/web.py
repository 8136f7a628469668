"""HTTP for kubelet, Prometheus and people: a few pages, none of which can hang the others."""

import errno
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from entrypoint.probe import Verdict
from sidecar.latest import Latest

_TEXT = "text/plain; charset=utf-8"
_SOCKET_SECONDS = 5.0
"""How long a client may keep silent, or not read."""
_CONNECTIONS = 32
_CUTS = 5
_CUT_SECONDS = 0.2
"""How long a connection that was cut may take to make room."""
_FRESH = 1.0
_PATIENCE = 0.8
"""kubelet's own patience is 1 s by default."""
_STALE = 30.0
"""An older verdict is none, whether the judge hangs or fails each time."""


@dataclass(frozen=True, slots=True)
class Page:
    """One answer."""

    status: HTTPStatus
    type: str
    body: bytes


Answer = Callable[[str], Page]
"""Makes the page, given the request's Accept header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where the answers come from. Each must come to an end by itself, within seconds."""

    live: Callable[[], Verdict]
    """Whether our own loops beat; answers at once."""
    ready: Callable[[], Verdict]
    """Whether there was a good state yet; answers at once."""
    pgpool_live: Callable[[], Verdict]
    """May take its time, as with a PCP that hangs."""
    pgpool_ready: Callable[[], Verdict]
    """The same."""
    status: Callable[[], Mapping[str, object]]
    registry: CollectorRegistry


def pages(sources: Sources, clock: Callable[[], float] = time.monotonic) -> dict[str, Answer]:
    """Every path that is served; `clock`: seconds, monotonic."""
    return {
        "/livez": lambda _: _verdict(sources.live()),
        "/readyz": lambda _: _verdict(sources.ready()),
        "/pgpool/livez": _shared(sources.pgpool_live, clock),
        "/pgpool/readyz": _shared(sources.pgpool_ready, clock),
        "/status": lambda _: _json(sources.status()),
        "/metrics": lambda accept: _metrics(sources.registry, accept),
    }


class Web:
    """Serves pages by path, in threads of its own, from `start` to `close`."""

    def __init__(self, address: tuple[str, int], pages: Mapping[str, Answer]) -> None:
        """Take the port; raises OSError when it is taken, or the address is not ours.

        Args:
            address: host and port; no host is every interface, with IPv6 where there is one. Port 0 picks one.
            pages: what each path answers.
        """
        self._server = _listen(address, pages)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="web", daemon=True)

    def start(self) -> None:
        """Answer from now on."""
        self._thread.start()

    def close(self) -> None:
        """Give the port back."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _verdict(verdict: Verdict) -> Page:
    status = HTTPStatus.OK if verdict.good else HTTPStatus.SERVICE_UNAVAILABLE
    # A reason may name a file, whose name need not be UTF-8.
    return Page(status, _TEXT, f"{' '.join(verdict.reason.split())}\n".encode(errors="backslashreplace"))


def _shared(judge: Callable[[], Verdict], clock: Callable[[], float]) -> Answer:
    """The verdict of a judge that takes its time: requests share one evaluation a second.

    The answer comes within a second, if need be with the verdict before.
    """
    latest = Latest(judge, fresh=_FRESH, clock=clock)

    def answer(_: str) -> Page:
        seen = latest.get(_PATIENCE)
        if seen is None or seen.age > _STALE:
            return _verdict(Verdict(False, "no verdict on pgpool came in time"))
        return _verdict(seen.value)

    return answer


def _json(document: Mapping[str, object]) -> Page:
    # What JSON does not know becomes text: a Secret, its constant representation.
    return Page(HTTPStatus.OK, "application/json", f"{json.dumps(document, indent=1, default=str)}\n".encode())


def _metrics(registry: CollectorRegistry, accept: str) -> Page:
    """Prometheus' text or OpenMetrics, whichever is asked for."""
    try:
        encode, content_type = choose_encoder(accept)
    except (TypeError, ValueError):  # it compares the version's parts with numbers
        encode, content_type = choose_encoder("")
    return Page(HTTPStatus.OK, content_type, encode(registry))


def _listen(address: tuple[str, int], pages: Mapping[str, Answer]) -> "_Server":
    host, port = address
    if host:
        family, _, _, _, found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return _Server(family, (str(found[0]), port), pages)
    if socket.has_dualstack_ipv6():
        try:
            return _Server(socket.AF_INET6, ("::", port), pages)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
            # a kernel that knows IPv6, in a network namespace that has none
    return _Server(socket.AF_INET, ("", port), pages)


class _Server(ThreadingHTTPServer):
    """At most `_CONNECTIONS` clients at a time; when one more comes, the oldest has to go."""

    request_queue_size = 64

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], pages: Mapping[str, Answer]) -> None:
        self.address_family = family
        self.pages = pages
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)
        self._lock = threading.Lock()
        self._uncut: dict[socket.socket, None] = {}
        """The open connections but for those that were cut, the oldest first."""
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        """Bind, without HTTPServer's search for a name of the host, for which it asks DNS."""
        if self.address_family == socket.AF_INET6 and self.server_address[0] == "::":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # typeshed's signature
        """Hand the connection to a thread of its own."""
        if not self._make_room():
            self.shutdown_request(request)
            return
        with self._lock:
            self._uncut[request] = None
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no further thread can be had
            self._forget(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # typeshed's
        """Serve one connection, and make room for the next."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._forget(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401  # typeshed's signature
        """Say nothing of clients that went away; anything else is a bug, and its traceback is of use."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)

    def _forget(self, request: socket.socket) -> None:
        with self._lock:
            self._uncut.pop(request, None)
        self._slots.release()

    def _make_room(self) -> bool:
        """Take a slot. Who is cut makes room when reading or writing, but not while the page is slow: then the next."""
        if self._slots.acquire(blocking=False):
            return True
        for _ in range(_CUTS):
            self._cut_oldest()
            if self._slots.acquire(timeout=_CUT_SECONDS):
                return True
        return False

    def _cut_oldest(self) -> None:
        with self._lock:
            oldest = next(iter(self._uncut), None)
            if oldest is not None:
                del self._uncut[oldest]
                # Not closed: its thread does that, once its read or write has ended.
                with suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One request per connection (HTTP/1.0)."""

    server: _Server
    timeout = _SOCKET_SECONDS
    error_content_type = _TEXT
    error_message_format = "%(message)s\n"

    def do_GET(self) -> None:
        """Answer with the page; a bug in it is told to the client, too, but not its words."""
        try:
            page = self._page()
        except Exception as error:
            self._send(Page(HTTPStatus.INTERNAL_SERVER_ERROR, _TEXT, f"a bug: {type(error).__name__}\n".encode()))
            raise
        self._send(page)

    def do_HEAD(self) -> None:
        """Answer as to GET, without the body."""
        self.do_GET()

    def version_string(self) -> str:
        """Name no versions."""
        return "pgpool-sidecar"

    def log_message(self, *_: object) -> None:
        """No access log: probes come every few seconds."""

    def _page(self) -> Page:
        pages = self.server.pages
        try:
            path = urlsplit(self.path).path
        except ValueError:
            return Page(HTTPStatus.BAD_REQUEST, _TEXT, b"not a path\n")
        answer = pages.get(path)
        if answer is None:
            return Page(HTTPStatus.NOT_FOUND, _TEXT, "".join(f"{path}\n" for path in pages).encode())
        return answer(self.headers.get("Accept", ""))

    def _send(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.type)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)
