"""Finds out whose variables an environment speaks, and reads it: the way into the settings for everybody."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from entrypoint import settings as table
from entrypoint.catalogue import Catalogue, close_to
from entrypoint.compat import bitnami, official
from entrypoint.compat.draft import Draft
from entrypoint.compat.native import settle
from entrypoint.environment import (
    ENVIRONMENT,
    PARAMS_PREFIX,
    base_name,
    given_as,
    is_ours,
    is_parameter,
    is_secret,
    load,
)
from entrypoint.errors import Problems
from entrypoint.material import Supplied
from entrypoint.settings import Settings
from entrypoint.sources import Raw, Reader, SourceError, text

_SHARED = {row.variable for row in bitnami.TABLE} & {row.variable for row in official.TABLE}
IMAGES = {"bitnami": bitnami.NAME, "official": official.NAME}
ROWS = {"bitnami": bitnami.TABLE, "official": official.TABLE}
_NAMES = {image: [row.variable for row in rows] for image, rows in ROWS.items()}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and what stands beside them in another image's words (None: nothing does)."""

    settings: Settings
    supplied: Supplied | None
    warnings: tuple[str, ...] = ()


def load_translated(
    env: Mapping[str, str], catalogue: Catalogue, reader: Reader, problems: Problems, *, here: bool = True
) -> Loaded:
    """Read an environment in whichever words. What is wrong is added to `problems`, as by environment.load.

    `here`: whether what may be mounted beside it is mounted on this machine.
    Raises ConfigurationError when it speaks two images' words at once.
    """
    servers = _servers(env, here=here)
    if len(servers) > 1 and _named(env) is None:
        names = [name for _, name in servers]
        what = f"is set, and so is {' and '.join(names[1:])}: these are ways of different images to give the servers"
        problems.add(names[0], ENVIRONMENT, what, "keep one of them, or say in PGPOOL_COMPAT whose variables count")
        problems.raise_if_any()  # whose words the rest is cannot be told
    image = image_of(env, here=here)
    if image is None:
        return Loaded(load(env, catalogue, reader, problems), None)
    theirs = variables_of(image, env)
    draft = Draft(env, theirs, reader, problems, here=here)
    if image == "bitnami":
        bitnami.draft(draft)
        supplied = settle(draft, catalogue, keep=bitnami.KEPT)
    else:
        official.draft(draft, catalogue)
        supplied = settle(draft, catalogue)
    if not draft.has(table.COMPAT.name):
        draft.settings[table.COMPAT.name] = Raw(image, "told from the other variables")
    strangers = _strangers(image, env, theirs, catalogue)
    for name, remedy in strangers.items():
        draft.warnings.append(f"{name} is passed over, as by that image, which has no such variable; {remedy}")
    rest = _without(theirs | strangers.keys() | _unset(image, env), env)
    settings = load(rest, catalogue, reader, problems, draft.settings)
    if settings.key_file is None and supplied.key is None:
        draft.warnings.append(
            "passwords stand in pool_passwd as they are (in that image, encrypted with a random key beside it); set "
            f"{'PGPOOL_AES_KEY_FILE' if image == 'bitnami' else 'PGPOOLKEYFILE'} to have them encrypted"
        )
    return Loaded(settings, supplied, tuple(draft.warnings))


def _without(names: AbstractSet[str], env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if name not in names}


def _strangers(image: str, env: Mapping[str, str], theirs: AbstractSet[str], catalogue: Catalogue) -> dict[str, str]:
    """The variables that are nobody's, which that image passes over, each with what to do; none that is nearly ours."""
    found = {}
    ours = [setting.name for setting in table.TABLE]
    for name, value in sorted(env.items()):
        if name in theirs or not is_ours(name, value) or base_name(name, catalogue) is not None:
            continue
        close = close_to(name, [*ours, *_NAMES[image]], 0.9)
        parameter = f"{PARAMS_PREFIX}{name.removeprefix('PGPOOL_')}"
        if close in ours:
            continue
        if close is not None and not given_as(close, env):
            found[name] = f"did you mean {close}?"
        elif is_parameter(parameter, catalogue):
            found[name] = f"to set that parameter, write {parameter}; else remove it"
        else:
            found[name] = "remove it"
    return found


