"""How numbers are said."""

import sys
import textwrap


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def verdict(value: float, goal: float, unit: str, digits: int) -> str:
    met = "met" if value <= goal else "MISSED"
    return f"{value:.{digits}f} {unit}; the goal of {goal:g} {unit} is {met}"


def progress(words: str) -> None:
    """For whoever waits; the report itself goes to standard output."""
    print(f"bench: {words}", file=sys.stderr, flush=True)


def paragraph(words: str) -> str:
    return textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False)
