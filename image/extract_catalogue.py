#!/usr/bin/env python3
"""Writes the catalogue of pgpool.conf's parameters, read from pgpool-II's own C source.

pgpool accepts unknown parameters in silence and takes any misspelt boolean for true, so the entrypoint checks
every value against this catalogue first. It is generated, never edited: what pgpool accepts is decided by the
ConfigureNames* tables of src/config/pool_config_variables.c, and this script reads those.

Whatever it does not understand - a new kind of table, a new field, an unknown flag or macro - is an error.
It never guesses.

What a parameter may say (a key is left out where it would say nothing):
  type            bool | int | long | double | string | string_list | enum
  context         when it can change: INIT (at start only) | RELOAD | SESSION (by PGPOOL SET too) | BOOT | PCP
  default         none where pgpool has no value (NULL), or only a mark for an unused slot (backend_port: 0)
  min, max        the range, both included
  options         the names of an enum; hidden_options are accepted too, but not advertised
  unit            the unit of a bare number; a value may then carry a suffix (ms s min h d, or B kB MB GB TB)
  separator       between the elements of a string_list
  index_max       the name takes an index, 0 to this number: backend_hostname0
  bare            true: the name is also accepted without its index, as the default of all indexes
  bare_unit       the unit of that index-free form; without it that form takes no suffix, whatever `unit` says
  secret          true: never print the value
  description     pgpool's own words
"""

import argparse
import ast
import difflib
import json
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

TABLES_SOURCE: Final = "src/config/pool_config_variables.c"
STRUCTS_SOURCE: Final = "src/include/pool_config_variables.h"
CONSTANTS_SOURCES: Final = "src/include"

OPTIONS_STRUCT: Final = "config_enum_entry"
GROUPS_STRUCT: Final = "config_grouped_array_var"  # names for SHOW POOL_STATUS to group by; no parameters
INDEX_FREE_FIELD: Final = "config_no_index"

CONTEXTS: Final = {"CFGCXT_BOOT", "CFGCXT_INIT", "CFGCXT_RELOAD", "CFGCXT_PCP", "CFGCXT_SESSION"}
UNITS: Final = {
    "GUC_UNIT_BYTE": "B",
    "GUC_UNIT_KB": "kB",
    "GUC_UNIT_MB": "MB",
    "GUC_UNIT_MS": "ms",
    "GUC_UNIT_S": "s",
    "GUC_UNIT_MIN": "min",
}
HIDDEN_VALUE: Final = "VAR_HIDDEN_VALUE"
FLAGS_WITHOUT_MEANING_HERE: Final = {
    "VAR_PART_OF_GROUP",
    "VAR_HIDDEN_IN_SHOW_ALL",
    "VAR_NO_RESET_ALL",
    "ARRAY_VAR_ALLOW_NO_INDEX",  # set by pgpool itself wherever the index-free record has a name
    "DEFAULT_FOR_NO_VALUE_ARRAY_VAR",
}

# Where pgpool's VAR_HIDDEN_VALUE does not say what we need to know.
HIDDEN_BUT_NO_SECRET: Final = {"pool_passwd": "the name of a file; the passwords are in the file"}
SECRET_BUT_NOT_HIDDEN: Final = {"wd_authkey": "the key that authenticates watchdog messages, in the clear"}
LOOKS_SECRET: Final = re.compile(r"passw|secret|authkey")

LIMITS: Final = {  # <limits.h> on every platform we build for (LP64)
    "INT_MAX": str(2**31 - 1),
    "LONG_MAX": str(2**63 - 1),
}
TYPE_WORDS: Final = {"const", "char", "int", "int64", "long", "bool", "double", "*"}


class CatalogueError(Exception):
    """The source has a shape this script does not understand."""


# --- C text -------------------------------------------------------------------------------------------------

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


# --- what the source defines --------------------------------------------------------------------------------


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


