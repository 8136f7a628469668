"""The environment, read against the table of settings: `NAME`, `NAME_FILE`, unknown names, service links."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from entrypoint import settings as table
from entrypoint.backends import BackendsError
from entrypoint.catalogue import Catalogue, InvalidValueError, Parameter, close_to
from entrypoint.errors import Problems
from entrypoint.settings import Given, Setting, Settings
from entrypoint.sources import Raw, Reader, SourceError, text
from entrypoint.values import Patroni, absolute_path

ENVIRONMENT = "environment"
PARAMS_PREFIX = "PGPOOL_PARAMS_"
SIDECAR_PREFIX = "PGPOOL_SIDECAR_"

_SERVICE_LINK = re.compile(
    r"PGPOOL(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_URL = re.compile(r"(tcp|udp|sctp)://")
_BY_NAME = {setting.name: setting for setting in table.TABLE}

T = TypeVar("T")


def load(
    env: Mapping[str, str],
    catalogue: Catalogue,
    reader: Reader,
    problems: Problems,
    translated: Mapping[str, Raw] | None = None,
) -> Settings:
    """Read the environment against the table.

    Whatever is wrong is added to `problems`, and the setting's fallback stands in, so that the caller can
    go on and find more; a result with problems is never to be used for anything else.

    Args:
        env: the environment, in our own words.
        catalogue: the parameters of the installed pgpool.
        reader: reads the files of `NAME_FILE`.
        problems: collects what is wrong.
        translated: settings that were given in another image's words, under our names; who translated them has
            checked that nothing is missing, and that none is given twice.
    """
    found = {**dict(find_settings(env, catalogue, reader, problems)), **(translated or {})}
    for setting in table.TABLE if translated is None else ():
        if setting.required and not given_as(setting.name, env):
            problems.add(setting.name, "not set", "is required", f"set it to {setting.shape}")

    for setting in table.TABLE:
        if setting.name.startswith(SIDECAR_PREFIX):  # its mistakes are told here as well
            parse_setting(setting, found, problems)

    def value(setting: Setting[T], fallback: T) -> T:
        parsed = parse_setting(setting, found, problems)
        return fallback if parsed is None else parsed

    def optional(setting: Setting[T]) -> T | None:
        return parse_setting(setting, found, problems)

    return Settings(
        backends=value(table.BACKENDS, ()),
        users_dir=value(table.USERS_DIR, table.REFUSED),
        check_user=value(table.CHECK_USER, ""),
        key_file=optional(table.KEY_FILE),
        hba_file=optional(table.HBA_FILE),
        tls_dir=optional(table.TLS_DIR),
        pcp_user=value(table.PCP_USER, ""),
        pcp_password=optional(table.PCP_PASSWORD),
        patroni=value(table.PATRONI, Patroni(enabled=False)),
        run_dir=value(table.RUN_DIR, table.REFUSED),
        compat=optional(table.COMPAT),
        params=tuple(_params(found, catalogue, problems)),
        found=found,
    )


def given_as(variable: str, env: Mapping[str, str]) -> list[str]:
    """The names under which a variable is given: its own, and that with `_FILE`."""
    return [name for name in (variable, f"{variable}_FILE") if name in env]


def is_ours(name: str, value: str) -> bool:
    """Whether a variable speaks to this program: `PGPOOL_…` and PGPOOLKEYFILE, but no service link.

    Kubernetes gives every pod `PGPOOL_PORT=tcp://…` and a dozen more when a Service is called pgpool (or
    pgpool-metrics, say), unless the pod has `enableServiceLinks: false`.
    """
    if not name.startswith(("PGPOOL_", "PGPOOLKEY")):
        return False
    is_link = _SERVICE_LINK.fullmatch(name) or (name.endswith("_PORT") and _SERVICE_LINK_URL.match(value))
    return not is_link


def is_secret(name: str, catalogue: Catalogue) -> bool:
    """Whether a variable's own value is a secret, written down nowhere; that of its `_FILE` form is only a path."""
    if name in _BY_NAME:
        return _BY_NAME[name].secret
    parameter = _given_parameter(name, catalogue)
    return parameter is not None and parameter.secret


def is_confidential(name: str, catalogue: Catalogue) -> bool:
    """Whether a variable's own value is not shown: secrets, and commands, which unlike those are in inputs.json."""
    parameter = _given_parameter(name, catalogue)
    return is_secret(name, catalogue) if parameter is None else parameter.confidential


def _given_parameter(variable: str, catalogue: Catalogue) -> Parameter | None:
    return _parameter(variable, catalogue) if variable.startswith(PARAMS_PREFIX) else None


def _parameter(name: str, catalogue: Catalogue) -> Parameter | None:
    try:
        return catalogue.find(name.removeprefix(PARAMS_PREFIX))[0]
    except InvalidValueError:
        return None


