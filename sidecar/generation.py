"""What a published generation says, read back: the sidecar's memory, which survives its own restart."""

import re
from dataclasses import dataclass
from pathlib import Path

from entrypoint.backends import Backend
from entrypoint.credentials import aes_decrypter
from entrypoint.publish import GENERATIONS, marked
from entrypoint.render import MARKER
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.desired import Roles

CONF, HBA, PASSWD = "pgpool.conf", "pool_hba.conf", "pool_passwd"


@dataclass(frozen=True, slots=True)
class Generation:
    """The files of one generation under the digest they were published with."""

    digest: str
    tree: Tree

    def holds(self, tree: Tree) -> bool:
        """Whether it was published with these files, and still has them."""
        return self.digest == self.tree.digest == tree.digest

    @property
    def parameters(self) -> dict[str, str]:
        """pgpool.conf as name → value, without quotes."""
        return parameters(self.tree)

    def roles(self, key: Secret | None) -> Roles | None:
        """Roles and passwords, decrypted with `key`; None when it is not the key they were encrypted with."""
        decrypt = None if key is None else aes_decrypter(key.reveal())
        passwords: dict[str, Secret] = {}
        for line in _lines(self.tree, PASSWD):
            role, entry = _fields(line)
            if entry.startswith("TEXT") and key is None:
                passwords[role] = Secret(entry.removeprefix("TEXT"))
            elif entry.startswith("AES") and decrypt is not None and (password := decrypt(entry)) is not None:
                passwords[role] = Secret(password)
            else:
                return None
        return Roles(passwords, self.parameters.get("sr_check_user", ""))


def read_generation(run_dir: Path, name: str) -> Generation | None:
    """The generation that CURRENT, BOOTED or VERIFIED points to, or None. Raises OSError when it vanishes meanwhile."""
    digest = marked(run_dir, name)
    if digest is None:
        return None
    directory = run_dir / GENERATIONS / digest
    if not directory.is_dir():
        return None
    return Generation(digest, Tree({file.name: file.read_bytes() for file in directory.iterdir()}))


def parameters(tree: Tree) -> dict[str, str]:
    """pgpool.conf of a rendered tree as name → value, without quotes."""
    found = {}
    for line in _lines(tree, CONF):
        if match := re.fullmatch(r"(\w+) = (?:'(.*)'|(.*))", line):
            found[match[1]] = match[2] if match[2] is not None else match[3]
    return found


def backends(tree: Tree) -> tuple[Backend, ...]:
    """The servers that pgpool.conf names, by node id, without their weights. Raises KeyError or ValueError."""
    conf = parameters(tree)
    count = sum(name.startswith("backend_hostname") for name in conf)
    return tuple(
        Backend(
            name=conf[f"backend_application_name{node}"],
            host=conf[f"backend_hostname{node}"],
            port=int(conf[f"backend_port{node}"]),
            flags=tuple(conf[f"backend_flag{node}"].split("|")),
        )
        for node in range(count)
    )


def marker(tree: Tree) -> str:
    """What pgpool shows once it has read this tree's pgpool.conf."""
    return parameters(tree).get(MARKER, "")


def _lines(tree: Tree, name: str) -> list[str]:
    """Lines as pgpool divides them: a password may hold what `str.splitlines` takes for a line's end."""
    return [line for line in tree.files.get(name, b"").decode().split("\n") if line]


def _fields(line: str) -> tuple[str, str]:
    """Role and entry of a line of pool_passwd: a backslash takes the next character as it is."""
    if "\\" not in line:
        role, _, entry = line.partition(":")
        return role, entry
    fields = [""]
    characters = iter(line)
    for character in characters:
        if character == "\\":
            fields[-1] += next(characters, "")
        elif character == ":" and len(fields) == 1:
            fields.append("")
        else:
            fields[-1] += character
    return fields[0], fields[-1]
