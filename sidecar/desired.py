"""What a boot at this moment would publish, and variants of it that hold some roles back."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from entrypoint import inputs, tls
from entrypoint.catalogue import Catalogue, load_catalogue
from entrypoint.errors import Problems
from entrypoint.inputs import read_inputs
from entrypoint.material import Credential
from entrypoint.model import MadeUp, build
from entrypoint.pipeline import Resolved, resolve
from entrypoint.publish import BOOTED
from entrypoint.render import render
from entrypoint.saslprep import prepared
from entrypoint.secret import Secret
from entrypoint.tree import Tree


@dataclass(frozen=True, slots=True)
class Roles:
    """Who may log in, with which password, and which of them pgpool itself logs in as."""

    passwords: Mapping[str, Secret]
    """By role; prepared (SASLprep), as pgpool has them."""
    check_user: str


@dataclass(frozen=True, slots=True)
class Desired:
    """Settings and Secrets of one moment, without a problem."""

    catalogue: Catalogue
    made_up: MadeUp
    resolved: Resolved
    now: datetime

    @property
    def roles(self) -> Roles:
        """The roles as the Secrets have them."""
        passwords = {each.role: Secret(prepared(each.password.reveal())) for each in self.resolved.model.credentials}
        return Roles(passwords, self.resolved.settings.check_user)

    def tree(self, roles: Roles, key: Secret | None) -> Tree:
        """The files of this configuration with these roles, encrypted with this key (None: not encrypted).

        With the roles and the key of the Secrets, byte for byte what a boot publishes. Raises ConfigurationError when
        the combination breaks a rule.
        """
        settings = replace(self.resolved.settings, check_user=roles.check_user)
        credentials = tuple(Credential(role, password, "served") for role, password in roles.passwords.items())
        material = replace(self.resolved.material, credentials=credentials, key=key)
        problems = Problems()
        model = build(settings, material, self.made_up, self.catalogue, self.now, problems)
        problems.raise_if_any()
        return render(model)


def read_desired(run_dir: Path, env: Mapping[str, str], now: datetime) -> Desired:
    """Read everything again, as the last boot in this run directory did.

    Raises ConfigurationError; OSError or ValueError when nobody has booted here; ProgramUnusableError for a pgpool that
    we do not know.

    Args:
        run_dir: the shared run directory.
        env: our own environment, for the secrets that boot withheld.
        now: the time to judge certificates by, with a time zone.
    """
    boot = read_inputs(run_dir)
    problems = Problems()
    for name in boot.withheld:
        if name not in env:
            what = "was given to pgpool-entrypoint, but not to this program"
            problems.add(name, "not set", what, f"give it to both containers, or to both as {name}_FILE")
    problems.raise_if_any()
    withheld = {name: env[name] for name in boot.withheld}
    catalogue = load_catalogue(boot.pgpool)
    made_up = _made_up(run_dir)
    resolved = resolve({**boot.environment, **withheld}, catalogue, made_up=made_up, now=now)
    return Desired(catalogue, made_up, resolved, now)


def _made_up(run_dir: Path) -> MadeUp:
    """What the last boot made up. A certificate stands only in what pgpool was started with."""
    places = {name: run_dir / name for name in (inputs.PCP_PASSWORD, inputs.CHECK_KEY)}
    places |= {name: run_dir / BOOTED / name for name in tls.REQUIRED}
    found: dict[str, bytes] = {}
    for name, place in places.items():
        with suppress(FileNotFoundError):
            found[name] = place.read_bytes()
    pcp_password, check_key = found.pop(inputs.PCP_PASSWORD, b""), found.pop(inputs.CHECK_KEY, None)
    return MadeUp(Secret(pcp_password.decode()), None if check_key is None else Secret(check_key.decode()), found)
