"""The pure middle of both programs: from environment and files to what pgpool is to be given.

Boot and sidecar run this same function, so equal inputs always end in byte-identical files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from entrypoint.catalogue import Catalogue
from entrypoint.errors import Problems
from entrypoint.material import read_material
from entrypoint.model import PgpoolModel, build
from entrypoint.secret import Secret
from entrypoint.settings import Settings, load
from entrypoint.sources import Reader, consistently


@dataclass(frozen=True, slots=True)
class Resolved:
    """A configuration without a problem."""

    settings: Settings
    model: PgpoolModel


def resolve(env: Mapping[str, str], catalogue: Catalogue, *, pcp_password: Secret, now: datetime) -> Resolved:
    """Read and check everything, as one moment saw it. Raises ConfigurationError with every problem.

    Args:
        env: the environment.
        catalogue: the parameters of the installed pgpool.
        pcp_password: stands in when PGPOOL_PCP_PASSWORD is not set.
        now: the time to judge certificates by, with a time zone.
    """

    def read(reader: Reader) -> Resolved:
        problems = Problems()
        settings = load(env, catalogue, reader, problems)
        material = read_material(settings, reader, problems)
        model = build(settings, material, settings.pcp_password or pcp_password, catalogue, now, problems)
        problems.raise_if_any()
        return Resolved(settings, model)

    return consistently(read)
