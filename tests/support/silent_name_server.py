"""A login at a host of which the name server never says a word. To be run in namespaces of its own: see COMMAND.

Prints what came of it, how long it took, and how long no other thread of Python ran meanwhile.
"""

import json
import socket
import sys
import threading
import time
from pathlib import Path

from entrypoint.backends import Backend
from entrypoint.secret import Secret
from sidecar.login import Servers

ADDRESS = "127.0.0.77"
COMMAND = [
    *("unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-ec"),
    'PATH=$PATH:/usr/sbin:/sbin; ip link set lo up; mount --bind "$1" /etc/resolv.conf; exec "$2" "$3"',
    "sh",
]
"""Then a resolv.conf that names ADDRESS, and how to run this file."""


def command(directory: Path) -> list[str]:
    """What runs this file where that name server is the only one; `directory` is for a file."""
    resolv_conf = directory / "resolv.conf"
    resolv_conf.write_text(f"nameserver {ADDRESS}\n")
    return [*COMMAND, str(resolv_conf), sys.executable, __file__]


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as name_server:
        name_server.bind((ADDRESS, 53))
        beats = [time.monotonic()]
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(0.02):
                beats.append(time.monotonic())

        thread = threading.Thread(target=beat)
        thread.start()
        began = time.monotonic()
        said = Servers([Backend(name="node-1", host="node-1.db")], "postgres", seconds=1).attempt("app", Secret("x"))
        seconds = time.monotonic() - began
        ended.set()
        thread.join()
    pauses = [later - earlier for earlier, later in zip(beats, [*beats[1:], time.monotonic()], strict=True)]
    print(json.dumps({"outcome": said.outcome.name, "reason": said.reason, "seconds": seconds, "pause": max(pauses)}))


if __name__ == "__main__":
    main()
