"""The command line of pgpool-sidecar: one of the two places that read the process's environment."""

import atexit
import errno
import json
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import NoReturn

from entrypoint import __version__, commandline
from entrypoint.commandline import finish
from entrypoint.errors import ConfigurationError, EntrypointError, ExitCode, Problem
from entrypoint.log import Log
from entrypoint.render import render
from entrypoint.settings import SIDECAR_HTTP
from sidecar.assembly import Sidecar
from sidecar.desired import read_desired
from sidecar.drift import compare
from sidecar.events import Unblocking
from sidecar.options import Options, load_options
from sidecar.status import STATUS, State
from sidecar.through_pgpool import QueryError

NAME = "pgpool-sidecar"

_DESCRIPTION = """\
Keep what pgpool serves equal to what the Secrets say: when one changes, try the new password at PostgreSQL, render,
publish, reload pgpool, and prove it by logging in. Serves health and metrics on PGPOOL_SIDECAR_HTTP."""

_EPILOG = """\
exit status:
  0 ended by SIGTERM or SIGINT; `--once`: pgpool serves what the Secrets say; with `--dry-run`: nothing differs
  1 `--once`: it does not, the JSON has the reason; with `--dry-run`: something differs; or a bug
 64 wrong usage
 73 nothing has booted in the run directory (`--once`), or no sidecar has run there (`status`)
 78 PGPOOL_RUN_DIR or a PGPOOL_SIDECAR_… is not usable, or the port cannot be had; `--once --dry-run`: the Secrets of
    this moment are not usable
126 or 127 pgpool's own programs cannot be executed, or are not there
130 `--once` was interrupted

settings: PGPOOL_RUN_DIR and PGPOOL_SIDECAR_… from this program's environment; all others as pgpool-entrypoint left them
in the run directory when it booted (inputs.json). Secrets that were given to it as variables are to be given here, too.
`pgpool-entrypoint settings` lists them all."""

_PASS_SECONDS = 15.0
"""How long `--once` goes on when pgpool, or another sidecar that publishes the same, is just at work."""


class NotBootedError(EntrypointError):
    """There is nothing to compare with."""

    exit_code = ExitCode.CANNOT_PUBLISH


def main() -> NoReturn:
    """Run, and exit with the status of errors.ExitCode."""
    # A core dump would hold every password.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _unblock_stderr()
    finish(lambda: run(sys.argv[1:], os.environ), Log(NAME, sys.stderr))


def _unblock_stderr() -> None:
    """Whoever writes there, a traceback too, waits for no collector that does not read."""
    stderr = Unblocking(sys.stderr.fileno())
    atexit.register(stderr.drain)
    sys.stderr = stderr


def run(arguments: Sequence[str], env: Mapping[str, str]) -> int:
    """Do what the command line says and return the exit status. Raises EntrypointError."""
    parser = commandline.parser(NAME, _DESCRIPTION, _EPILOG)
    verbs = "run until SIGTERM (the default), or print what the sidecar wrote last into status.json"
    parser.add_argument("verb", nargs="?", choices=("run", "status"), default="run", help=verbs)
    parser.add_argument(
        "--once", action="store_true", help="one pass, beside a running sidecar, too; print its status as JSON"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="with --once: change nothing, print what differs as JSON"
    )
    chosen = parser.parse_args(arguments)
    if chosen.dry_run and not chosen.once:
        parser.error("--dry-run goes with --once")
    if chosen.once and chosen.verb == "status":
        parser.error("--once goes with `run`")
    options = load_options(env)
    if chosen.verb == "status":
        return _show(options)
    if chosen.dry_run:
        return _compare(options, env)
    if chosen.once:
        return _pass(Sidecar(options, env, write_status=False))
    _serve(options, env)
    return ExitCode.OK


def _show(options: Options) -> int:
    try:
        sys.stdout.write((options.run_dir / STATUS).read_text())
    except OSError as error:
        raise NotBootedError(
            f"no status: {_told(error)}\n"
            "  → start pgpool-sidecar, or set PGPOOL_RUN_DIR to the run directory that it has"
        ) from None
    return ExitCode.OK


def _compare(options: Options, env: Mapping[str, str]) -> int:
    try:
        desired = read_desired(options.run_dir, env, datetime.now(UTC))
        drift = compare(render(desired.resolved.model), options.run_dir)
    except (OSError, ValueError) as error:
        raise NotBootedError(
            f"{options.run_dir} holds no booted configuration: {_told(error)}\n"
            "  → share the run directory with the pgpool container, and set PGPOOL_RUN_DIR to it"
        ) from None
    sys.stdout.write(json.dumps(asdict(drift)) + "\n")
    return ExitCode.NO if drift.changed else ExitCode.OK


def _pass(sidecar: Sidecar) -> int:
    until = time.monotonic() + _PASS_SECONDS
    status = sidecar.rotation.step()
    while status.state is State.APPLYING and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, sidecar.rotation.due_seconds()))
        status = sidecar.rotation.step()
    if status.state is State.STARTING:
        raise NotBootedError(
            f"{status.reason}\n  → share the run directory with the pgpool container, and set PGPOOL_RUN_DIR to it"
        )
    if status.state is State.IN_SYNC:
        # A step that finds nothing to do asks pgpool nothing.
        try:
            sidecar.ask("SELECT 1")
        except (QueryError, OSError) as error:
            status = replace(
                status, state=State.DEGRADED, reason=f"the check role cannot log in through pgpool: {error}"
            )
    sys.stdout.write(f"{status.text()}\n")
    return ExitCode.OK if status.state is State.IN_SYNC and status.restart is None else ExitCode.NO


def _serve(options: Options, env: Mapping[str, str]) -> None:
    """Run until SIGTERM or SIGINT; both mean a clean end, from the first moment on."""
    # The kernel may hand a signal to any thread, and Python's handlers run only when this one awakes.
    asked, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    sidecar = Sidecar(options, env)
    try:
        web = sidecar.web(options.http)
    except OSError as error:
        raise ConfigurationError([_cannot_listen(options, error)]) from None
    web.start()
    sidecar.start()
    sidecar.events.info("sidecar.started", version=__version__, run_dir=str(options.run_dir))
    os.read(asked, 1)
    sidecar.end()
    sidecar.events.info("sidecar.ended")


def _cannot_listen(options: Options, error: OSError) -> Problem:
    host, port = options.http
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    remedy = "choose another address"
    if error.errno == errno.EADDRINUSE:
        remedy = "free the port, or choose another"
    elif error.errno == errno.EACCES:
        remedy = "choose a port from 1024 on"
    elif error.errno == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
        remedy = f"give an address of this machine, or write :{port} for all that it has"
    what = f"cannot listen on {address}: {error.strerror}"
    return Problem(SIDECAR_HTTP.name, options.http_origin, what, remedy)


def _told(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} does not exist"
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)


if __name__ == "__main__":
    main()
