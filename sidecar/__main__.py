"""The command line of pgpool-sidecar: one of the two places that read the process's environment."""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from entrypoint import __version__
from entrypoint.catalogue import Catalogue, load_catalogue
from entrypoint.errors import EntrypointError, ExitCode, ProgramUnusableError
from entrypoint.inputs import read_inputs
from entrypoint.log import Log
from sidecar.drift import compare, desired_tree

NAME = "pgpool-sidecar"

_DESCRIPTION = """\
Compare what pgpool serves from with what its settings and Secrets say now, and print the difference as JSON.
Settings come from inputs.json in the run directory, as the entrypoint left them at boot."""

_EPILOG = """\
exit status: 0 nothing differs · 1 something does · 64 wrong usage · 73 the run directory is not readable,
or no pgpool-entrypoint has booted there · 78 the Secrets of this moment are not usable"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}; see {NAME} --help\n")


class NotBootedError(EntrypointError):
    """There is nothing to compare with."""

    exit_code = ExitCode.CANNOT_PUBLISH


def main() -> NoReturn:
    """Run, and exit with the status of errors.ExitCode."""
    log = Log(NAME, sys.stderr)
    try:
        status = run(sys.argv[1:], os.environ)
    except EntrypointError as error:
        log.error(str(error))
        status = error.exit_code
    except KeyboardInterrupt:
        status = 128 + 2
    sys.exit(status)


def run(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Do what the command line says and return the exit status. Raises EntrypointError."""
    parser = _Parser(
        prog=NAME,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{NAME} {__version__}")
    parser.add_argument("--once", action="store_true", required=True, help="one pass, then exit")
    parser.parse_args(arguments)
    run_dir = Path(env.get("PGPOOL_RUN_DIR", "/run/pgpool"))
    try:
        boot = read_inputs(run_dir)
        catalogue = _catalogue_of(boot.pgpool)
        _, tree = desired_tree(boot, env, run_dir, catalogue, datetime.now(UTC))
        drift = compare(tree, run_dir)
    except (OSError, ValueError) as error:
        raise NotBootedError(
            f"{run_dir} holds no booted configuration: {error}\n"
            "  → share the run directory with the pgpool container, and set PGPOOL_RUN_DIR to it"
        ) from None
    sys.stdout.write(json.dumps(asdict(drift)) + "\n")
    return ExitCode.BUG if drift.changed else ExitCode.OK


def _catalogue_of(version: str) -> Catalogue:
    try:
        return load_catalogue(".".join(version.split(".")[:2]))
    except KeyError:
        raise ProgramUnusableError(
            f"pgpool {version} was booted, but this sidecar does not know its parameters\n"
            "  → run the sidecar from the same image as pgpool"
        ) from None


if __name__ == "__main__":
    main()