def read_constants(source: Path) -> Constants:
    """Every macro of the headers and of the file with the tables."""
    constants = Constants()
    for path in [*sorted((source / CONSTANTS_SOURCES).rglob("*.h")), source / TABLES_SOURCE]:
        constants.add_from(read_c(path))
    return constants


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


# --- values -------------------------------------------------------------------------------------------------

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


# --- records of the tables ----------------------------------------------------------------------------------

Json: TypeAlias = bool | int | float | str | list[str]
Parameter: TypeAlias = dict[str, Json]
Record: TypeAlias = Mapping[str, Value]  # the initialisers, by the names of the struct's fields


@dataclass(frozen=True)
class Kind:
    """How the records of one kind of table are read."""

    type: str
    used: frozenset[str]  # fields that decide something here
    index_free: str | None = None  # the struct of the record within that describes the name without its index

    @property
    def indexed(self) -> bool:
        """Whether the names of such a table carry an index."""
        return self.index_free is not None


PLAIN: Final = frozenset({"gen", "boot_val"})
RANGE: Final = PLAIN | {"min", "max"}
KINDS: Final = {
    "config_bool": Kind("bool", PLAIN),
    "config_int": Kind("int", RANGE),
    "config_long": Kind("long", RANGE),
    "config_double": Kind("double", RANGE),
    "config_string": Kind("string", PLAIN),
    "config_string_list": Kind("string_list", PLAIN | {"separator"}),
    "config_enum": Kind("enum", PLAIN | {"options"}),
    "config_int_array": Kind("int", RANGE | {INDEX_FREE_FIELD}, "config_int"),
    "config_double_array": Kind("double", RANGE | {INDEX_FREE_FIELD}, "config_double"),
    "config_string_array": Kind("string", PLAIN | {INDEX_FREE_FIELD}, "config_string"),
}
GENERIC: Final = Kind("", frozenset({"name", "context", "description", "flags", "max_elements"}))
MAY_BE_ABSENT: Final = {"max_elements"}  # 0 then, as C has it
FIELDS_WITHOUT_MEANING_HERE: Final = {
    # where pgpool keeps the value, and what it does with it
    *("variable", "list_elements_count", "compute_regex", "reset_val", "reset_vals", "current_val"),
    *("assign_func", "check_func", "process_func", "show_hook", "empty_slot_check_func"),
    # of config_generic; pgpool sets vartype and dynamic_array_var itself, by the table a record is in
    *("group", "vartype", "dynamic_array_var"),
    *("status", "sourceline", "sources", "reset_sources", "scontexts"),
}
TYPES_WITH_UNITS: Final = {"int", "long"}
# pgpool reads a long through a double: its own maximum, LONG_MAX, becomes 2**63, overflows and is refused.
LARGEST_LONG: Final = 2**63 - 1024


