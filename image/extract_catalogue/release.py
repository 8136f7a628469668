"""The catalogue of one release, made of its source."""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from image.extract_catalogue.c_text import CatalogueError, Constants, read_structs, read_tables, without_comments
from image.extract_catalogue.records import KINDS, OPTIONS_STRUCT, Extractor, Parameter

TABLES_SOURCE: Final = "src/config/pool_config_variables.c"
STRUCTS_SOURCE: Final = "src/include/pool_config_variables.h"
CONSTANTS_SOURCES: Final = "src/include"
GROUPS_STRUCT: Final = "config_grouped_array_var"  # names for SHOW POOL_STATUS to group by; no parameters


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


def read_constants(source: Path) -> Constants:
    """Every macro of the headers and of the file with the tables."""
    constants = Constants()
    for path in [*sorted((source / CONSTANTS_SOURCES).rglob("*.h")), source / TABLES_SOURCE]:
        constants.add_from(read_c(path))
    return constants


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
