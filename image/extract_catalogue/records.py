"""From a record of one of pgpool's tables to a parameter of the catalogue."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from image.extract_catalogue.c_text import IDENTIFIER, Braces, CatalogueError, Constants, Value, Words, parse_braces
from image.extract_catalogue.c_values import as_words, boolean_value, double_value, integer_value, text_value

OPTIONS_STRUCT: Final = "config_enum_entry"
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
