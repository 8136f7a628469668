"""What boot was given, written down for the sidecar, so that the two cannot be configured differently."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from entrypoint.catalogue import Catalogue
from entrypoint.environment import is_ours, is_secret
from entrypoint.publish import replace_file

INPUTS = "inputs.json"
PCP_PASSWORD = "pcp_password"  # noqa: S105  # a file's name
"""The administrator's password in the run directory, when boot had to make one."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """The environment that boot resolved. Secrets are in it as paths of files, never as values."""

    pgpool: str
    """The installed version, such as 4.6.1."""
    environment: Mapping[str, str]
    withheld: tuple[str, ...]
    """Names of variables whose value is a secret: whoever needs one must be given it."""

    def write(self, run_dir: Path) -> None:
        """Write inputs.json by rename. Raises OSError."""
        document = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False)
        replace_file(run_dir / INPUTS, f"{document}\n".encode())


def gather(env: Mapping[str, str], catalogue: Catalogue, pgpool: str) -> Inputs:
    """The part of the environment that the pipeline reads."""
    ours = {name: value for name, value in env.items() if is_ours(name, value)}
    withheld = tuple(sorted(name for name in ours if is_secret(name, catalogue)))
    return Inputs(pgpool, {name: ours[name] for name in sorted(ours) if name not in withheld}, withheld)


def read_inputs(run_dir: Path) -> Inputs:
    """What boot wrote. Raises OSError, or ValueError when it is not ours."""
    document = json.loads((run_dir / INPUTS).read_bytes())
    try:
        return Inputs(str(document["pgpool"]), dict(document["environment"]), tuple(document["withheld"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{run_dir / INPUTS} is not what pgpool-entrypoint writes: {error!r}") from None
