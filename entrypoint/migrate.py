"""From another image's environment to the native configuration, and to how pgpool will behave otherwise."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from entrypoint import defaults, hba, tls
from entrypoint import settings as table
from entrypoint.catalogue import Assignment, Catalogue, InvalidValueError
from entrypoint.compat.elsewhere import NOT_HERE, Elsewhere, left_open, scripts
from entrypoint.compat.native import OURS
from entrypoint.compat.source import Source
from entrypoint.compat.translate import IMAGES, Loaded, image_of, load_translated
from entrypoint.compat.workload import RUNNING, UNKNOWN
from entrypoint.defaults import Default
from entrypoint.environment import PARAMS_PREFIX
from entrypoint.errors import ConfigurationError, Problem, Problems
from entrypoint.material import Credential
from entrypoint.migration import Migration
from entrypoint.sources import Raw, Reader, SourceError, text

_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def migrate(source: Source, catalogue: Catalogue) -> Migration:
    """The native configuration for this environment. Raises ConfigurationError for what cannot be translated.

    What can be translated may still not boot, with files and secrets that are not here: `check` says that.
    """
    image = image_of(source.environment, here=source.here)
    if unknown := list(left_open(source, image, catalogue)):
        raise ConfigurationError(unknown)  # the rest cannot be judged without
    if image is None:
        what = "is not an environment of pgpool/pgpool or bitnami/pgpool"
        raise ConfigurationError([Problem("input", "migrate", what, "give one, with PGPOOL_COMPAT if need be")])
    problems, reader = Problems(), Elsewhere()
    loaded = load_translated(source.environment, catalogue, reader, problems, here=source.here)
    problems.raise_if_any()
    result = Migration(container=source.container)
    _parameters(result, loaded, catalogue, image, source)
    _roles(result, loaded, source)
    _files(result, loaded, source)
    result.differences[:0] = [re.sub(f"'{UNKNOWN}(\\w+)'", r"the value of \1", each) for each in loaded.warnings]
    for path in dict.fromkeys(reader.missing):
        if path == str(Path(source.environment.get("PGPOOL_USER_CONF_FILE", ""))):
            result.differences.append(f"the lines of {path} are missing here; run this where that file is")
    result.differences += scripts(source, image)
    if source.dropped:
        result.differences.append(
            f"{', '.join(source.dropped)} of the container are not taken over, nor printed, for they may hold secrets; "
            "arguments for pgpool follow `run --`"
        )
    result.differences.append(
        "probes, scripts in /docker-entrypoint-initdb.d and files below /opt of that image do not exist here; "
        "the probes are in the patch"
    )
    return result


def _parameters(result: Migration, loaded: Loaded, catalogue: Catalogue, image: str, source: Source) -> None:
    """What is not a default of this image, nor of pgpool where this image has none."""
    ours = {
        each.name: each
        for section in (defaults.CLIENTS, defaults.CHECKS, defaults.FAILOVER, defaults.ADMINISTRATION)
        for each in section.defaults
    }
    seen = set()
    for name, raw in sorted(loaded.settings.found.items()):
        if name.startswith(PARAMS_PREFIX):
            assignment = catalogue.assign(_base(name, raw).removeprefix(PARAMS_PREFIX), raw.value)
            seen.add(assignment.name)
            usual = ours.get(assignment.name)
            if not _is_usual(assignment, usual, catalogue):
                _parameter(result, assignment, raw, usual, image, source)
        elif (base := _base(name, raw)) in (table.BACKENDS.name, table.PATRONI.name, table.RUN_DIR.name) or (
            "_SIDECAR_" in name
        ):
            _set(result, base, raw)
    result.differences += [
        f"{name} is {ours[name].value} here ({ours[name].why}); PGPOOL_PARAMS_{name.upper()} sets it"
        for name in ours
        if name in OURS - seen - {"listen_addresses"}  # that is * in both images, too
    ]


def _base(name: str, raw: Raw) -> str:
    """The setting that a variable is: `NAME_FILE` of one whose value was in a file is NAME."""
    return name.removesuffix("_FILE") if raw.origin.startswith("/") else name


def _parameter(
    result: Migration, assignment: Assignment, raw: Raw, own: Default | None, image: str, source: Source
) -> None:
    parameter, variable = assignment.parameter, f"{PARAMS_PREFIX}{assignment.name.upper()}"
    if parameter.name in defaults.RESERVED:
        reserved = defaults.RESERVED[parameter.name]
        raise ConfigurationError([Problem(variable, raw.origin, reserved.reason, reserved.instead)])
    if parameter.confidential:
        words = _value(_variable(raw, variable), source, "value")
        result.secrets.setdefault("pgpool-parameters", {})[assignment.name] = words
        result.mounts["pgpool-parameters"] = "/etc/pgpool/parameters"
        _set(result, f"{variable}_FILE", Raw(f"/etc/pgpool/parameters/{assignment.name}", raw.origin))
        return
    _set(result, variable, raw)
    if own is not None and raw.origin.startswith("default"):
        result.differences.append(
            f"{variable}={raw.value} keeps a default of {IMAGES[image]}; without it, it is {own.value or 'empty'} "
            f"({own.why})"
        )


def _is_usual(assignment: Assignment, own: Default | None, catalogue: Catalogue) -> bool:
    """Whether this is what there is without it: a default of ours, or of pgpool."""
    usual = assignment.parameter.default if own is None else own.value
    text = {True: "on", False: "off"}[usual] if isinstance(usual, bool) else str(usual)
    try:
        return catalogue.assign(assignment.name, text).encoded == assignment.encoded
    except InvalidValueError:
        return False


def _set(result: Migration, name: str, raw: Raw) -> None:
    result.settings[name] = raw.value
    result.origins[name] = raw.origin


def _roles(result: Migration, loaded: Loaded, source: Source) -> None:
    users = "/etc/pgpool/users"
    places: dict[str, str] = {}
    credentials: dict[str, Credential] = {}
    for number, each in enumerate(loaded.supplied.credentials if loaded.supplied else ()):
        value = _value_of(each, source)
        if (former := credentials.get(each.role)) is not None:
            _second(result, former, each, source)
            continue
        credentials[each.role] = each
        if not each.role.startswith(UNKNOWN) and _KEY.fullmatch(each.role):
            result.secrets.setdefault("pgpool-users", {})[each.role] = value
            result.mounts.setdefault("pgpool-users", users)
            continue
        secret = f"pgpool-user-{number}"
        variable = each.role.removeprefix(UNKNOWN)
        name = _value(variable, source) if variable != each.role else f"the name {json.dumps(each.role)}"
        result.secrets[secret] = {"username": name, "password": value}
        result.mounts[secret] = f"{users}/{secret}"
        places[each.role] = f"{users}/{secret}/username"
    if (directory := table.USERS_DIR.given(loaded.settings.found)) is not None:
        result.secrets.setdefault("pgpool-users", {})
        result.mounts.setdefault("pgpool-users", users)
        result.differences.append(
            f"the files in {directory.value} are not looked at; put them into Secret pgpool-users"
        )
    raw = table.CHECK_USER.given(loaded.settings.found)
    if raw is not None and raw.value in places:
        _set(result, f"{table.CHECK_USER.name}_FILE", Raw(places[raw.value], raw.origin))
    elif raw is not None and raw.value.startswith(UNKNOWN):
        raise ConfigurationError([Problem(table.CHECK_USER.name, raw.origin, "has a value that is not here", RUNNING)])
    elif raw is not None and raw.value != table.CHECK_USER.default:
        _set(result, table.CHECK_USER.name, raw)


def _second(result: Migration, former: Credential, other: Credential, source: Source) -> None:
    """The same role once more, with another password, or with one of which nobody here knows whether it is another."""
    places = [_value_of(each, source) for each in (former, other)]
    if any(each.password.reveal().startswith((UNKNOWN, NOT_HERE)) for each in (former, other)):
        words = f"{places[0]} is taken, and {places[1]} must be the same"
        role = other.role.removeprefix(UNKNOWN)
        who = repr(role) if role == other.role else f"in {role}"
        result.differences.append(f"the role {who} has its password twice: {words}")
    else:
        what = f"has another password in {places[0]}"
        raise ConfigurationError([Problem(f"role {other.role!r}", other.origin, what, "keep one of the two")])


def _files(result: Migration, loaded: Loaded, source: Source) -> None:
    found, supplied = loaded.settings.found, loaded.supplied

    def secret(name: str, directory: str, key: str, words: str) -> str:
        result.secrets.setdefault(name, {})[key] = words
        result.mounts[name] = directory
        return f"{directory}/{key}"

    for key, setting in (("username", table.PCP_USER), ("password", table.PCP_PASSWORD)):
        raw = setting.given(found)
        if raw is None:
            continue
        if setting.secret or raw.value.startswith(UNKNOWN):
            words = _value(_variable(raw, setting.name), source)
            path = secret("pgpool-pcp", "/etc/pgpool/pcp", key, words)
            _set(result, f"{setting.name}_FILE", Raw(path, raw.origin))
        else:
            _set(result, setting.name, raw)
    key_file = table.KEY_FILE.given(found)
    if key_file is not None or (supplied is not None and supplied.key is not None):
        words = _file(key_file.value, source) if key_file else _value("PGPOOL_AES_KEY", source)
        path = secret("pgpool-key", "/etc/pgpool/key", "aes.key", words)
        _set(result, table.KEY_FILE.name, Raw(path, "from PGPOOL_AES_KEY"))
    certificate = dict(_certificate(loaded, source))
    for file, words in certificate.items():
        secret("pgpool-tls", "/etc/pgpool/tls", file, words)
        raw = table.TLS_DIR.given(found)
        _set(result, table.TLS_DIR.name, Raw("/etc/pgpool/tls", raw.origin if raw else "TLS is on"))
    if (hba_file := table.HBA_FILE.given(found)) is not None:
        result.config_maps["pgpool-hba"] = {"pool_hba.conf": _file(hba_file.value, source)}
        result.mounts["pgpool-hba"] = "/etc/pgpool/hba"
        has_tls, has_authority = "tls.crt" in certificate, "ca.crt" in certificate
        result.differences += _hba_faults(Path(hba_file.value), has_tls=has_tls, has_authority=has_authority)
        _set(result, table.HBA_FILE.name, Raw("/etc/pgpool/hba/pool_hba.conf", hba_file.origin))


def _certificate(loaded: Loaded, source: Source) -> Iterator[tuple[str, str]]:
    """The files of the Secret for TLS, each with what goes in."""
    if loaded.supplied is not None and loaded.supplied.tls is None:
        yield "tls.crt", "a certificate for the name that clients connect to (cert-manager makes one, as in deploy/)"
        yield "tls.key", "its key"
    elif loaded.supplied is not None and loaded.supplied.tls:
        yield from ((file, _file(str(place), source)) for file, place in loaded.supplied.tls.items())
    elif (directory := loaded.settings.tls_dir) is not None:
        yield from ((file, _file(f"{directory}/{file}", source)) for file in tls.REQUIRED)
        if not directory.is_dir():
            yield "ca.crt", f"{_file(f'{directory}/ca.crt', source)}, if it is there"
        elif (directory / "ca.crt").is_file():
            yield "ca.crt", _file(f"{directory}/ca.crt", source)


def _hba_faults(path: Path, *, has_tls: bool, has_authority: bool) -> Iterator[str]:
    """What is to be changed in a pool_hba.conf that is here; nothing is known of one that is not."""
    with suppress(SourceError, UnicodeDecodeError):
        content = text(Reader().file(path))
        for number, fault in hba.faults(content, tls=has_tls, authority=has_authority):
            yield f"line {number} of {path} will be refused: {fault}"


def _value_of(credential: Credential, source: Source) -> str:
    place, _, part = credential.origin.partition(", part ")
    return (f"part {part} of " if part else "") + _value(place, source)


def _file(path: str, source: Source) -> str:
    return f"the content of {path}" + _of_secret(path, source)


def _content(place: str, what: str) -> str:
    path, _, line = place.partition(", line ")
    return f"the {what} in line {line} of {path}" if line else f"the content of {path}"


def _variable(raw: Raw, setting: str) -> str:
    return (
        raw.origin if raw.origin.startswith("/") else raw.origin.removeprefix("from ").replace("environment", setting)
    )


def _value(variable: str, source: Source, what: str = "password") -> str:
    if variable.startswith("/"):
        return _content(variable, what) + _of_secret(variable, source)
    words = source.references.get(variable)
    return f"the value of {variable}" + (f": {words}" if words else "")


def _of_secret(path: str, source: Source) -> str:
    directory, _, name = path.rpartition("/")
    if words := source.references.get(path):
        return f": {words}"
    words = source.references.get(f"{directory}/")
    return f": key {name} of {words}" if words else ""
