"""The command line of pgpool-entrypoint: one of the two places that read the process's environment."""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from entrypoint import commandline
from entrypoint.commandline import Parser, finish
from entrypoint.errors import ConfigurationError, ExitCode, Problem, ProgramMissingError
from entrypoint.log import Log
from entrypoint.pipeline import prepare
from entrypoint.program import Program, become, find_program

NAME = "pgpool-entrypoint"

_DESCRIPTION = """\
Boot a pgpool-II container: read environment and Secrets, check everything, publish pgpool's files, become pgpool.
Without a verb, or with flags for pgpool behind `--`, it boots. Any other first word is a command to run instead."""

_EPILOG = """\
exit status:
  0 ok · 64 wrong usage · 73 cannot publish · 78 configuration error, with every problem on standard error
  126 or 127 pgpool cannot be executed, or is not there · 130 interrupted · 1 the `no` of a probe, or a bug

settings come from the environment; `pgpool-entrypoint settings` lists them. The variables of pgpool/pgpool and of
bitnami/pgpool are understood, too (PGPOOL_COMPAT); `pgpool-entrypoint migrate` prints what they are here."""


def main() -> NoReturn:
    """Run, and exit with the status of errors.ExitCode."""
    log = Log(NAME, sys.stderr)
    finish(lambda: run(sys.argv[1:], os.environ, log), log)


def run(arguments: Sequence[str], env: Mapping[str, str], log: Log) -> int:
    """Do what the command line says and return the exit status. Raises EntrypointError."""
    verbs = ("run", "check", "render", "settings", "probe", "migrate")
    first = arguments[0] if arguments else "run"
    if first not in verbs and not first.startswith("-"):
        become(arguments, env)
    ours, after = _split(arguments)
    options = _parser().parse_args(ours)
    if after and options.verb not in (None, "run"):
        _parser().error("only `run` passes arguments on to pgpool")
    # ruff: noqa: PLC0415  # each verb imports what it needs, so that none pays for the others
    match options.verb:
        case "check":
            from entrypoint import reference

            program = _optional_program(env)
            resolved, _ = prepare(env, program, datetime.now(UTC))
            sys.stdout.write(reference.in_effect(resolved, program.version if program else None))
        case "render":
            from entrypoint.publish import write_files

            resolved, tree = prepare(env, _optional_program(env), datetime.now(UTC))
            write_files(tree, options.to)
            for warning in resolved.model.warnings:
                log.warning(warning)
            log.info(f"wrote {', '.join(sorted(tree.files))} to {options.to}")
        case "settings":
            from entrypoint import reference

            sys.stdout.write(reference.markdown() if options.format == "md" else reference.as_json())
        case "migrate":
            from entrypoint.compat.source import read_source
            from entrypoint.migrate import migrate
            from entrypoint.migration import as_text
            from entrypoint.program import catalogue_for

            source = read_source(_given(options.file))
            sys.stdout.write(as_text(migrate(source, catalogue_for(_optional_program(env)))))
        case "probe":
            from entrypoint.probe import probe

            verdict = probe(options.kind, env)
            sys.stdout.write(f"{options.kind}: {'yes' if verdict.good else 'no'}; {verdict.reason}\n")
            return ExitCode.OK if verdict.good else ExitCode.NO
        case _:
            from entrypoint import boot

            boot.run(env, after, find_program(env), datetime.now(UTC), log)
    return ExitCode.OK


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is ours, and what stands behind `--` for pgpool."""
    words = list(arguments)
    if "--" not in words:
        return words, []
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _given(file: Path | None) -> str:
    """The text of a file, or of standard input. Raises ConfigurationError."""
    try:
        return sys.stdin.read() if file is None else file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise ConfigurationError([Problem(str(file or "standard input"), "migrate", what, "give another")]) from None


def _optional_program(env: Mapping[str, str]) -> Program | None:
    try:
        return find_program(env)
    except ProgramMissingError:
        return None


def _parser() -> Parser:
    parser = commandline.parser(NAME, _DESCRIPTION, _EPILOG)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")

    verb("run", "boot and become pgpool (the default); arguments for pgpool follow `--`")
    verb("check", "resolve and validate, print what is set and where it came from, change nothing")
    render = verb("render", "write pgpool's files into a directory, start nothing")
    render.add_argument("--to", required=True, type=Path, metavar="DIR", help="created if missing; files get mode 0600")
    settings = verb("settings", "print the reference of every setting")
    settings.add_argument("--format", choices=("md", "json"), default="md", help="markdown (default) or JSON")
    probe = verb("probe", "for HEALTHCHECK and exec probes: exit status 0 for yes, 1 for no")
    probe.add_argument("kind", choices=("live", "ready"), help="live: pgpool answers; ready: it serves a primary")
    migrate = verb("migrate", "print the native configuration for an environment of pgpool/pgpool or bitnami/pgpool")
    migrate.add_argument(
        "file",
        nargs="?",
        type=Path,
        metavar="FILE",
        help="a list as `env` prints it, JSON of `docker inspect`, or a workload of Kubernetes as YAML or JSON; "
        "standard input if not given. No secret's value is printed",
    )
    return parser


if __name__ == "__main__":
    main()