def _unset(image: str, env: Mapping[str, str]) -> set[str]:
    """The variables whose default in the official image is an empty value."""
    names = (table.PCP_USER.name, table.PCP_PASSWORD.name) if image == "official" else ()
    return {name for name in names if not env.get(name)}


def _unknown(theirs: AbstractSet[str], catalogue: Catalogue) -> set[str]:
    """The variables for parameters that pgpool does not have."""
    parameters = {name: base_name(name, catalogue) for name in theirs if name.startswith(PARAMS_PREFIX)}
    return {name for name, base in parameters.items() if base is None or not is_parameter(base, catalogue)}


def image_of(env: Mapping[str, str], *, here: bool = True) -> str | None:
    """`official` or `bitnami`, or None when the environment speaks our own words alone."""
    named = _named(env)
    if named is not None:
        return named if named in ROWS else None
    if servers := _servers(env, here=here):
        return servers[0][0]
    for image, names in _NAMES.items():
        if any(given_as(name, env) for name in names if name not in _SHARED):
            return image
    return None


def variables_of(image: str | None, env: Mapping[str, str]) -> frozenset[str]:
    """The names of the variables in `env` that are that image's."""
    if image is None:
        return frozenset()
    found = {name for variable in _NAMES[image] for name in given_as(variable, env)}
    if image == "official":
        found |= {name for name in env if name.startswith(PARAMS_PREFIX) or official.is_pair(name, env)}
    return frozenset(found)


def recorded(env: Mapping[str, str], catalogue: Catalogue) -> tuple[dict[str, str], tuple[str, ...]]:
    """What of an environment another process needs to come to the same, and the names that hold secrets.

    Whose words they are is part of it: so that is not judged again by what is mounted then.
    """
    image = image_of(env)
    theirs = variables_of(image, env)
    ours = {name: value for name, value in env.items() if name in theirs or is_ours(name, value)}
    if image is not None:  # what is passed over may hold anything
        passed_over = _strangers(image, env, theirs, catalogue).keys() | _unknown(theirs, catalogue)
        ours = _without(passed_over | _unset(image, env), ours)
    secrets = {row.variable for row in ROWS.get(image or "", ()) if row.secret}
    if image == "official":
        secrets |= {name for name in theirs if name.endswith("_PASSWORD") and not name.startswith("PGPOOL_")}
    withheld = tuple(sorted(name for name in ours if name in secrets or is_secret(name, catalogue)))
    plain = {name: ours[name] for name in sorted(ours) if name not in withheld}
    plain.pop(f"{table.COMPAT.name}_FILE", None)
    return ({**plain, table.COMPAT.name: image} if image else plain), withheld


def pcp_password_variable(env: Mapping[str, str]) -> str:
    """The variable that has the PCP administrator's password, or that with `_FILE`."""
    return (
        bitnami.PCP_PASSWORD
        if image_of(env) == "bitnami" and given_as(bitnami.PCP_PASSWORD, env)
        else table.PCP_PASSWORD.name
    )


def _named(env: Mapping[str, str]) -> str | None:
    """What PGPOOL_COMPAT says; what is wrong with it is told when the settings are read."""
    name = table.COMPAT.name
    if name in env:
        return env[name]
    try:
        return text(Reader().file(Path(env[f"{name}_FILE"]))) if f"{name}_FILE" in env else None
    except (SourceError, UnicodeDecodeError):
        return None


def _servers(env: Mapping[str, str], *, here: bool) -> list[tuple[str | None, str]]:
    """Whose ways to give the servers are used, and by which variable; ours first."""
    found: list[tuple[str | None, str]] = [(None, name) for name in given_as(table.BACKENDS.name, env)[:1]]
    found += [("bitnami", name) for name in given_as("PGPOOL_BACKEND_NODES", env)[:1]]
    hosts = sorted(name for name in env if name.startswith(f"{PARAMS_PREFIX}BACKEND_HOSTNAME"))
    if hosts and None not in dict(found):
        found.append(("official", hosts[0]))
    elif not found and here and (path := official.mounted_conf(env)) is not None:
        found.append(("official", str(path)))
    return found
