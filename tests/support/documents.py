"""The commands that the documents tell people to type."""

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).parents[2]

_BREAKS = set("();<>|&")
_KEYWORDS = {"do", "done", "then", "fi", "else"}
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


@dataclass(frozen=True)
class Block:
    """One fenced block."""

    document: str
    section: str
    """The heading that it stands under."""
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Command:
    """One simple command: a program with its arguments, or assignments alone."""

    place: str
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return "=" if _ASSIGNMENT.match(self.words[0]) else self.words[0]

    @property
    def document(self) -> str:
        return self.place.partition(":")[0]


def documents() -> list[str]:
    """All that people read; the list of changes and licences are not for typing."""
    directories = (".", "docs", "deploy", "image")
    found = (path for each in directories for path in sorted((PROJECT / each).glob("*.md")))
    return [str(path.relative_to(PROJECT)) for path in found if path.name != "CHANGELOG.md"]


@cache
def blocks() -> tuple[Block, ...]:
    """All fenced blocks of all documents."""
    return tuple(block for document in documents() for block in _blocks_of(document))


def _blocks_of(document: str) -> Iterator[Block]:
    section, fence, begin, lines = "", None, 0, list[str]()
    for number, line in enumerate((PROJECT / document).read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):  # in a list, it is indented
            if fence is None:
                fence, begin, lines = line.strip()[3:], number, []
            else:
                yield Block(document, section, begin, fence, textwrap.dedent("\n".join(lines)))
                fence = None
        elif fence is not None:
            lines.append(line)
        elif line.startswith("#"):
            section = line.lstrip("# ")
    assert fence is None, f"{document}:{begin} is not closed"


def block(document: str, section: str, language: str, number: int = 0) -> str:
    """The text of one, by its heading; of several under one heading, that number."""
    found = [
        each.text for each in blocks() if (each.document, each.section, each.language) == (document, section, language)
    ]
    return found[number]


@cache
def commands() -> tuple[Command, ...]:
    """Every simple command of every shell block, those in `$(…)` among them."""
    shell = (each for each in blocks() if each.language == "sh")
    return tuple(Command(each.place, words) for each in shell for words in simple_commands(each.text))


def spans(program: str) -> list[Command]:
    """The commands of a program that stand within a line, without words that are optional or have an ellipsis.

    An ellipsis alone makes it a sketch, which nobody types. Pages that a program writes have such names as headings.
    """
    found = []
    for document in documents():
        text = (PROJECT / document).read_text()
        for number, line in enumerate([] if "<!-- Written by" in text else text.splitlines(), 1):
            for span in re.findall(rf"`({re.escape(program)} [^`]+)`", line):
                plain = re.sub(r"\[[^]]*\]|\S*…\S*", "", span.replace("\\|", "|"))
                if "…" not in span.split():
                    found += [Command(f"{document}:{number}", words) for words in simple_commands(plain)]
    return found


def simple_commands(text: str) -> list[tuple[str, ...]]:
    """Split a script where pipes, lists, subshells and redirections do; keywords and loops' lists are left out."""
    found: list[list[str]] = []
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        found.append([])
        redirected, inner = False, list[list[str]]()
        for word in lexer:
            if set(word) <= _BREAKS:
                redirected = "<" in word or ">" in word
                if not redirected:
                    found.append([])
            elif redirected:
                redirected = False
            else:
                found[-1].append(word)
                inner += [list(each) for quoted in re.findall(r"\$\((.*?)\)", word) for each in simple_commands(quoted)]
        found += inner
    return [tuple(words) for words in map(_without_keywords, found) if words]


def _without_keywords(words: list[str]) -> list[str]:
    while words and words[0] in _KEYWORDS:
        words = words[1:]
    return [] if words[:1] == ["for"] or words == ["$"] else words
