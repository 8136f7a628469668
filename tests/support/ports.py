"""TCP ports for servers that a test is about to start."""

import random
import socket

# Below Linux' ephemeral range, so that no outgoing connection takes the port before the server does.
CANDIDATES = range(20000, 32000)

_handed_out: set[int] = set()
# Own generator: pytest-randomly seeds the global one alike in every process.
_random = random.SystemRandom()


def free_port() -> int:
    """A port that nothing listens on, on any address, and that no earlier call has returned."""
    while True:
        port = _random.choice(CANDIDATES)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
            try:
                probe.bind(("", port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
