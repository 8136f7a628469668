"""The grammar of PGPOOL_BACKENDS: `name=host[:port][?weight=1&flag=…]`, separated by commas or blanks."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from entrypoint.secret import may_hold_password

DEFAULT_PORT = 5432
MAX_BACKENDS = 128
"""pgpool's MAX_NUM_BACKENDS (src/include/pool_type.h); node ids run from 0 to 127."""

MAX_NAME_BYTES = 62
MAX_HOST_BYTES = 252
"""pgpool cuts longer names silently (BackendAppNameAssignFunc, BackendHostAssignFunc)."""

FLAGS = ("ALLOW_TO_FAILOVER", "DISALLOW_TO_FAILOVER", "ALWAYS_PRIMARY")

_ENTRY = re.compile(
    r"(?P<name>[^=\s]+)=(?P<host>\[[^\]]*\]|[^:?\[\]]*)(?::(?P<port>[^?]*))?(?:\?(?P<options>.*))?", re.DOTALL
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?\.?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """One PostgreSQL server; its place in the list is its node id."""

    name: str
    host: str
    port: int = DEFAULT_PORT
    weight: float = 1.0
    flags: tuple[str, ...] = ("ALLOW_TO_FAILOVER",)


class BackendsError(ValueError):
    """The list is not usable; `faults` has one sentence for each thing that is wrong."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("; ".join(faults))
        self.faults = faults


def parse_backends(value: str) -> tuple[Backend, ...]:
    """The backends in the order given. Raises BackendsError with every fault found."""
    if may_hold_password(value):  # whole, for a comma in the password would tear it in two
        raise BackendsError(["has '@' or '://' in it: a server is neither a URL nor has it a user"])
    faults: list[str] = []
    backends: list[Backend] = []
    entries = [entry for entry in re.split(r"[,\s]+", value) if entry]
    for entry in entries:
        try:
            backends.append(_parse_entry(entry))
        except BackendsError as error:
            faults += [f"{entry!r}: {fault}" for fault in error.faults]
    if not entries:
        faults.append("names no backend")
    if len(entries) > MAX_BACKENDS:
        faults.append(f"names {len(entries)} backends; pgpool takes {MAX_BACKENDS}")
    faults += _repeated("name", [backend.name for backend in backends])
    faults += _repeated("address", [f"{backend.host}:{backend.port}" for backend in backends])
    if sum("ALWAYS_PRIMARY" in backend.flags for backend in backends) > 1:
        faults.append("more than one backend has the flag ALWAYS_PRIMARY")
    if faults:
        raise BackendsError(faults)
    return tuple(backends)


def _parse_entry(entry: str) -> Backend:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise BackendsError(["is not of the form name=host[:port]"])
    faults: list[str] = []
    name, host = match["name"], match["host"]
    if not _NAME.fullmatch(name) or len(name.encode()) > MAX_NAME_BYTES:
        faults.append(f"the name must be letters, digits, '.', '_' or '-', at most {MAX_NAME_BYTES}")
    if host.startswith("["):
        host = host[1:-1]
        try:
            IPv6Address(host)
        except AddressValueError:
            faults.append("what stands in brackets is not an IPv6 address")
    elif not _HOST.fullmatch(host) or len(host) > MAX_HOST_BYTES:
        faults.append("the host is neither a host name nor an address (IPv6 goes in brackets)")
    elif re.fullmatch(r"[0-9.]+", host):
        try:
            IPv4Address(host)  # the resolver reads 10.1 as 10.0.0.1, and 10.0.0.300 as a name
        except AddressValueError:
            faults.append("the host has digits and dots only, but is not an IPv4 address")
    port = DEFAULT_PORT if match["port"] is None else _port(match["port"], faults)
    weight, flags = _options(match["options"], faults)
    if faults:
        raise BackendsError(faults)
    return Backend(name=name, host=host, port=port, weight=weight, flags=flags)


def _port(text: str, faults: list[str]) -> int:
    # pgpool refuses ports below 1024 for its backends (the range of backend_port).
    if re.fullmatch(r"[1-9][0-9]{3,4}", text) and 1024 <= int(text) <= 65535:
        return int(text)
    faults.append(f"the port {text!r} is not a number from 1024 to 65535")
    return DEFAULT_PORT


def _options(text: str | None, faults: list[str]) -> tuple[float, tuple[str, ...]]:
    weight = 1.0
    flags: tuple[str, ...] = ("ALLOW_TO_FAILOVER",)
    seen: set[str] = set()
    for option in text.split("&") if text is not None else ():
        key, _, value = option.partition("=")
        if key in seen:
            faults.append(f"the option {key} is given twice")
        seen.add(key)
        if key == "weight":
            if not re.fullmatch(r"[0-9]{1,8}(\.[0-9]{1,6})?", value):
                faults.append(f"the weight {value!r} is not a number of 0 or more")
            else:
                weight = float(value)
        elif key == "flag":
            flags = tuple(value.split("|"))
            if unknown := [flag for flag in flags if flag not in FLAGS]:
                faults.append(f"{unknown[0]!r} is not a flag; there are {', '.join(FLAGS)}, joined by '|'")
            if {"ALLOW_TO_FAILOVER", "DISALLOW_TO_FAILOVER"} <= set(flags):
                faults.append("ALLOW_TO_FAILOVER and DISALLOW_TO_FAILOVER exclude each other")
        else:
            faults.append(f"{key!r} is not an option; there are weight and flag")
    return weight, flags


def _repeated(what: str, values: list[str]) -> list[str]:
    return [f"the {what} {value!r} is given twice" for value in sorted({v for v in values if values.count(v) > 1})]
