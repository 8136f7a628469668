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
import sys
from pathlib import Path

from image.extract_catalogue.c_text import CatalogueError
from image.extract_catalogue.release import differences, extract


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="extract_catalogue", description=__doc__, formatter_class=layout)
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
