"""What the command lines of both programs share: wrong usage ends with 64, an error with its own status."""

import argparse
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import NoReturn

from entrypoint import __version__
from entrypoint.errors import EntrypointError, ExitCode
from entrypoint.log import Log


class Parser(argparse.ArgumentParser):
    """An argument parser that keeps line breaks in help, knows `--version`, and exits as the contract says."""

    def error(self, message: str) -> NoReturn:
        """Print usage and exit with 64."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: {message}; see {self.prog.split()[0]} --help\n")


def parser(program: str, description: str, epilog: str) -> Parser:
    """A parser with the texts as they are, and `--version`."""
    result = Parser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("--version", action="version", version=f"{program} {__version__}")
    return result


def finish(program: Callable[[], int], log: Log) -> NoReturn:
    """Run a program, and exit with its status or with that of the error it raises."""
    if isinstance(sys.stdout, TextIOWrapper):  # a file's name need not be text, whatever the locale makes of that
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = program()
    except EntrypointError as error:
        log.error(str(error))
        status = error.exit_code
    except KeyboardInterrupt:
        status = ExitCode.INTERRUPTED
    sys.exit(status)
