"""The check of a user's own pool_hba.conf.

pgpool starts with a file it cannot parse and then refuses every login, and it accepts methods that are not
safe beside stored passwords. So every line is read here first, in pgpool's way (src/auth/pool_hba.c).
"""

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

_METHODS = ("scram-sha-256", "cert", "pam", "reject")
_OPTIONS = {"pam": ("pamservice", "pam_use_hostname")}
_UNSAFE = {
    "trust": "lets everybody in as any role whose password pgpool holds",
    "password": "is unsafe in pgpool, and has the password sent in clear text",
    "md5": "does not work with SCRAM on the servers",
}
_TYPES = ("local", "host", "hostssl", "hostnossl")
_MAX_LINE = 8189
"""MAX_LINE, less the line end, the terminator, and the byte whose presence means "too long" to pgpool."""
_MAX_TOKEN = 255


def faults(content: str, *, tls: bool, authority: bool) -> Iterator[tuple[int, str]]:
    """Number and fault of each line that pgpool would refuse, that is unsafe, or that can never match.

    Args:
        content: the file.
        tls: whether pgpool will have a certificate.
        authority: whether it will ask clients for theirs, which it does when it has a ca.crt.
    """
    lines = content.split("\n")
    for number, line in enumerate(lines, start=1):
        fault = _fault(line, tls=tls, authority=authority)
        if fault is not None:
            yield number, fault
    if not any(_fields(line) for line in lines):
        yield 1, "has no line that lets anybody in"


def _fault(line: str, *, tls: bool, authority: bool) -> str | None:
    if "\0" in line or len(line.encode()) > _MAX_LINE:
        return f"is longer than {_MAX_LINE} bytes or holds a NUL character"
    fields = _fields(line)
    if not fields:
        return None
    for field in fields:
        for token in field:
            if len(token.encode()) > _MAX_TOKEN:
                return f"has a word of more than {_MAX_TOKEN} bytes"
            if token.startswith("@"):
                return "includes another file with '@', which pgpool would look for beside the rendered one"
    kind = fields[0][0]
    if len(fields[0]) > 1 or kind not in _TYPES:
        return f"{','.join(fields[0])!r} is not a connection type; there are {', '.join(_TYPES)}"
    if kind == "hostssl" and not tls:
        return "hostssl can never match, because PGPOOL_TLS_DIR is not set"
    rest = fields[3:]
    if kind != "local":
        if not rest:
            return "ends before the address"
        fault, rest = _after_address(rest)
        if fault is not None:
            return fault
    return _method_fault(rest) or _certificate_fault(kind, rest[0], authority=authority)


def _after_address(fields: list[list[str]]) -> tuple[str | None, list[list[str]]]:
    """The fault of the address, if any, and the fields that follow it (and its mask)."""
    address = fields[0][0]
    if len(fields[0]) > 1:
        return "has several addresses; pgpool takes one a line", []
    if "/" in address:
        try:
            ip_network(address, strict=False)
            int(address.partition("/")[2])  # the module reads 10.0.0.0/255.0.0.0, pgpool does not
        except ValueError:
            return f"{address!r} is not an address with a mask", []
        return None, fields[1:]
    try:
        version = ip_address(address).version
    except ValueError:
        if re.fullmatch(r"[0-9.]+", address):  # pgpool reads 10.1 as 10.0.0.1
            return f"{address!r} is not an address", []
        return None, fields[1:]  # a host name, or all, samehost, samenet
    try:
        if ip_address(fields[1][0]).version == version:
            return None, fields[2:]
    except (IndexError, ValueError):
        pass
    return f"the address {address!r} has no mask; write {address}/{32 if version == 4 else 128}", []


def _method_fault(fields: list[list[str]]) -> str | None:
    if not fields:
        return "ends before the authentication method"
    method = ",".join(fields[0])
    if method in _UNSAFE:
        return f"the method {method} {_UNSAFE[method]}; use scram-sha-256"
    if method not in _METHODS:
        return f"{method!r} is not a method; there are {', '.join(_METHODS)}"
    for option in (token for field in fields[1:] for token in field):
        if "=" not in option:
            return f"{option!r} is not an option of the form name=value"
        if option.partition("=")[0] not in _OPTIONS.get(method, ()):
            return f"{option!r} is not an option of the method {method}"
    return None


def _certificate_fault(kind: str, method: list[str], *, authority: bool) -> str | None:
    """Why a client can never have the certificate that its line asks for."""
    if method != ["cert"]:
        return None
    if kind != "hostssl":
        return f"the method cert needs a connection over TLS, which {kind} does not ask for; write hostssl"
    if not authority:
        return "the method cert can never succeed, because there is no ca.crt in PGPOOL_TLS_DIR"
    return None


def _fields(line: str) -> list[list[str]]:
    """The fields of a line, each a list because of commas. After next_token() and next_field_expand()."""
    fields: list[list[str]] = []
    position = 0
    joining = False
    while True:
        while position < len(line) and line[position] in " \t\r,":
            position += 1
        if position == len(line) or line[position] == "#":
            return fields
        token, position, comma = _token(line, position)
        if joining:
            fields[-1].append(token)
        else:
            fields.append([token])
        joining = comma


def _token(line: str, position: int) -> tuple[str, int, bool]:
    """The token that begins at `position`, where it ends, and whether a comma ended it."""
    token: list[str] = []
    quoted = was_quote = False
    while position < len(line):
        character = line[position]
        if not quoted and character in " \t\r#,":
            break
        if character != '"' or was_quote:
            token.append(character)
        was_quote = not was_quote if quoted and character == '"' else False
        if character == '"':
            quoted = not quoted
        position += 1
    return "".join(token), position, position < len(line) and line[position] == ","
