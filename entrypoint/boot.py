"""Boots the container: resolve, look at the machine, publish, become pgpool."""

import os
import resource
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from entrypoint import inputs, preflight
from entrypoint.catalogue import DEFAULT_MINOR, Catalogue, load_catalogue
from entrypoint.errors import Problems, ProgramMissingError, ProgramUnusableError
from entrypoint.log import Log
from entrypoint.model import CURRENT, PgpoolModel
from entrypoint.pipeline import Resolved, resolve
from entrypoint.program import Program
from entrypoint.publish import publish, replace_file
from entrypoint.render import render
from entrypoint.secret import Secret
from entrypoint.settings import Settings
from entrypoint.tree import Tree


def prepare(env: Mapping[str, str], program: Program | None, now: datetime) -> tuple[Resolved, Tree]:
    """Everything up to publishing: what would be served, checked by us and by pgpool's own parser.

    Raises ConfigurationError, RejectedError or ProgramUnusableError. Without an installed pgpool the
    newest catalogue stands in and no parser is asked.
    """
    catalogue = catalogue_for(program)
    resolved = resolve(env, catalogue, pcp_password=Secret(secrets.token_urlsafe(24)), now=now)
    tree = render(resolved.model)
    if program is not None:
        program.dry_run(tree.files["pgpool.conf"], without_secrets(env, resolved.model))
    return resolved, tree


def run(env: Mapping[str, str], arguments: Sequence[str], program: Program, now: datetime, log: Log) -> NoReturn:
    """Boot, and become pgpool with `arguments` added to its command line.

    Raises EntrypointError; until everything is checked, nothing is changed.
    """
    resolved, tree = prepare(env, program, now)
    settings, model = resolved.settings, resolved.model
    warnings = [*model.warnings, *_preflight(settings, model)]
    for line in _summary(settings, model, program):
        log.info(line)
    for warning in warnings:
        log.warning(warning)
    for segment in preflight.reap_shared_memory():
        log.info(f"removed {segment.bytes} bytes of shared memory that a killed pgpool left")
    ports = (model.numbers["port"], model.numbers["pcp_port"])
    for name in preflight.remove_stale_files(settings.run_dir, ports):
        log.info(f"removed {name} of a pgpool that was killed")
    publish(tree, settings.run_dir)
    _write_inputs(env, settings, model, program)
    log.info(f"generation {tree.digest[:12]} is live in {settings.run_dir}")
    become(command(settings, program, arguments), without_secrets(env, model))


def catalogue_for(program: Program | None) -> Catalogue:
    """The parameters of the installed pgpool. Raises ProgramUnusableError for a version without catalogue."""
    minor = DEFAULT_MINOR if program is None else program.minor
    try:
        return load_catalogue(minor)
    except KeyError:
        version = "" if program is None else program.version
        raise ProgramUnusableError(
            f"pgpool {version} is installed, but this entrypoint knows the parameters of {DEFAULT_MINOR} only\n"
            "  → install a pgpool of that minor version, or an entrypoint that has a catalogue for yours"
        ) from None


def command(settings: Settings, program: Program, arguments: Iterable[str]) -> list[str]:
    """The command line of pgpool: in the foreground, and never believing a former node status (-D)."""
    live = settings.run_dir / CURRENT
    files = ["-f", f"{live}/pgpool.conf", "-a", f"{live}/pool_hba.conf", "-F", f"{live}/pcp.conf"]
    key = [] if settings.key_file is None else ["-k", str(settings.key_file)]
    return [str(program.path), "-n", "-D", *files, *key, *arguments]


def without_secrets(env: Mapping[str, str], model: PgpoolModel) -> dict[str, str]:
    """The environment for pgpool: without our settings, libpq's, and any variable that holds a secret."""
    held = {credential.password.reveal() for credential in model.credentials}
    held.add(model.pcp_password.reveal())
    if model.key is not None:
        held.add(model.key.reveal())
    return {
        name: value
        for name, value in env.items()
        if not name.startswith("PG") and not any(secret in value for secret in held)
    }


def become(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replace this process. Raises ProgramMissingError or ProgramUnusableError."""
    # A core dump of pgpool holds passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        os.execvpe(command[0], list(command), dict(env))  # noqa: S606  # replacing this process is the point
    except FileNotFoundError:
        raise ProgramMissingError(f"{command[0]} is not there; check the name and PATH") from None
    except OSError as error:
        raise ProgramUnusableError(f"{command[0]} cannot be executed: {error.strerror}") from None


def _preflight(settings: Settings, model: PgpoolModel) -> list[str]:
    problems = Problems()
    preflight.check_port(model.listen_addresses, model.numbers["port"], "PGPOOL_PARAMS_PORT", problems)
    problems.raise_if_any()
    return preflight.check_run_dir(settings.run_dir)


def _write_inputs(env: Mapping[str, str], settings: Settings, model: PgpoolModel, program: Program) -> None:
    inputs.gather(env, catalogue_for(program), program.version).write(settings.run_dir)
    made = settings.run_dir / inputs.PCP_PASSWORD
    if settings.pcp_password is None:
        replace_file(made, model.pcp_password.reveal().encode())
    else:
        made.unlink(missing_ok=True)


def _summary(settings: Settings, model: PgpoolModel, program: Program) -> Iterator[str]:
    backends = _few([f"{backend.name} at {backend.host}:{backend.port}" for backend in settings.backends])
    yield f"pgpool {program.version} for {backends}"
    roles = _few([credential.role for credential in model.credentials])
    form = "AES-encrypted" if model.key else "in clear, as PGPOOLKEYFILE is not set"
    yield f"roles {roles}; passwords in pool_passwd {form}; TLS {'on' if model.tls else 'off'}"
    children, pool = model.numbers["num_init_children"], model.numbers["max_pool"]
    yield (
        f"up to {model.connections_per_backend} connections to each backend (num_init_children {children} × "
        f"max_pool {pool}); times the number of pgpools, this must stay below the servers' max_connections"
    )


def _few(names: Sequence[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