def find_settings(
    env: Mapping[str, str], catalogue: Catalogue, reader: Reader, problems: Problems
) -> Iterator[tuple[str, Raw]]:
    """Every variable that is ours, with its text; `NAME_FILE` stays under that name. Adds to `problems`."""
    for name in sorted(name for name, value in env.items() if is_ours(name, value)):
        base = base_name(name, catalogue)
        if base is None:
            problems.add(name, ENVIRONMENT, "is not a setting", _suggestion(name, catalogue))
            continue
        raw = read_variable(name, base, env, reader, problems, secret=is_confidential(base, catalogue))
        if raw is not None:
            yield name, raw


def read_variable(
    name: str, base: str, env: Mapping[str, str], reader: Reader, problems: Problems, *, secret: bool
) -> Raw | None:
    """The text of a variable: its own when `name` is `base`, or that of the file it names. Adds to `problems`."""
    if not _is_text(env[name]):
        problems.add(name, ENVIRONMENT, "is not UTF-8 text", "correct the value")
    elif base == name:
        return Raw(env[name], ENVIRONMENT, secret)
    elif base in env:
        problems.add(name, ENVIRONMENT, f"is set, and so is {base}", "keep one of the two")
    elif not env[name].startswith("/"):
        # A secret's value may stand where its path belongs.
        raw = Raw(env[name], ENVIRONMENT, secret)
        problems.add(name, ENVIRONMENT, raw.quoted("is not an absolute path"), "begin it with /")
    elif (value := _from_file(name, env[name], reader, problems)) is not None:
        return Raw(value, env[name], secret)
    return None


def _is_text(value: str) -> bool:
    """Whether an environment variable is UTF-8: os.environ has other bytes as lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _from_file(name: str, path: str, reader: Reader, problems: Problems) -> str | None:
    try:
        return text(reader.file(Path(path)))
    except SourceError as error:
        problems.add(name, ENVIRONMENT, str(error), error.remedy)
    except UnicodeDecodeError:
        problems.add(name, path, "is not UTF-8 text", "write the file anew")
    return None


def base_name(name: str, catalogue: Catalogue) -> str | None:
    """The setting a variable sets: itself, or what stands before `_FILE`; None when there is none."""
    for candidate in (name, name.removesuffix("_FILE")):
        if candidate in _BY_NAME:
            return candidate
    if name.startswith(PARAMS_PREFIX):
        without = name.removesuffix("_FILE")
        # ssl_crl_file and a few more are parameters of that name, hence the whole name first.
        if without != name and not is_parameter(name, catalogue) and is_parameter(without, catalogue):
            return without
        return name
    return None


def is_parameter(variable: str, catalogue: Catalogue) -> bool:
    """Whether `PGPOOL_PARAMS_<NAME>`, or the name alone, means a parameter of pgpool.conf."""
    return _parameter(variable, catalogue) is not None


def _suggestion(name: str, catalogue: Catalogue) -> str:
    bare = name.removeprefix("PGPOOL_")
    if is_parameter(bare, catalogue):
        return f"a parameter of pgpool.conf is set as {PARAMS_PREFIX}{bare}"
    close = close_to(name, [*_BY_NAME, *(f"{known}_FILE" for known in _BY_NAME)], 0.76)
    return f"did you mean {close}?" if close else "`pgpool-entrypoint settings` lists them all"


def parse_setting(setting: Setting[T], found: Mapping[str, Raw], problems: Problems) -> T | None:
    """The value of one row of the table, or None; what is wrong with it is added to `problems`."""
    raw = setting.given(found)
    if raw is None:
        if setting.default is None:
            return None
        raw = Raw(setting.default, "default")
    if not raw.value:
        problems.add(setting.name, raw.origin, "is empty", "give it a value, or do not set it at all")
        return None
    try:
        return setting.parse(raw.value)
    except InvalidValueError as error:
        what = raw.quoted(error.what) if setting.repeatable else error.what
        remedy = error.remedy
        if setting.parse is absolute_path and raw is found.get(f"{setting.name}_FILE"):
            remedy = f"to name that file itself, set {setting.name} to its path"
        problems.add(setting.name, raw.origin, what, remedy)
    except BackendsError as error:
        from_file = raw.origin.startswith("/")
        for fault in ["is no list of backends"] if from_file else error.faults:
            problems.add(setting.name, raw.origin, fault, f"write {setting.shape}")
    return None


def _params(found: Mapping[str, Raw], catalogue: Catalogue, problems: Problems) -> Iterator[Given]:
    for variable, raw in found.items():
        base = base_name(variable, catalogue)
        if base is None or not base.startswith(PARAMS_PREFIX):
            continue
        name = base.removeprefix(PARAMS_PREFIX)
        try:
            catalogue.find(name)
        except InvalidValueError as error:
            problems.add(variable, raw.origin, error.what, error.remedy)
            continue
        try:
            yield Given(variable, catalogue.assign(name, raw.value), raw.origin)
        except InvalidValueError as error:
            problems.add(variable, raw.origin, raw.quoted(error.what), error.remedy)
