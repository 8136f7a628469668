"""The network between pgpool and the nodes: it can be cut, and the cluster does not notice.

On one machine everything has the address 127.0.0.1 as its source, so a cut cannot tell pgpool's packets from the
cluster's by where they come from. It tells them by the address that was asked for: pgpool is given 127.0.1.x, which
the kernel translates to the node's own 127.0.0.x, and remembers for as long as the connection lives.
"""

import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

How = Literal["drop", "reject"]
"""Silence, as from a host without power, or a reset, as from a firewall that says no."""

NET_ADMIN = 1 << 12
SETS: dict[How, str] = {"drop": "dropped", "reject": "rejected"}

# Replies pass the same hook, on their way out of the node, and belong to the same connection. What resets a connection
# is let through, for it matches as well.
RULES = """\
table ip far {{
    set dropped {{ type ipv4_addr; }}
    set rejected {{ type ipv4_addr; }}
    chain translate {{
        type nat hook output priority -100;
        dnat to ip daddr map {{ {translations} }}
    }}
    chain cut {{
        type filter hook output priority filter;
        ct original ip daddr @dropped drop
        ct original ip daddr @rejected tcp flags & rst == 0 reject with tcp reset
    }}
}}
"""


class Network:
    """What is between a client outside of the cluster and the nodes, by their own addresses."""

    def __init__(self, nodes: Iterable[str]) -> None:
        """Change nothing yet; the nodes are at 127.0.0.x."""
        self._nodes = list(nodes)

    @staticmethod
    def is_ours() -> bool:
        """Whether this process may change the network, and whether it is one that it will disturb nobody in."""
        status = Path("/proc/self/status").read_text()
        effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
        return bool(effective & NET_ADMIN) and [name for _, name in socket.if_nameindex()] == ["lo"]

    def open(self) -> None:
        translations = ", ".join(f"{far(node)} : {node}" for node in self._nodes)
        nft(RULES.format(translations=translations))

    def close(self) -> None:
        nft("add table ip far; delete table ip far")  # not an error if it is not there

    def cut(self, nodes: Iterable[str], how: How) -> None:
        """Cut these off, in both directions and for connections that exist, until `mend`."""
        elements = ", ".join(far(node) for node in nodes)
        nft(f"add element ip far {SETS[how]} {{ {elements} }}")

    def mend(self) -> None:
        nft("".join(f"flush set ip far {name}\n" for name in SETS.values()))


def far(address: str) -> str:
    """The address of a node for whoever is not to share the cluster's own network."""
    return address.replace("127.0.0.", "127.0.1.", 1)


def nft(rules: str) -> None:
    result = subprocess.run(["nft", "-f", "-"], input=rules, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"nft says: {result.stderr}\nto:\n{rules}"
