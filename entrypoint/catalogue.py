"""pgpool's own parameters, per minor version, and the check of a value against them.

pgpool is no help here: it accepts unknown names, takes every unrecognised boolean for true and reads
`010` as eight (src/config/pool_config_variables.c). The catalogue is generated from that source by
image/extract_catalogue.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from entrypoint.errors import ProgramUnusableError
from entrypoint.quoting import UnrepresentableError, conf_string

DEFAULT_VERSION = "4.6"

_DIRECTORY = Path(__file__).parent / "catalogues"

TRUE = ("on", "true", "yes", "t", "y", "1")
"""How pgpool lets one write `on`, in lower case."""
_FALSE = ("off", "false", "no", "f", "n", "0")

_TIME = {"us": 1, "ms": 1_000, "s": 1_000_000, "min": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
_MEMORY = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}

_OCTAL = frozenset({"unix_socket_permissions", "log_file_mode"})
"""File modes: the only numbers that are written, and read by pgpool, in octal."""

_EXACT = 2**53
"""pgpool converts units in floating point: near the end of the range of longs, large numbers become negative."""

_CLUSTERING = "backend_clustering_mode"
SUCCESSORS = {
    "black_function_list": "write_function_list",
    "white_function_list": "read_only_function_list",
    "black_query_pattern_list": "primary_routing_query_pattern_list",
    "black_memqcache_table_list": "cache_unsafe_memqcache_table_list",
    "white_memqcache_table_list": "cache_safe_memqcache_table_list",
    "follow_master_command": "follow_primary_command",
    "master_slave_mode": _CLUSTERING,
    "master_slave_sub_mode": _CLUSTERING,
    "socket_dir": "unix_socket_directories",
    "wd_hostname": "hostname0",
    "other_pgpool_hostname": "hostname1",
    "other_pgpool_port": "pgpool_port1",
    "other_wd_port": "wd_port1",
    "heartbeat_destination": "heartbeat_hostname0",
    "heartbeat_destination_port": "heartbeat_port0",
}
"""What older releases had under another name (release notes of 4.1 to 4.3), without numbers at their ends."""

_DESTINATIONS = frozenset({"stderr", "syslog"})
"""The one string that pgpool reads as a list of choices, and ends over (config_post_processor)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of pgpool.conf. Numbers are in `unit`, when there is one."""

    name: str
    type: str
    context: str
    default: str | int | float | None = None  # a number here is whole or not
    min: float | None = None
    max: float | None = None
    options: tuple[str, ...] = ()
    hidden_options: tuple[str, ...] = ()
    unit: str | None = None
    index_max: int | None = None
    bare: bool = False
    bare_unit: str | None = None
    secret: bool = False
    separator: str | None = None
    description: str = ""

    @property
    def confidential(self) -> bool:
        """Whether its value is not shown: a secret, or a command, which may have one among its arguments."""
        return self.secret or self.name.endswith(("_command", "_cmd"))


@dataclass(frozen=True, slots=True)
class Assignment:
    """A checked value for one parameter, encoded for pgpool.conf."""

    parameter: Parameter
    index: int | None
    encoded: str = field(repr=False)
    number: int | None = None
    """Integers and longs in the parameter's own unit; booleans as 0 and 1; else None."""
    text: str | None = field(default=None, repr=False)
    """Strings as they are, before encoding; else None."""

    @property
    def name(self) -> str:
        """The name as pgpool.conf has it, with the index."""
        return self.parameter.name + ("" if self.index is None else str(self.index))


class InvalidValueError(Exception):
    """Name or value does not fit the catalogue; `remedy` says what would."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


class UnknownParameterError(InvalidValueError):
    """There is no parameter of that name, so that pgpool passes over it."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The parameters that one minor version of pgpool knows."""

    minor: str
    parameters: Mapping[str, Parameter]

    def find(self, name: str) -> tuple[Parameter, int | None]:
        """The parameter and index that a name means, in any case.

        Raises UnknownParameterError, or InvalidValueError for a missing or too high index.
        """
        lowered = name.lower()
        exact = self.parameters.get(lowered)
        if exact is not None:
            if exact.index_max is not None and not exact.bare:
                raise InvalidValueError(
                    f"{exact.name} exists once per node, so its name ends in a node id",
                    f"write {exact.name}0 to {exact.name}{exact.index_max}",
                )
            return exact, None
        match = re.fullmatch(r"(.*?[^0-9])(0|[1-9][0-9]*)", lowered)
        if match and (indexed := self.parameters.get(match[1])) and indexed.index_max is not None:
            if int(match[2]) > indexed.index_max:
                raise InvalidValueError(
                    f"index {match[2]} is too high",
                    f"{indexed.name} takes indexes from 0 to {indexed.index_max}",
                )
            return indexed, int(match[2])
        if successor := SUCCESSORS.get(re.sub(r"[0-9]+$", "", lowered)):
            remedy = f"its successor is {successor}"
        else:
            close = close_to(lowered, self.parameters, 0.7)
            remedy = f"did you mean {close}?" if close else "see the parameter list in pgpool's manual"
        raise UnknownParameterError(f"pgpool {self.minor} has no parameter {lowered!r}", remedy)

    def assign(self, name: str, value: str) -> Assignment:
        """Check and encode a value. Raises InvalidValueError."""
        parameter, index = self.find(name)
        match parameter.type:
            case "bool":
                return _assign_bool(parameter, index, value)
            case "int" | "long":
                return _assign_integer(parameter, index, value)
            case "double":
                return _assign_double(parameter, index, value)
            case "enum":
                return _assign_enum(parameter, index, value)
            case _:
                return _assign_string(parameter, index, value)


