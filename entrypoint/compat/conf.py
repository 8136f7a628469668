"""Reads a pgpool.conf that people wrote, in pgpool's way (src/config/pool_config.l)."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(
    r"""\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*)\s*(?:=\s*|\s+|(?='))
        (?:'(?P<string>[^'\n]*)'|(?P<bare>[^\s'\#=][^\s'\#]*))\s*(?:\#.*)?""",
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class Line:
    """One assignment; `value` is None when the line is none."""

    number: int
    name: str
    value: str | None


def lines(content: str) -> Iterator[Line]:
    """Every line of a pgpool.conf that says something, in their order; the last one of a name counts."""
    for number, line in enumerate(content.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip("\r"))
        if match is None:
            yield Line(number, "", None)
        else:
            yield Line(number, match["name"].lower(), match["string"] if match["bare"] is None else match["bare"])
