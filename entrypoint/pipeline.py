"""The middle of both programs: from environment and files to what pgpool is to be given. Changes nothing.

Boot and sidecar run these same functions, so equal inputs always end in byte-identical files.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from entrypoint.catalogue import Catalogue
from entrypoint.child import minimal_environment
from entrypoint.compat.translate import load_translated
from entrypoint.errors import Problems
from entrypoint.material import Material, read_material
from entrypoint.model import CURRENT, MadeUp, PgpoolModel, build
from entrypoint.program import Program, catalogue_for
from entrypoint.render import render
from entrypoint.secret import Secret
from entrypoint.self_signed import self_signed
from entrypoint.settings import Settings
from entrypoint.sources import Directory, Reader, consistently
from entrypoint.tree import Tree

_RANDOM_BYTES = 24
_TELLING = 6
"""Characters from which on a secret inside a longer value is taken for more than a coincidence."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration without a problem."""

    settings: Settings
    material: Material
    model: PgpoolModel
    places: frozenset[Path]
    """Every file and directory that was looked at."""


def resolve(env: Mapping[str, str], catalogue: Catalogue, *, made_up: MadeUp, now: datetime) -> Resolved:
    """Read and check everything, as one moment saw it. Raises ConfigurationError with every problem.

    Args:
        env: the environment.
        catalogue: the parameters of the installed pgpool.
        made_up: stands in for what is not given.
        now: the time to judge certificates by, with a time zone.
    """

    def read(reader: Reader) -> Resolved:
        problems = Problems()
        loaded = load_translated(env, catalogue, reader, problems)
        settings = loaded.settings
        material = read_material(settings, reader, problems, loaded.supplied)
        if loaded.supplied is not None and loaded.supplied.tls is None:
            live = settings.run_dir / CURRENT
            pair = self_signed(now) if made_up.certificate is None else made_up.certificate
            if not pair:
                what = "is on, and the certificate is gone that was mounted: none is made up in its place"
                problems.add("ssl", "files", what, "mount it again, or restart pgpool, which then makes one up")
                problems.raise_if_any()
            settings, material = replace(settings, tls_dir=live), replace(material, tls=Directory(live, pair))
        model = build(settings, material, made_up, catalogue, now, problems)
        problems.raise_if_any()
        model = replace(model, warnings=(*loaded.warnings, *model.warnings))
        return Resolved(settings, material, model, reader.places)

    return consistently(read)


def prepare(
    env: Mapping[str, str], program: Program | None, now: datetime, *, to_run: bool = False
) -> tuple[Resolved, Tree]:
    """What a boot at this moment would publish, checked by us and by pgpool's own parser.

    Without an installed pgpool no parser is asked. Where no PCP password is set, there is a new random one. Unless this
    is `to_run`, nothing is encrypted with a key that nobody would have afterwards.
    Raises ConfigurationError, RejectedError or ProgramUnusableError.
    """
    made_up = MadeUp(_random(), _random() if to_run else None)
    resolved = resolve(env, catalogue_for(program), made_up=made_up, now=now)
    tree = render(resolved.model)
    if program is not None:
        program.dry_run(tree.files["pgpool.conf"], env)
    return resolved, tree


def without_secrets(env: Mapping[str, str], model: PgpoolModel) -> dict[str, str]:
    """The environment for pgpool: without our settings, libpq's, and any variable that holds a secret.

    What makes a program run stays, whatever the passwords are: one may happen to be part of PATH.
    """
    held = {credential.password.reveal() for credential in model.credentials}
    held |= {secret.reveal() for secret in (model.pcp_password, model.key) if secret is not None}
    needed = minimal_environment(env)
    telling = [secret for secret in held if len(secret) >= _TELLING]
    return {
        name: value
        for name, value in env.items()
        if name in needed
        or (not name.startswith("PG") and value not in held and not any(secret in value for secret in telling))
    }


def _random() -> Secret:
    return Secret(os.urandom(_RANDOM_BYTES).hex())
