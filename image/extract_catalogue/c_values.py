"""What C's constant expressions stand for."""

import ast
import operator
import re
from collections.abc import Callable, Mapping
from typing import Final

from image.extract_catalogue.c_text import Braces, CatalogueError, Constants, Value, Words

TYPE_WORDS: Final = {"const", "char", "int", "int64", "long", "bool", "double", "*"}

ESCAPES: Final = {"n": "\n", "t": "\t", "\\": "\\", '"': '"', "'": "'"}
ARITHMETIC: Final[Mapping[type[ast.operator], Callable[[float, float], float]]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
}


def without_casts(words: Words) -> Words:
    """The words without `(const char *)` and the like."""
    for start, word in enumerate(words):
        if word == "(" and ")" in words[start:]:
            end = words.index(")", start)
            if words[start + 1 : end] and set(words[start + 1 : end]) <= TYPE_WORDS:
                return without_casts(words[:start] + words[end + 1 :])
    return words


def text_value(value: Value, constants: Constants) -> str | None:
    """The string that an expression stands for; None for NULL."""
    words = without_casts(as_words(value))
    if words == ("NULL",):
        return None
    literals = list(constants.expand(words))
    if not literals or not all(literal.startswith('"') for literal in literals):
        raise CatalogueError(f"not a string: {' '.join(words)}")
    return "".join(re.sub(r"\\(.)", unescape, literal[1:-1]) for literal in literals)


def unescape(match: re.Match[str]) -> str:
    """The character that an escape sequence stands for."""
    if match[1] not in ESCAPES:
        raise CatalogueError(f"unknown escape {match[0]!r} in a string")
    return ESCAPES[match[1]]


def integer_value(value: Value, constants: Constants) -> int:
    """The integer that an expression stands for."""
    number = number_value(value, constants)
    if not isinstance(number, int):
        raise CatalogueError(f"not an integer: {value}")
    return number


def double_value(value: Value, constants: Constants) -> float:
    """The floating-point number that an expression stands for."""
    return float(number_value(value, constants))


def number_value(value: Value, constants: Constants) -> float:
    """The number that an arithmetic expression stands for."""
    words = without_casts(as_words(value))
    expression = " ".join(python_number(word) for word in constants.expand(words))
    try:
        return evaluate(ast.parse(expression, mode="eval").body)
    except (SyntaxError, CatalogueError) as error:
        raise CatalogueError(f"not arithmetic: {' '.join(words)}") from error


def python_number(word: str) -> str:
    """A C token in Python's spelling: octal numbers differ, and suffixes go."""
    if re.fullmatch(r"0[0-7]+[uUlL]*", word):
        return str(int(word.rstrip("uUlL"), 8))
    if re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)[uUlL]*", word):
        return word.rstrip("uUlL")
    return word


def evaluate(node: ast.expr) -> float:
    """The value of an arithmetic expression, by C's rules."""
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -evaluate(operand)
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return divide(evaluate(left), evaluate(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return ARITHMETIC[type(op)](evaluate(left), evaluate(right))
    raise CatalogueError(f"unknown operation {ast.unparse(node)}")


def divide(dividend: float, divisor: float) -> float:
    """C's division: of integers, towards zero."""
    if isinstance(dividend, int) and isinstance(divisor, int):
        quotient = abs(dividend) // abs(divisor)
        return quotient if (dividend < 0) == (divisor < 0) else -quotient
    return dividend / divisor


def boolean_value(value: Value) -> bool:
    """What `true` or `false` stands for."""
    words = as_words(value)
    if words not in {("true",), ("false",)}:
        raise CatalogueError(f"not a boolean: {' '.join(words)}")
    return words == ("true",)


def as_words(value: Value) -> Words:
    """The value, which must not be in braces."""
    if isinstance(value, Braces):
        raise CatalogueError(f"unexpected braces: {value}")
    return value
