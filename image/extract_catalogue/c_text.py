"""C text, as far as tables are written in it: macros, structs, and initialisers in braces."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

LIMITS: Final = {  # <limits.h> on every platform we build for (LP64)
    "INT_MAX": str(2**31 - 1),
    "LONG_MAX": str(2**63 - 1),
}


class CatalogueError(Exception):
    """The source has a shape this script does not understand."""


Words: TypeAlias = tuple[str, ...]  # the tokens of one expression
Value: TypeAlias = "Words | Braces"


@dataclass(frozen=True)
class Braces:
    """An initialiser in braces."""

    items: tuple[Value, ...]


STRING: Final = r'"(?:\\.|[^"\\\n])*"'
CHARACTER: Final = r"'(?:\\.|[^'\\\n])*'"
COMMENT: Final = re.compile(rf"({STRING}|{CHARACTER})|/\*.*?\*/|//[^\n]*", re.DOTALL)
TOKEN: Final = re.compile(
    rf"(?P<blank>\s+)|{STRING}|{CHARACTER}|^\#\s*\w+(?:\\\n|[^\n])*|\.?\d(?:[eE][+-]|[\w.])*|\w+|.",
    re.MULTILINE,
)
DEFINE: Final = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(\(?)((?:\\\n|[^\n])*)", re.MULTILINE)
STRUCT: Final = re.compile(r"\bstruct\s+(config_\w+)\s*\{(.*?)\}\s*;", re.DOTALL)
FIELD: Final = re.compile(r"[\w\s*]*[\s*](\w+)")
IDENTIFIER: Final = re.compile(r"[A-Za-z_]\w*")


def without_comments(text: str) -> str:
    """The text with each comment replaced by a space."""
    return COMMENT.sub(lambda match: match[1] or " ", text)


def tokens_of(text: str) -> list[str]:
    """The tokens of C text without comments; a preprocessor directive is one token."""
    return [match[0] for match in TOKEN.finditer(text) if match["blank"] is None]


def parse_braces(tokens: list[str], start: int) -> tuple[Braces, int]:
    """Reads the initialiser whose opening brace is at `start`; also says where the text goes on behind it."""
    items: list[Value] = []
    position = start + 1
    while tokens[position] != "}":
        item: Value
        if tokens[position] == "{":
            item, position = parse_braces(tokens, position)
        else:
            item, position = parse_words(tokens, position)
        items.append(item)
        if tokens[position] == ",":
            position += 1
        elif tokens[position] != "}":
            raise CatalogueError(f"expected ',' or '}}' instead of {tokens[position]!r} after {item}")
    return Braces(tuple(items)), position + 1


def parse_words(tokens: list[str], start: int) -> tuple[Words, int]:
    """Reads one expression, up to the comma or brace that ends it."""
    depth = 0
    position = start
    while depth > 0 or tokens[position] not in {",", "}"}:
        token = tokens[position]
        if token.startswith("#"):
            raise CatalogueError(f"the preprocessor changes a table: {token}")
        if token in {"{", "=", ";"}:
            raise CatalogueError(f"unexpected {token!r} after {' '.join(tokens[start:position])!r}")
        depth += {"(": 1, ")": -1}.get(token, 0)
        position += 1
    return tuple(tokens[start:position]), position


class Constants:
    """The object-like macros of the source."""

    def __init__(self) -> None:
        self._bodies: dict[str, set[Words]] = {}
        self._with_arguments: set[str] = set()

    def add_from(self, text: str) -> None:
        """Remembers every #define of a file."""
        for name, parenthesis, body in DEFINE.findall(text):
            if parenthesis:
                self._with_arguments.add(name)
            else:
                self._bodies.setdefault(name, set()).add(tuple(tokens_of(body.replace("\\\n", " "))))

    def body(self, name: str) -> Words:
        """What a macro stands for."""
        if name in LIMITS:
            return (LIMITS[name],)
        if name in self._with_arguments:
            raise CatalogueError(f"{name} is a macro with arguments")
        bodies = self._bodies.get(name, set())
        if not bodies:
            raise CatalogueError(f"unknown macro {name}")
        if len(bodies) > 1:
            raise CatalogueError(f"{name} is defined as {' or as '.join(sorted(map(' '.join, bodies)))}")
        return next(iter(bodies))

    def expand(self, words: Words, within: frozenset[str] = frozenset()) -> Iterator[str]:
        """The words with every macro replaced, as often as it takes."""
        for word in words:
            if not IDENTIFIER.fullmatch(word):
                yield word
            elif word in within:
                raise CatalogueError(f"{word} is defined by itself")
            else:
                yield from self.expand(self.body(word), within | {word})


def read_structs(text: str) -> dict[str, list[str]]:
    """The names of the fields of every `struct config_*`, in their order."""
    return {
        name: [field_name(declaration) for declaration in body.split(";")[:-1]] for name, body in STRUCT.findall(text)
    }


def field_name(declaration: str) -> str:
    """The name that a declaration of one field declares."""
    match = FIELD.fullmatch(declaration.strip())
    if match is None:
        raise CatalogueError(f"unknown shape of a struct's field: {declaration.strip()!r}")
    return match[1]


def read_tables(text: str) -> Iterator[tuple[str, str, Braces]]:
    """The struct, the name and the initialiser of every `struct config_X NAME[] = {...}`."""
    tokens = tokens_of(text)
    for position in range(len(tokens) - 6):
        match tokens[position : position + 7]:
            case ["struct", struct, name, "[", "]", "=", "{"] if struct.startswith("config_"):
                try:
                    yield struct, name, parse_braces(tokens, position + 6)[0]
                except CatalogueError as error:
                    raise CatalogueError(f"{name}: {error}") from error
                except IndexError as error:
                    raise CatalogueError(f"{name}: a closing brace is missing") from error