@cache
def load_catalogue(version: str) -> Catalogue:
    """The catalogue of a version such as `4.6.1`. Raises ProgramUnusableError when there is none."""
    series = re.match(r"[0-9]+\.[0-9]+", version)
    minor = series[0] if series else version
    try:
        document: dict[str, Any] = json.loads((_DIRECTORY / f"pgpool-{minor}.json").read_text("utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(path.stem.removeprefix("pgpool-") for path in _DIRECTORY.glob("pgpool-*.json")))
        raise ProgramUnusableError(
            f"pgpool {version} has other parameters than the versions that are known here: {known}\n"
            "  → use a pgpool of a known version, or an image that knows yours"
        ) from None
    parameters = {}
    for name, fields in document["parameters"].items():
        for key in ("options", "hidden_options"):
            if key in fields:
                fields[key] = tuple(fields[key])
        if name.islower():  # delegate_IP is the old spelling of delegate_ip, and overwrites it
            parameters[name] = Parameter(name=name, **fields)
    return Catalogue(minor, parameters)


def _assign_bool(parameter: Parameter, index: int | None, value: str) -> Assignment:
    lowered = value.lower()
    if lowered in TRUE:
        return Assignment(parameter, index, "on", 1)
    if lowered in _FALSE:
        return Assignment(parameter, index, "off", 0)
    raise InvalidValueError("is not a boolean", "write on or off")


def _assign_integer(parameter: Parameter, index: int | None, value: str) -> Assignment:
    if parameter.name in _OCTAL:
        if not re.fullmatch(r"0[0-7]{3}", value):
            raise InvalidValueError("is not a file mode", "write it in octal with a leading zero, such as 0770")
        return Assignment(parameter, index, value, int(value, 8))
    unit = parameter.unit
    match = re.fullmatch(r"(-?(?:0|[1-9][0-9]{0,18}))(?: ?([A-Za-z]+))?", value)
    if match is None:
        raise InvalidValueError("is not a whole number", _number_remedy(parameter))
    number = int(match[1])
    encoded = match[1]
    if match[2] is not None:
        number = _in_base_unit(parameter, number, match[2])
        # The form without a node id takes bare numbers only (no_index_unit in the source).
        bare_number = parameter.bare and index is None and parameter.bare_unit is None
        encoded = str(number) if bare_number else conf_string(match[1] + match[2])
    if (parameter.min is not None and number < parameter.min) or (parameter.max is not None and number > parameter.max):
        raise InvalidValueError(
            "is out of range" + (f" ({number} {unit})" if match[2] and match[2] != unit else ""),
            _number_remedy(parameter),
        )
    return Assignment(parameter, index, encoded, number)


def _in_base_unit(parameter: Parameter, number: int, suffix: str) -> int:
    table = _MEMORY if parameter.unit in _MEMORY else _TIME
    if parameter.unit is None:
        raise InvalidValueError(f"has the unit {suffix!r}, but {parameter.name} takes none", _number_remedy(parameter))
    if suffix not in table:
        raise InvalidValueError(f"has an unknown unit {suffix!r}", f"the units are {', '.join(table)}")
    total, rest = divmod(number * table[suffix], table[parameter.unit])
    if abs(total) > _EXACT:
        raise InvalidValueError("is more than pgpool can convert", "give a smaller number")
    if rest:
        raise InvalidValueError(
            f"is no whole number of {parameter.unit}; pgpool would round it",
            f"give a multiple of 1 {parameter.unit}",
        )
    return total


def _number_remedy(parameter: Parameter) -> str:
    units = ""
    if parameter.unit is not None:
        units = f", in {parameter.unit}, or with a unit ({', '.join(_MEMORY if parameter.unit in _MEMORY else _TIME)})"
    return f"give a whole number from {parameter.min:.0f} to {parameter.max:.0f}{units}"


def _assign_double(parameter: Parameter, index: int | None, value: str) -> Assignment:
    remedy = f"give a number from {parameter.min:g} to {parameter.max:g}"
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", value):
        raise InvalidValueError("is not a number", remedy)
    if (parameter.min is not None and float(value) < parameter.min) or (
        parameter.max is not None and float(value) > parameter.max
    ):
        raise InvalidValueError("is out of range", remedy)
    return Assignment(parameter, index, value)


def _assign_enum(parameter: Parameter, index: int | None, value: str) -> Assignment:
    for option in parameter.options + parameter.hidden_options:
        if value.lower() == option.lower():
            return Assignment(parameter, index, conf_string(option))
    close = close_to(value.lower(), parameter.options, 0.6)
    raise InvalidValueError(
        "is not one of its values",
        (f"did you mean {close}? " if close else "") + f"choose from {', '.join(parameter.options)}",
    )


def _assign_string(parameter: Parameter, index: int | None, value: str) -> Assignment:
    if parameter.name == "log_destination" and not {each.strip() for each in value.split(",")} <= _DESTINATIONS:
        raise InvalidValueError("is no list of log destinations", "write stderr, syslog, or stderr,syslog")
    try:
        return Assignment(parameter, index, conf_string(value), text=value)
    except UnrepresentableError as error:
        raise InvalidValueError(
            str(error), "change the value; for a command, put it into a script and name that"
        ) from None


def close_to(word: str, known: Iterable[str], likeness: float) -> str | None:
    """What was meant by a word that is not known: the likeliest, if it is as like as this (0 to 1)."""
    from difflib import get_close_matches  # noqa: PLC0415  # only a mistake needs it

    return next(iter(get_close_matches(word, known, 1, likeness)), None)
