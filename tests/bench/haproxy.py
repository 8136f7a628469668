"""HAProxy before a cluster of Patroni, set up as in Patroni's own template: what many have instead of a pooler."""

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.patroni import PORT, REST_PORT
from support.ports import free_port

STOP_TIMEOUT = 10.0

# haproxy.cfg of Patroni's repository, without its page of statistics, and for the primary only.
CONFIGURATION = """\
global
    maxconn 400
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
listen primary
    bind 127.0.0.1:{port}
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
{servers}
"""


@contextmanager
def running_haproxy(program: Path, directory: Path, addresses: Sequence[str]) -> Iterator[int]:
    """The port at which it takes connections for the primary among these nodes."""
    port = free_port()
    servers = "\n".join(
        f"    server node-{number} {address}:{PORT} check port {REST_PORT}"
        for number, address in enumerate(addresses, 1)
    )
    file = directory / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(port=port, servers=servers))
    with (directory / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", file], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(STOP_TIMEOUT)
