"""From the text of a setting to its value. Each function raises InvalidValueError."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from entrypoint.catalogue import InvalidValueError
from entrypoint.secret import Secret

MAX_PCP_PASSWORD_BYTES = 120
"""The pcp tools read a line of 320 bytes from PCPPASSFILE (LINELEN, src/libs/pcp/pcp.c), escapes included."""
MIN_PERIOD_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Patroni:
    """Where the sidecar asks for the leader; no URLs while enabled means port 8008 of each backend."""

    enabled: bool
    urls: tuple[str, ...] = ()


def absolute_path(value: str) -> Path:
    """A path that begins with /."""
    path = Path(value)
    if not path.is_absolute():
        raise InvalidValueError("is not an absolute path", "begin it with /")
    if "\0" in value or "\n" in value:
        raise InvalidValueError("contains a line end or a NUL character", "write the path alone")
    return path


def name(value: str) -> str:
    """The name of a role or a database."""
    if not value.isprintable():
        raise InvalidValueError("contains a line end or another control character", "give the name alone")
    return value


def pcp_user(value: str) -> str:
    """A name that pcp.conf and .pcppass can hold: they do not agree on how ':' and blanks are escaped."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", value):
        raise InvalidValueError(
            "is not a PCP user name", "use at most 63 letters, digits, '.', '_' or '-', such as pgpool"
        )
    return value


def pcp_password(value: str) -> Secret:
    """A password that the pcp tools can read."""
    if not value.isprintable():
        raise InvalidValueError("contains a line end or another control character", "choose another password")
    if len(value.encode()) > MAX_PCP_PASSWORD_BYTES:
        raise InvalidValueError(
            f"is longer than {MAX_PCP_PASSWORD_BYTES} bytes, which the pcp tools cannot read",
            "choose a shorter password",
        )
    return Secret(value)


def patroni(value: str) -> Patroni:
    """`on`, `off` or URLs, separated by commas or blanks."""
    if value in ("on", "off"):
        return Patroni(value == "on")
    urls = tuple(url.rstrip("/") for url in re.split(r"[,\s]+", value) if url)
    if not urls or not all(re.fullmatch(r"https?://[^\s/?#@]+", url) for url in urls):
        raise InvalidValueError(
            "is neither on, off nor a list of URLs", "write on, off, or http://HOST:8008 for each node"
        )
    return Patroni(enabled=True, urls=urls)


def address(value: str) -> tuple[str, int]:
    """Host, or nothing, and port; an IPv6 address loses its brackets."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})", value)
    if match is None or not 0 < int(match[2]) < 65536:
        raise InvalidValueError("is not an address", "write [HOST]:PORT, such as :9719 or 127.0.0.1:9719")
    return match[1].strip("[]"), int(match[2])


def duration(value: str) -> float:
    """Seconds."""
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|min|h)", value)
    if match is None:
        raise InvalidValueError("is not a duration", "write a whole number with a unit: ms, s, min or h")
    return int(match[1]) * {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}[match[2]]


def period(value: str) -> float:
    """Seconds between two of something that would keep a CPU busy if it never rested."""
    seconds = duration(value)
    if seconds < MIN_PERIOD_SECONDS:
        raise InvalidValueError("is too short", f"write at least {MIN_PERIOD_SECONDS * 1000:.0f}ms")
    return seconds


def choice(what: str, *words: str) -> Callable[[str], str]:
    """Takes one of these words; `what` they are."""

    def parse(value: str) -> str:
        if value not in words:
            raise InvalidValueError(f"is not {what}", f"write {', '.join(words[:-1])} or {words[-1]}")
        return value

    return parse
