"""Patroni's REST API as Patroni 4.1.5 answers it, without Patroni."""

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

HEADERS = "Server: BaseHTTP/0.6 Python/3.11.2\r\nContent-Type: application/json\r\n"
PRIMARY: dict[str, Any] = {
    "state": "running",
    "postmaster_start_time": "2026-11-23 23:39:56.766438+00:00",
    "role": "primary",
    "server_version": 150018,
    "xlog": {"location": 14680160},
    "timeline": 1,
    "replication": [{"usename": "replicator", "application_name": "postgres-3", "state": "streaming"}],
    "dcs_last_seen": 1795477215,
    "database_system_identifier": "7711515807031095353",
    "patroni": {"version": "4.1.5", "scope": "a-cluster", "name": "postgres-1"},
}
REPLICA: dict[str, Any] = {
    "state": "running",
    "role": "replica",
    "server_version": 150018,
    "xlog": {"received_location": 14680160, "replayed_location": 14680160, "paused": False},
    "timeline": 1,
    "replication_state": "streaming",
    "dcs_last_seen": 1795477215,
    "patroni": {"version": "4.1.5", "scope": "a-cluster", "name": "postgres-2"},
}
DEMOTED = {"state": "stopped", "role": "demoted", "cluster_unlocked": True, "dcs_last_seen": 1795477219}
OLD = {"state": "running", "role": "master", "timeline": 7, "patroni": {"version": "2.1.4", "scope": "a-cluster"}}
CLUSTER: dict[str, Any] = {
    "members": [
        {"name": "postgres-1", "role": "leader", "state": "running", "host": "127.0.0.11", "timeline": 1},
        {"name": "postgres-2", "role": "replica", "state": "streaming", "receive_lsn": "unknown", "lag": "unknown"},
    ],
    "scope": "a-cluster",
}
CONFIG = {"loop_wait": 2, "ttl": 20, "retry_timeout": 3, "postgresql": {"use_slots": True}}


class Node:
    """An HTTP server that says what it is told to say, to whatever path."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self.asked: list[str] = []
        self.says: dict[str, Callable[[socket.socket], None]] = {}
        self.port: int = listener.getsockname()[1]
        self._listener = listener
        self._tls = tls
        self.answer("/config", 200, CONFIG)

    def answer(self, path: str, status: int, document: object) -> None:
        words = f"HTTP/1.0 {status} X\r\n{HEADERS}\r\n{json.dumps(document)}".encode()
        self.says[path] = lambda client: client.sendall(words)

    def serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with suppress(OSError, LookupError, UnicodeError), client:  # somebody may speak TLS, and hang up
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_side=True)
            path = client.recv(4096).split()[1].decode()
            self.asked.append(path)
            self.says[path](client)
            client.close()


@contextmanager
def node(tls: ssl.SSLContext | None = None) -> Iterator[Node]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Node(listener, tls)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            yield server
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
