"""The variables and the mounted files of pgpool/pgpool (pgpool2_on_k8s)."""

from collections.abc import Mapping
from pathlib import Path

from entrypoint.catalogue import Catalogue
from entrypoint.compat.draft import Draft, Row, is_on, read_conf, read_rows
from entrypoint.environment import ENVIRONMENT, PARAMS_PREFIX, find_settings, given_as
from entrypoint.sources import Raw

NAME = "pgpool/pgpool"
VOLUME = "PGPOOL_CONF_VOLUME"

TABLE = (
    Row(variable=VOLUME, default="/config", note="the directory of `pgpool.conf`, `pool_hba.conf` and `tls`"),
    Row(variable="PGPOOL_ENABLE_POOL_PASSWD", note="always true"),
    Row(variable="PGPOOL_PASSWORD_ENCRYPTION_METHOD", note="always scram-sha-256"),
    Row(variable="PGPOOL_SKIP_PASSWORD_ENCRYPTION", note="refused: passwords are given as they are"),
    Row(variable="PGPOOL_INSTALL_DIR", note="that image's own"),
)
"""Beside these: `PGPOOL_PARAMS_<NAME>`, and `<X>_USERNAME` with `<X>_PASSWORD`; PGPOOL_PCP_… are the same here."""

DEFAULTS = {
    "backend_hostname0": "",
    "sr_check_period": "0",
    "health_check_period": "0",
}
"""What that image exports when it is not set; a mounted pgpool.conf goes without.

With or without one, it adds failover_on_backend_error off, unless that is `on` to the letter.
"""
_EMPTY_IS_UNSET = frozenset(DEFAULTS) | {
    *("port", "listen_addresses", "failover_on_backend_error", "backend_port0", "backend_weight0", "backend_flag0")
}
"""What has a default there that stands for an empty value, too; any other parameter is empty then."""


_TRUE = ("true", "yes", "on")
"""Of that image's own variables."""


def volume(env: Mapping[str, str]) -> Path:
    """The directory where that image looks for mounted files."""
    return Path(env.get(VOLUME) or "/config")


def is_pair(name: str, env: Mapping[str, str]) -> bool:
    """Whether a variable is a role's name or its password: one of a pair that is not ours."""
    base = name.removesuffix("_FILE")
    prefix, _, kind = base.rpartition("_")
    if not prefix or kind not in ("USERNAME", "PASSWORD") or name.startswith("PGPOOL_"):
        return False
    return all(given_as(f"{prefix}_{each}", env) for each in ("USERNAME", "PASSWORD"))


def mounted_conf(env: Mapping[str, str]) -> Path | None:
    """The pgpool.conf that is mounted, if it is."""
    path = volume(env) / "pgpool.conf"
    return path if _is_file(path) else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def draft(given: Draft, catalogue: Catalogue) -> None:
    """Fill in what variables and mounted files say; what is wrong with them is added to the draft's problems."""
    values = read_rows(given, TABLE)
    conf = mounted_conf(given.env) if given.here else None
    _parameters(given, conf, catalogue)
    _switch(given)
    if not given.has("PGPOOL_BACKENDS") and not given.parameters.get("backend_hostname0", Raw("", "")).value:
        what = "names no server" if conf else "is required"
        given.problems.add("PGPOOL_PARAMS_BACKEND_HOSTNAME0", "not set", what, "set it to the host of the first server")
    off = f"ssl = off in {conf}" if conf else "PGPOOL_PARAMS_SSL=off"
    on = f"enable_pool_hba = on in {conf}" if conf else "PGPOOL_PARAMS_ENABLE_POOL_HBA=on"
    given.both = f"mount {volume(given.env)}/pool_hba.conf with the line `host all all all scram-sha-256`, and set {on}"
    warn = given.warnings.append
    if values.get("PGPOOL_ENABLE_POOL_PASSWD", Raw("true", "")).value not in _TRUE:
        off = " and ".join(["PGPOOL_ENABLE_POOL_PASSWD=true", *([off] if is_on(given.parameters.get("ssl")) else [])])
        for name in ("ssl", "enable_pool_hba"):
            given.parameters[name] = Raw("on", "from PGPOOL_ENABLE_POOL_PASSWD")
        warn(
            "PGPOOL_ENABLE_POOL_PASSWD is not taken over: only roles whose passwords are given can log in; give each "
            "role that is to log in its <X>_USERNAME and <X>_PASSWORD"
        )
    given.self_signs = True
    given.certificate = (
        f"mount tls.crt and tls.key at {volume(given.env)}/tls, or name another directory that has them in "
        f"PGPOOL_TLS_DIR; or go without TLS: {off}"
    )
    _roles(given)
    _mounted(given)
    if given.lacks_roles():
        given.problems.add(
            "<X>_USERNAME",
            "not set",
            "no role is given, so that nobody could log in",
            "set <X>_USERNAME and <X>_PASSWORD for each role that is to, such as POSTGRES_USERNAME and "
            "POSTGRES_PASSWORD; or give roles in PGPOOL_USERS_DIR",
        )
    if values.get("PGPOOL_SKIP_PASSWORD_ENCRYPTION", Raw("false", "")).value in _TRUE:
        given.refuse(
            values["PGPOOL_SKIP_PASSWORD_ENCRYPTION"],
            "PGPOOL_SKIP_PASSWORD_ENCRYPTION",
            "cannot be had: a password that is encrypted already is of no use for SCRAM without its key",
            "give the passwords as they are, and PGPOOLKEYFILE to have them encrypted",
        )
    if values.get("PGPOOL_PASSWORD_ENCRYPTION_METHOD", Raw("scram-sha-256", "")).value != "scram-sha-256":
        warn(
            "PGPOOL_PASSWORD_ENCRYPTION_METHOD is not taken over: clients log in by scram-sha-256; upgrade drivers "
            "that cannot do SCRAM"
        )


