"""Where the real programs are, and which versions they have."""

import argparse
import re
import shutil
import subprocess
from pathlib import Path


def find_pgpool() -> Path | None:
    """The directory of the `pgpool` on PATH."""
    program = shutil.which("pgpool")
    return Path(program).resolve().parent if program else None


def find_patroni() -> Path | None:
    """The directory of the `patroni` on PATH."""
    program = shutil.which("patroni")
    return Path(program).parent if program else None


def find_postgres() -> Path | None:
    """Debian's newest server, for its programs are not on PATH; else what pg_config says."""
    installed = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/postgres")]
    if installed:
        return max(installed, key=lambda path: float(path.parent.name))
    if not shutil.which("pg_config"):
        return None
    answer = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
    directory = Path(answer.stdout.strip())
    return directory if (directory / "postgres").is_file() else None


def version(program: Path, flag: str = "--version") -> str:
    """The version number a program reports, whichever stream it uses for that."""
    answer = subprocess.run([program, flag], capture_output=True, text=True, check=True)
    text = answer.stdout + answer.stderr
    number = re.search(r"\d+(\.\d+)+", text)
    return number[0] if number else text.strip()


def parse_with_programs(parser: argparse.ArgumentParser, *, cluster: bool = False) -> argparse.Namespace:
    """Parse a command line that also says where the programs are: pgpool_bin, postgres_bin; patroni_bin if asked."""
    programs = {"pgpool": find_pgpool(), "postgres": find_postgres()}
    if cluster:
        programs["patroni"] = find_patroni()
    for program, found in programs.items():
        parser.add_argument(f"--{program}-bin", type=Path, default=found, metavar="DIR", help=f"directory of {program}")
    options = parser.parse_args()
    for option in (f"{program}_bin" for program in programs):
        directory = getattr(options, option)
        if directory is None:
            parser.error(f"found no such program: give --{option.replace('_', '-')}")
        setattr(options, option, directory.absolute())
    return options