class Extractor:
    """Turns the records of the tables into parameters."""

    def __init__(self, structs: Mapping[str, list[str]], constants: Constants, options: Mapping[str, Braces]) -> None:
        self._structs = structs
        self._constants = constants
        self._options = options

    def parameters_of(self, struct: str, table: Braces) -> Iterator[tuple[str, Parameter]]:
        """The names and parameters of one table."""
        for position, item in enumerate(table.items):
            fields = self._fields(struct, item)
            name = self._name(fields)
            if name is None:
                if position != len(table.items) - 1:
                    raise CatalogueError("records behind the end marker")
                return
            try:
                yield name, self._parameter(name, KINDS[struct], fields)
            except CatalogueError as error:
                raise CatalogueError(f"{name}: {error}") from error
        raise CatalogueError("no end marker")

    def _fields(self, struct: str, item: Value) -> dict[str, Value]:
        """The initialisers of a record, by the names of the fields."""
        kind = GENERIC if struct == "config_generic" else KINDS[struct]
        names = self._structs.get(struct, [])
        if missing := kind.used.difference(names):
            raise CatalogueError(f"struct {struct} has no {', '.join(sorted(missing))}")
        if unknown := set(names) - kind.used - FIELDS_WITHOUT_MEANING_HERE:
            raise CatalogueError(f"struct {struct} has an unknown field {', '.join(sorted(unknown))}")
        values = self._braces(item).items
        if len(values) > len(names):
            raise CatalogueError(f"{len(values)} values for the {len(names)} fields of {struct}: {values}")
        if absent := kind.used - MAY_BE_ABSENT - set(names[: len(values)]):
            raise CatalogueError(f"no value for {', '.join(sorted(absent))} of {struct}")
        return dict(zip(names, values, strict=False))

    def _braces(self, item: Value) -> Braces:
        """The initialiser in braces, perhaps behind a macro such as EMPTY_CONFIG_INT."""
        if isinstance(item, Braces):
            return item
        match item:
            case [macro] if IDENTIFIER.fullmatch(macro):
                tokens = list(self._constants.body(macro))
                if tokens[:1] == ["{"]:
                    return parse_braces(tokens, 0)[0]
        raise CatalogueError(f"expected a record in braces instead of {' '.join(item)}")

    def _generic(self, fields: Record) -> dict[str, Value]:
        return self._fields("config_generic", fields["gen"])

    def _name(self, fields: Record) -> str | None:
        return text_value(self._generic(fields)["name"], self._constants)

    def _parameter(self, name: str, kind: Kind, fields: Record) -> Parameter:
        generic = self._generic(fields)
        flags = read_flags(generic["flags"])
        parameter: Parameter = {"type": kind.type, "context": read_context(generic["context"])}
        parameter |= self._values(kind, fields)
        if unit := unit_of(kind, flags):
            parameter["unit"] = unit
        if kind.indexed:
            parameter |= self._index(name, kind, fields, parameter)
        if is_secret(name, flags):
            parameter["secret"] = True
        if description := text_value(generic["description"], self._constants):
            parameter["description"] = description
        return parameter

    def _values(self, kind: Kind, fields: Record) -> Parameter:
        """What a value may be, and the default."""
        boot = fields["boot_val"]
        match kind.type:
            case "bool":
                return {"default": boolean_value(boot)}
            case "int":
                return self._range(kind, fields, integer_value)
            case "long":
                values = self._range(kind, fields, integer_value)
                return values | {"max": min(integer_value(fields["max"], self._constants), LARGEST_LONG)}
            case "double":
                return self._range(kind, fields, double_value)
            case "enum":
                return self._enum(boot, as_words(fields["options"]))
        text = text_value(boot, self._constants)
        values = {} if text is None else {"default": text}
        if kind.type == "string_list":
            separator = text_value(fields["separator"], self._constants)
            if not separator:
                raise CatalogueError("a list without a separator")
            values["separator"] = separator
        return values

    def _range(self, kind: Kind, fields: Record, number: Callable[[Value, Constants], float]) -> Parameter:
        default, low, high = (number(fields[field], self._constants) for field in ("boot_val", "min", "max"))
        if low <= default <= high:
            return {"default": default, "min": low, "max": high}
        if not kind.indexed:
            raise CatalogueError(f"the default {default} is not within {low} and {high}")
        return {"min": low, "max": high}  # marks a slot that is not used: nobody could write this value

    def _enum(self, boot: Value, table: Words) -> Parameter:
        """The names of an enum, and the one that is the default."""
        if len(table) != 1 or table[0] not in self._options:
            raise CatalogueError(f"unknown table of options {' '.join(table)}")
        entries = [self._option(item) for item in self._options[table[0]].items]
        if not entries or entries[-1][0] is not None or any(name is None for name, _, _ in entries[:-1]):
            raise CatalogueError(f"{table[0]}: expected one end marker, at the end")
        shown = [name for name, _, hidden in entries if name is not None and not hidden]
        hidden_names = [name for name, _, hidden in entries if name is not None and hidden]
        defaults = [name for name, constant, hidden in entries if name and constant == boot and not hidden]
        if len(defaults) != 1:
            raise CatalogueError(f"the default {boot} is {len(defaults)} times in {table[0]}")
        values: Parameter = {"default": defaults[0], "options": shown}
        return values | {"hidden_options": hidden_names} if hidden_names else values

    def _option(self, item: Value) -> tuple[str | None, Words, bool]:
        """Name, constant and hiddenness of one option."""
        names = self._structs.get(OPTIONS_STRUCT)
        if names != ["name", "val", "hidden"]:
            raise CatalogueError(f"struct {OPTIONS_STRUCT} has the fields {names}")
        match self._braces(item).items:
            case (name, constant, hidden):
                return text_value(name, self._constants), as_words(constant), boolean_value(hidden)
        raise CatalogueError(f"expected a name, a constant and whether it is hidden: {item}")

    def _index(self, name: str, kind: Kind, fields: Record, parameter: Parameter) -> Parameter:
        """How far the index goes, and whether the name is accepted without one."""
        elements = integer_value(self._generic(fields).get("max_elements", ("0",)), self._constants)
        if elements < 1:
            raise CatalogueError(f"an array of {elements} elements")
        index: Parameter = {"index_max": elements - 1}
        assert kind.index_free is not None
        bare = self._fields(kind.index_free, fields[INDEX_FREE_FIELD])
        bare_name = self._name(bare)
        if bare_name is None:
            return index
        values = self._values(KINDS[kind.index_free], bare)
        if bare_name != name or values != {key: parameter[key] for key in values if key in parameter}:
            raise CatalogueError(f"the form without an index differs: {bare_name} {values}")
        index["bare"] = True
        if unit := unit_of(kind, read_flags(self._generic(bare)["flags"])):
            index["bare_unit"] = unit
        return index