def _parameters(given: Draft, conf: Path | None, catalogue: Catalogue) -> None:
    own = {name: value for name, value in given.env.items() if name.startswith(PARAMS_PREFIX)}
    variables = dict(find_settings(own, catalogue, given.reader, given.problems))
    if conf is not None:
        if variables:
            given.warnings.append(f"not taken over, because {conf} is there: {', '.join(variables)}; remove them")
        read_conf(given, conf, str(conf.parent), str(conf))
        return
    for name, value in DEFAULTS.items():
        given.parameters[name] = Raw(value, f"default of {NAME}")
    seen: dict[str, str] = {}
    for name, raw in variables.items():
        # _FILE belongs to the name only of parameters that end so.
        base = name if raw.origin == ENVIRONMENT else name.removesuffix("_FILE")
        parameter = base.removeprefix(PARAMS_PREFIX).lower()
        if parameter in seen:
            given.problems.add(name, raw.origin, f"sets the same as {seen[parameter]}", "keep one of the two")
        seen[parameter] = name
        origin = f"from {name}" if raw.origin == ENVIRONMENT else raw.origin
        if raw.value or parameter not in _EMPTY_IS_UNSET:
            given.parameters[parameter] = Raw(raw.value, origin, raw.secret)


def _switch(given: Draft) -> None:
    name, off = "failover_on_backend_error", Raw("off", f"default of {NAME}")
    raw = given.parameters.setdefault(name, off)
    if is_on(raw) and raw.value != "on":
        given.warnings.append(f"{name} ({raw.origin}) is off, as in that image, where only `on` is on; write on or off")
        given.parameters[name] = off


def _roles(given: Draft) -> None:
    prefixes = {name.removesuffix("_FILE").rpartition("_")[0] for name in given.env if is_pair(name, given.env)}
    for prefix in sorted(prefixes):
        rows = [Row(variable=f"{prefix}_USERNAME"), Row(variable=f"{prefix}_PASSWORD", secret=True)]
        pair = read_rows(given, rows)
        given.add_role(*(pair.get(row.variable) for row in rows))
    for name in sorted(name for name, value in given.env.items() if value and name.endswith("_USERNAME")):
        password = f"{name.removesuffix('_USERNAME')}_PASSWORD"
        if not name.startswith("PGPOOL_") and not any(given.env[each] for each in given_as(password, given.env)):
            given.warnings.append(
                f"{name} names no role, because {password} is not set; set it if that role is to log in"
            )


def _mounted(given: Draft) -> None:
    """pool_hba.conf and the certificate, where that image looks for them."""
    directory = volume(given.env)
    uses_hba = is_on(given.parameters.get("enable_pool_hba"))
    hba = directory / "pool_hba.conf"
    has_hba = given.here and _is_file(hba)
    if has_hba:
        if uses_hba:
            given.set("PGPOOL_HBA_FILE", Raw(str(hba), f"from {directory}"))
        else:
            given.warnings.append(f"{hba} is not used, because enable_pool_hba is not on; set it to have it used")
    elif not uses_hba and not given.has("PGPOOL_HBA_FILE"):
        given.warnings.append(
            "every client logs in to pgpool itself, by SCRAM, though enable_pool_hba is not on; give each role that is "
            "to log in its <X>_USERNAME and <X>_PASSWORD"
        )
    if uses_hba and not has_hba and not given.has("PGPOOL_HBA_FILE"):
        given.warnings.append(
            "clients on the Unix socket need their password, too (no `trust` there); give it to scripts that log in "
            "without one"
        )
    given.parameters.pop("enable_pool_hba", None)
    pair = {"ssl_cert": directory / "tls/tls.crt", "ssl_key": directory / "tls/tls.key"}
    if given.here and all(map(_is_file, pair.values())):
        given.parameters["ssl"] = Raw("on", f"from {directory}")
        given.parameters |= {name: Raw(str(path), f"from {directory}") for name, path in pair.items()}
