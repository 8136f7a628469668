"""What boot was given, written down for sidecar and probes, so that they cannot be configured differently."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from entrypoint.catalogue import Catalogue
from entrypoint.compat.translate import pcp_password_variable, recorded
from entrypoint.environment import given_as, parse_setting, read_variable
from entrypoint.errors import Problems
from entrypoint.publish import replace_file
from entrypoint.settings import PCP_PASSWORD as PCP_VARIABLE
from entrypoint.settings import REFUSED, RUN_DIR
from entrypoint.sources import Reader

INPUTS = "inputs.json"
PCP_PASSWORD = "pcp_password"  # noqa: S105  # a file's name
"""The administrator's password in the run directory, when boot had to make one."""
CHECK_KEY = "check_key"
"""The key of the check role's password in pgpool.conf, when boot had to make one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The environment that boot resolved. Secrets are in it as paths of files, never as values; commands as given."""

    pgpool: str
    """The installed version, such as 4.6.1."""
    environment: Mapping[str, str]
    withheld: tuple[str, ...]
    """Names of variables whose value is a secret: whoever needs one must be given it."""
    port: int
    pcp_port: int
    pcp_user: str
    pcp_password: str = PCP_VARIABLE.name
    """The variable that has the administrator's password, or that with `_FILE`, if any has."""

    def write(self, run_dir: Path) -> None:
        """Write inputs.json by rename. Raises OSError."""
        document = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False)
        replace_file(run_dir / INPUTS, f"{document}\n".encode())


def gather(
    env: Mapping[str, str], catalogue: Catalogue, pgpool: str, *, numbers: Mapping[str, int], pcp_user: str
) -> Inputs:
    """The part of the environment that the pipeline reads, and what became of it that a probe must know."""
    environment, withheld = recorded(env, catalogue)
    return Inputs(
        pgpool=pgpool,
        environment=environment,
        withheld=withheld,
        port=numbers["port"],
        pcp_port=numbers["pcp_port"],
        pcp_user=pcp_user,
        pcp_password=pcp_password_variable(env),
    )


def read_inputs(run_dir: Path) -> Inputs:
    """What boot wrote. Raises OSError, or ValueError when it is not ours."""
    document = json.loads((run_dir / INPUTS).read_bytes())
    try:
        return Inputs(
            pgpool=str(document["pgpool"]),
            environment=dict(document["environment"]),
            withheld=tuple(document["withheld"]),
            port=int(document["port"]),
            pcp_port=int(document["pcp_port"]),
            pcp_user=str(document["pcp_user"]),
            pcp_password=str(document["pcp_password"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run_dir / INPUTS} is not what pgpool-entrypoint writes: {error!r}") from None


def run_directory(env: Mapping[str, str]) -> Path:
    """Where boot left its inputs: all that sidecar and probes take from their own environment, but for secrets.

    Raises ConfigurationError when PGPOOL_RUN_DIR, or PGPOOL_RUN_DIR_FILE, does not tell.
    """
    problems, found = Problems(), {}
    for name in given_as(RUN_DIR.name, env):
        raw = read_variable(name, RUN_DIR.name, env, Reader(), problems, secret=False)
        if raw is not None:
            found[name] = raw
    path = parse_setting(RUN_DIR, found, problems)
    problems.raise_if_any()
    return path or REFUSED
