"""What boot was given, written down for sidecar and probes, so that they cannot be configured differently."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from entrypoint.catalogue import Catalogue, InvalidValueError
from entrypoint.compat.translate import pcp_password_variable, recorded
from entrypoint.environment import ENVIRONMENT
from entrypoint.errors import ConfigurationError, Problem
from entrypoint.publish import replace_file
from entrypoint.settings import PCP_PASSWORD as PCP_VARIABLE
from entrypoint.settings import RUN_DIR
from entrypoint.sources import Raw, Reader, SourceError, text

INPUTS = "inputs.json"
PCP_PASSWORD = "pcp_password"  # noqa: S105  # a file's name
"""The administrator's password in the run directory, when boot had to make one."""
CHECK_KEY = "check_key"
"""The key of the check role's password in pgpool.conf, when boot had to make one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The environment that boot resolved. Secrets are in it as paths of files, never as values."""

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
    name = RUN_DIR.name
    file = env.get(f"{name}_FILE")
    raw = Raw(env.get(name, RUN_DIR.default or ""), ENVIRONMENT)
    try:
        if name not in env and file is not None:
            raw = Raw(text(Reader().file(Path(file))), file)
        return RUN_DIR.parse(raw.value)
    except SourceError as error:
        problem = Problem(f"{name}_FILE", ENVIRONMENT, str(error), error.remedy)
    except UnicodeDecodeError:
        problem = Problem(f"{name}_FILE", ENVIRONMENT, f"{file} is not UTF-8 text", "write the file anew")
    except InvalidValueError as error:
        problem = Problem(name, raw.origin, raw.quoted(error.what), error.remedy)
    raise ConfigurationError([problem])
