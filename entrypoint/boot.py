"""Boots the container: resolve, look at the machine, publish, become pgpool."""

import os
import resource
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from entrypoint import inputs, nameless, preflight
from entrypoint.compat.translate import IMAGES
from entrypoint.errors import Problems
from entrypoint.log import Log
from entrypoint.model import CURRENT, PgpoolModel
from entrypoint.pipeline import prepare, without_secrets
from entrypoint.program import Program, become, catalogue_for
from entrypoint.publish import publish, replace_file, unwritable
from entrypoint.secret import Secret
from entrypoint.settings import RUN_DIR, Settings

_FEW = 5


def run(env: Mapping[str, str], arguments: Sequence[str], program: Program, now: datetime, log: Log) -> NoReturn:
    """Boot, and become pgpool with `arguments` added to its command line.

    Raises EntrypointError; until everything is checked, nothing is changed.
    """
    resolved, tree = prepare(env, program, now, to_run=True)
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
    # Before the swap: whoever sees the new generation finds the inputs it was made from.
    try:
        _write_inputs(env, settings, model, program)
    except OSError as error:
        raise unwritable(settings.run_dir, error) from None
    publish(tree, settings.run_dir, booting=True)
    log.info(f"generation {tree.digest[:12]} is live in {settings.run_dir}")
    environment = without_secrets(env, model)
    if dropped := sorted(name for name in env.keys() - environment.keys() if not name.startswith("PG")):
        log.info(f"not passed on to pgpool, because they hold a secret: {', '.join(dropped)}")
    # A core dump of pgpool holds passwords.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    key = None if model.check_key is None else hand_over(model.check_key)
    become(command(settings.run_dir, program, key, arguments), environment)


def command(run_dir: Path, program: Program, key: str | None, arguments: Iterable[str]) -> list[str]:
    """The command line of pgpool: in the foreground, and never believing a former node status (-D)."""
    live = run_dir / CURRENT
    files = ["-f", f"{live}/pgpool.conf", "-a", f"{live}/pool_hba.conf", "-F", f"{live}/pcp.conf"]
    return [str(program.path), "-n", "-D", *files, *([] if key is None else ["-k", key]), *arguments]


def hand_over(key: Secret) -> str:
    """The path of a file without a name that holds the key, for the program that we become.

    pgpool reads its key once, at start. Read again from the Secret, it could be another one than pool_passwd was
    encrypted with a moment ago; and a mounted file's mode would have pgpool warn. The descriptor stays open in pgpool,
    whose memory holds the key anyway.
    """
    descriptor = nameless.create("pool_key", key.reveal().encode() + b"\n")
    os.set_inheritable(descriptor, True)
    return nameless.path_of(descriptor)


def _preflight(settings: Settings, model: PgpoolModel) -> list[str]:
    problems = Problems()
    for listener in preflight.listeners(settings, model):
        preflight.check_port(listener, problems)
    preflight.check_nobody_lives(settings.run_dir, (RUN_DIR.name, settings.origin(RUN_DIR)), problems)
    problems.raise_if_any()
    return preflight.check_run_dir(settings.run_dir)


def _write_inputs(env: Mapping[str, str], settings: Settings, model: PgpoolModel, program: Program) -> None:
    catalogue, numbers = catalogue_for(program), model.numbers
    given = inputs.gather(env, catalogue, program.version, numbers=numbers, pcp_user=settings.pcp_user)
    given.write(settings.run_dir)
    for name, secret, configured in (
        (inputs.PCP_PASSWORD, model.pcp_password, settings.pcp_password),
        (inputs.CHECK_KEY, model.check_key, model.key),
    ):
        made = settings.run_dir / name
        if configured is None and secret is not None:
            replace_file(made, secret.reveal().encode())
        else:
            made.unlink(missing_ok=True)


def _summary(settings: Settings, model: PgpoolModel, program: Program) -> Iterator[str]:
    backends = _few([f"{backend.name} at {backend.host}:{backend.port}" for backend in settings.backends])
    yield f"pgpool {program.version} for {backends}"
    if image := IMAGES.get(settings.compat or ""):
        yield f"the variables are those of {image}; `pgpool-entrypoint migrate` prints what they are here"
    roles = _few([credential.role for credential in model.credentials])
    form = "AES-encrypted" if model.key else "in clear, as PGPOOLKEYFILE is not set"
    yield f"roles {roles}; passwords in pool_passwd {form}; TLS {'on' if model.tls else 'off'}"
    children, pool = model.numbers["num_init_children"], model.numbers["max_pool"]
    yield (
        f"up to {model.connections_per_backend} connections to each backend (num_init_children {children} × "
        f"max_pool {pool}); times the number of pgpools, this must stay below the servers' max_connections"
    )


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more
