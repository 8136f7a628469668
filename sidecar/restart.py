"""Which changes only a restart of pgpool applies, and when this pod's turn to restart is."""

import hashlib
from collections.abc import Mapping, Sequence

from entrypoint.catalogue import Catalogue, InvalidValueError
from entrypoint.model import PgpoolModel
from entrypoint.render import MARKER, render
from entrypoint.secret import Secret
from entrypoint.tls import FILES
from entrypoint.tree import Tree
from sidecar.generation import parameters

KEY = "PGPOOLKEYFILE"
"""The reason that no file and no parameter tells: another key of pool_passwd."""
LISTENERS = frozenset({"listen_addresses", "port", "pcp_listen_addresses", "pcp_port"})
"""Reasons for which nobody but a person restarts pgpool: whether it could listen there, only a boot can tell."""
RELOADED_ALWAYS = frozenset({MARKER, "sr_check_password"})
"""What may differ in pgpool.conf after any change of a password."""
_FIXED = ("backend_hostname", "backend_port", "backend_data_directory")
"""Reloadable by name, but pgpool ignores a change for a node it has, and leaves a new node down without health checks
(BackendPortAssignFunc and its neighbours, src/config/pool_config_variables.c)."""


def restart_reasons(booted: Tree, wanted: Tree, catalogue: Catalogue) -> tuple[str, ...]:
    """Names of the files and parameters in which a reload leaves pgpool behind `wanted`.

    pgpool reads ssl_* files and parameters of context INIT at start only, keeps the value of a parameter that vanishes
    from the file (set_config_options), and never drops ALWAYS_PRIMARY from a node's flags (BackendFlagsAssignFunc).
    """
    files = [name for name in FILES if booted.files.get(name) != wanted.files.get(name)]
    before, after = parameters(booted), parameters(wanted)
    changed = [name for name in sorted({*before, *after} - RELOADED_ALWAYS) if before.get(name) != after.get(name)]
    return tuple(files + [name for name in changed if _at_start_only(name, before, after, catalogue)])


def wanted_by(reasons: Sequence[str], model: PgpoolModel) -> Mapping[str, bytes | str | Secret | None]:
    """What a restart for these reasons is to bring: the content of each file, the value of each parameter, the key."""
    tree = render(model)
    known: dict[str, bytes | str | Secret | None] = {**parameters(tree), **tree.files, KEY: model.key}
    return {name: known.get(name) for name in reasons}


def _at_start_only(name: str, before: dict[str, str], after: dict[str, str], catalogue: Catalogue) -> bool:
    if name not in after or name.startswith(_FIXED):
        return True
    if name.startswith("backend_flag"):
        return "ALWAYS_PRIMARY" in before.get(name, "") and "ALWAYS_PRIMARY" not in after[name]
    try:
        return catalogue.find(name)[0].context == "INIT"
    except InvalidValueError:
        return True


def turn_seconds(host_name: str, spread: float) -> float:
    """How long this pod waits before it restarts pgpool: the same for a host name each time, in 0 … `spread` seconds.

    The pods of a Deployment see a new Secret within the same minute and a half; they must not all restart at once.
    """
    share = int.from_bytes(hashlib.sha256(host_name.encode()).digest()[:8]) / 2**64
    return share * spread