def read_context(value: Value) -> str:
    """CFGCXT_RELOAD as RELOAD."""
    words = as_words(value)
    if len(words) != 1 or words[0] not in CONTEXTS:
        raise CatalogueError(f"unknown context {' '.join(words)}")
    return words[0].removeprefix("CFGCXT_")


def read_flags(value: Value) -> set[str]:
    """The names of the flags that are set."""
    words = as_words(value)
    if words == ("0",):
        return set()
    flags, separators = set(words[::2]), set(words[1::2])
    if unknown := flags - FLAGS_WITHOUT_MEANING_HERE - UNITS.keys() - {HIDDEN_VALUE}:
        raise CatalogueError(f"unknown flag {', '.join(sorted(unknown))}")
    if separators - {"|"}:
        raise CatalogueError(f"unknown combination of flags {' '.join(words)}")
    return flags


def unit_of(kind: Kind, flags: set[str]) -> str | None:
    """The unit that the flags declare."""
    units = sorted(flags & UNITS.keys())
    if not units:
        return None
    if len(units) > 1 or kind.type not in TYPES_WITH_UNITS:
        raise CatalogueError(f"type {kind.type} with the unit {', '.join(units)}")
    return UNITS[units[0]]


def is_secret(name: str, flags: set[str]) -> bool:
    """Whether the value must not be shown."""
    if name in HIDDEN_BUT_NO_SECRET:
        return False
    if HIDDEN_VALUE in flags or name in SECRET_BUT_NOT_HIDDEN:
        return True
    if LOOKS_SECRET.search(name):
        raise CatalogueError(f"is it a secret? It is not {HIDDEN_VALUE}: decide it in {Path(__file__).name}")
    return False


# --- the catalogue ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Catalogue:
    """The parameters of one release."""

    release: str
    parameters: Mapping[str, Parameter]

    @property
    def minor(self) -> str:
        """4.6 of pgpool-II-4.6.1."""
        return minor_of(self.release)

    def text(self) -> str:
        """The catalogue as JSON, one parameter on each line."""
        lines = [f"{quoted(name)}: {quoted(self.parameters[name])}" for name in sorted(self.parameters)]
        head = f'"pgpool": {quoted(self.minor)},\n"generated_from": {quoted(self.release)},'
        return f'{{\n{head}\n"parameters": {{\n' + ",\n".join(lines) + "\n}}\n"


