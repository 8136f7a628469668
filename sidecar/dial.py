"""TCP connections that stand, or are given up, in time; names are looked up aside, and remembered."""

import errno
import ipaddress
import math
import socket
import time
from collections.abc import Callable

from sidecar.latest import Latest

_LOOKUP_SECONDS = 5.0
"""So often a name is looked up anew while it is needed: a pod that was replaced has another address."""


def _lookup(host: str) -> tuple[str, ...]:
    """The addresses of a name; none when it is not to be found."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # UnicodeError: a label that is empty or too long
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


class UnresolvedError(OSError):
    """The host has no address that we know of: which says nothing about the host."""


def is_far(error: OSError) -> bool:
    """Whether the network does not know a way to the host; any other error is one of this machine."""
    return error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN)


class Place:
    """A port of a host. Name servers that are away do no harm: the addresses they gave last are used.

    Nor do they hold up other threads. libpq, told a name, would look it up in C, without a limit of time, and psycopg
    keeps the interpreter's lock meanwhile: it is to be told an address.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        again: float,
        good_for: float = math.inf,
        lookup: Callable[[str], tuple[str, ...]] = _lookup,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nobody yet.

        Args:
            host: a name or an address.
            port: the port.
            again: seconds after which a connection that does not come about is tried anew. When a network comes
                back, it thus is noticed at once: the kernel repeats itself after a second, then after two, four …
            good_for: seconds after which an address counts for nothing, though no newer one be had: for whoever asks
                seldom, as somebody else may have it by then.
            lookup: gives the addresses of a name; may take long.
            clock: by which an address is too old.
        """
        self.host = host
        self.port = port
        self._again = again
        self._good_for = good_for
        self._clock = clock
        self._latest = Latest(lambda: lookup(host), fresh=_LOOKUP_SECONDS, clock=clock)
        self._known: tuple[str, ...] = ()
        self._told = 0.0
        self._is_address = _is_address(host)

    def dial(self, until: float) -> socket.socket:
        """A connection to the first address that takes it before `until` on the monotonic clock.

        Raises TimeoutError, UnresolvedError, or what the last address said: ConnectionError when nobody listens,
        otherwise OSError.
        """
        return self._dial(until)[1]

    def find(self, until: float) -> str:
        """The first address that takes a connection, otherwise as `dial`."""
        address, connection = self._dial(until)
        connection.close()
        return address

    def _dial(self, until: float) -> tuple[str, socket.socket]:
        addresses = list(self._addresses(until))
        if not addresses:
            raise UnresolvedError("the host's name is not found")
        while True:
            address = addresses.pop(0)
            left = max(0.0, until - time.monotonic())
            try:
                return address, socket.create_connection((address, self.port), min(self._again, left))
            except (TimeoutError, BlockingIOError):
                if time.monotonic() >= until:
                    raise TimeoutError from None
                addresses.append(address)
            except OSError:
                if not addresses:
                    raise

    def _addresses(self, until: float) -> tuple[str, ...]:
        if self._is_address:
            return (self.host,)
        seen = self._latest.get(0.0 if self._is_good() else max(0.0, until - time.monotonic()))
        if seen and seen.value:
            self._known, self._told = seen.value, self._clock() - seen.age
        return self._known if self._is_good() else ()

    def _is_good(self) -> bool:
        return bool(self._known) and self._clock() - self._told < self._good_for


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
