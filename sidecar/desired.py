"""What a boot at this moment would publish, and variants of it that hold some roles back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from entrypoint import inputs, tls
from entrypoint.catalogue import Catalogue, load_catalogue
from entrypoint.errors import Problems
from entrypoint.inputs import read_inputs
from entrypoint.material import Credential
from entrypoint.model import CURRENT, MadeUp, build
from entrypoint.pipeline import Resolved, resolve
from entrypoint.publish import BOOTED
from entrypoint.render import render
from entrypoint.saslprep import prepared
from entrypoint.secret import Secret
from entrypoint.self_signed import is_self_signed
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
    desired = Desired(catalogue, made_up, resolved, now)
    _check_left(run_dir, desired)
    return desired


def _made_up(run_dir: Path) -> MadeUp:
    """What the last boot made up."""
    pcp_password, check_key = (_content(run_dir / name) for name in (inputs.PCP_PASSWORD, inputs.CHECK_KEY))
    return MadeUp(
        Secret((pcp_password or b"").decode()),
        None if check_key is None else Secret(check_key.decode()),
        _certificate(run_dir),
    )


def _certificate(run_dir: Path) -> dict[str, bytes] | None:
    """The pair that was made up: by the boot or, when pgpool was started without TLS, since then.

    None: it has been without a certificate. Empty: it has been mounted.
    """
    for name in (BOOTED, CURRENT):
        pair = {file: _content(run_dir / name / file) for file in tls.REQUIRED}
        found = {file: content for file, content in pair.items() if content is not None}
        if found:
            return found if is_self_signed(found.get("tls.crt", b"")) else {}
    return None


def _content(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def _check_left(run_dir: Path, desired: Desired) -> None:
    """Raise ValueError for a file of the boot's that is gone: an empty password in its place would be one."""
    settings, made_up = desired.resolved.settings, desired.made_up
    if settings.pcp_password is None and not made_up.pcp_password.reveal():
        raise ValueError(f"{run_dir / inputs.PCP_PASSWORD} is gone; restart pgpool")
    if desired.resolved.model.key is None and made_up.check_key is None:
        raise ValueError(f"{run_dir / inputs.CHECK_KEY} is gone; restart pgpool")
