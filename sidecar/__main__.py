"""The command line of pgpool-sidecar: one of the two places that read the process's environment."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import NoReturn

from entrypoint import commandline
from entrypoint.catalogue import load_catalogue
from entrypoint.commandline import finish
from entrypoint.errors import EntrypointError, ExitCode
from entrypoint.inputs import read_inputs, run_directory
from entrypoint.log import Log
from sidecar.drift import compare, desired_tree

NAME = "pgpool-sidecar"

_DESCRIPTION = """\
Compare what pgpool serves from with what its settings and Secrets say now, and print the difference as JSON.
Settings come from inputs.json in the run directory (PGPOOL_RUN_DIR), as the entrypoint left them at boot."""

_EPILOG = """\
exit status: 0 nothing differs · 1 something does, or a bug · 64 wrong usage · 73 the run directory is not readable,
or no pgpool-entrypoint has booted there · 78 the Secrets of this moment, or
PGPOOL_RUN_DIR, are not usable · 130 interrupted"""


class NotBootedError(EntrypointError):
    """There is nothing to compare with."""

    exit_code = ExitCode.CANNOT_PUBLISH


def main() -> NoReturn:
    """Run, and exit with the status of errors.ExitCode."""
    finish(lambda: run(sys.argv[1:], os.environ), Log(NAME, sys.stderr))


def run(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Do what the command line says and return the exit status. Raises EntrypointError."""
    parser = commandline.parser(NAME, _DESCRIPTION, _EPILOG)
    parser.add_argument("--once", action="store_true", required=True, help="one pass, then exit")
    parser.parse_args(arguments)
    run_dir = run_directory(env)
    try:
        boot = read_inputs(run_dir)
        _, tree = desired_tree(boot, env, run_dir, load_catalogue(boot.pgpool), datetime.now(UTC))
        drift = compare(tree, run_dir)
    except (OSError, ValueError) as error:
        raise NotBootedError(
            f"{run_dir} holds no booted configuration: {error}\n"
            "  → share the run directory with the pgpool container, and set PGPOOL_RUN_DIR to it"
        ) from None
    sys.stdout.write(json.dumps(asdict(drift)) + "\n")
    return ExitCode.BUG if drift.changed else ExitCode.OK


if __name__ == "__main__":
    main()