def quoted(value: object) -> str:
    """A value as JSON on one line."""
    return json.dumps(value, ensure_ascii=False)


def minor_of(release: str) -> str:
    """4.6 of pgpool-II-4.6.1."""
    match = re.fullmatch(r"pgpool-II-(\d+\.\d+).*", release)
    if match is None:
        raise CatalogueError(f"unknown shape of a version: {release}")
    return match[1]


def read_release(source: Path) -> str:
    """The release that the source says it is, such as pgpool-II-4.6.1."""
    match = re.search(r"AC_INIT\(\[?pgpool-II\]?,\s*\[?([\w.]+)", read_text(source / "configure.ac"))
    if match is None:
        raise CatalogueError("configure.ac: no AC_INIT with pgpool-II's version")
    return f"pgpool-II-{match[1]}"


def read_text(path: Path) -> str:
    """The text of a file that must be there."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror}") from error


def read_c(path: Path) -> str:
    """The text of a C file, without its comments."""
    return without_comments(read_text(path))


def extract(source: Path) -> Catalogue:
    """The catalogue of the release whose source is in a directory."""
    tables = list(read_tables(read_c(source / TABLES_SOURCE)))
    options = {name: table for struct, name, table in tables if struct == OPTIONS_STRUCT}
    extractor = Extractor(read_structs(read_c(source / STRUCTS_SOURCE)), read_constants(source), options)
    parameters: dict[str, Parameter] = {}
    for struct, table_name, table in tables:
        if struct in {OPTIONS_STRUCT, GROUPS_STRUCT}:
            continue
        if struct not in KINDS:
            raise CatalogueError(f"{table_name}: unknown kind of table, struct {struct}")
        try:
            for name, parameter in extractor.parameters_of(struct, table):
                add(parameters, name, parameter)
        except CatalogueError as error:
            raise CatalogueError(f"{table_name}: {error}") from error
    if not parameters:
        raise CatalogueError(f"{TABLES_SOURCE}: no parameters found")
    return Catalogue(read_release(source), parameters)


def add(parameters: dict[str, Parameter], name: str, parameter: Parameter) -> None:
    """Adds a parameter.

    A name may come a second time with an empty default and nothing else new: backend_flag does, which pgpool
    declares once for each flag it can hold.
    """
    first = parameters.setdefault(name, parameter)
    if first is not parameter and first | {"default": ""} != parameter:
        raise CatalogueError(f"{name} is there twice, and differs")


def differences(catalogue: Catalogue, path: Path) -> str:
    """What a file would change when it was generated again, as a unified diff.

    The patch release it was generated from does not count: one catalogue serves all of a minor release.
    """
    committed = read_text(path)
    recorded = re.search(r'"generated_from": "(pgpool-II-[^"]*)"', committed)
    if recorded and minor_of(recorded[1]) == catalogue.minor:
        catalogue = Catalogue(recorded[1], catalogue.parameters)
    lines = difflib.unified_diff(
        committed.splitlines(keepends=True),
        catalogue.text().splitlines(keepends=True),
        fromfile=str(path),
        tofile="generated from the source",
        n=0,
    )
    return "".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("source", type=Path, metavar="SOURCE_DIR", help="an unpacked release of pgpool-II")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("-o", "--output", type=Path, metavar="FILE", help="write there, not to standard output")
    what.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="write nothing; exit 1 and show what differs in FILE, its patch release apart",
    )
    options = parser.parse_args(arguments)
    try:
        catalogue = extract(options.source)
        if options.check is not None:
            difference = differences(catalogue, options.check)
            print(difference, end="")
            return 1 if difference else 0
        if options.output is not None:
            options.output.write_text(catalogue.text(), encoding="utf-8")
        else:
            print(catalogue.text(), end="")
    except CatalogueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
