"""THE table of settings, and the environment read against it.

Everything else about a setting derives from its row: the check of its value, `NAME_FILE`, unknown-name
suggestions, `pgpool-entrypoint settings` and docs/settings.md.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Generic, TypeVar

from entrypoint.backends import Backend, BackendsError, parse_backends
from entrypoint.catalogue import Assignment, Catalogue, InvalidValueError
from entrypoint.errors import Problems
from entrypoint.secret import Secret
from entrypoint.sources import Raw, Reader, SourceError, text

ENVIRONMENT = "environment"
PARAMS_PREFIX = "PGPOOL_PARAMS_"

_SERVICE_LINK = re.compile(
    r"PGPOOL(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_LINK_URL = re.compile(r"(tcp|udp|sctp)://")

MAX_PCP_PASSWORD_BYTES = 120
"""The pcp tools read a line of 320 bytes from PCPPASSFILE (LINELEN, src/libs/pcp/pcp.c), escapes included."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[T]):
    """One row of the table."""

    name: str
    parse: Callable[[str], T]
    """From text to value; raises InvalidValueError, or BackendsError."""
    default: str | None
    """The text that stands for an unset setting; None: then it has no value."""
    shape: str
    help: str
    required: bool = False
    secret: bool = False


@dataclass(frozen=True, slots=True)
class Patroni:
    """Where the sidecar asks for the leader; no URLs while enabled means port 8008 of each backend."""

    enabled: bool
    urls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """A pgpool.conf parameter given by the user."""

    variable: str
    assignment: Assignment
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, checked and typed. Field order is the table's."""

    backends: tuple[Backend, ...]
    users_dir: Path
    check_user: str
    key_file: Path | None
    hba_file: Path | None
    tls_dir: Path | None
    pcp_user: str
    pcp_password: Secret | None
    patroni: Patroni
    run_dir: Path
    sidecar_http: tuple[str, int]
    sidecar_restart: str
    sidecar_restart_spread: float
    sidecar_reread: float
    params: tuple[Given, ...]
    found: Mapping[str, Raw] = field(repr=False)
    """Every variable that was taken into account, by the name it was given under (`…_FILE` too)."""

    def origin(self, setting: Setting[Any]) -> str:
        """Where the value of a setting came from: `environment`, a file, or `default`."""
        for name in (setting.name, f"{setting.name}_FILE"):
            if name in self.found:
                return self.found[name].origin
        return "default"


def _path(value: str) -> Path:
    path = Path(value)
    if not path.is_absolute():
        raise InvalidValueError("is not an absolute path", "begin it with /")
    return path


def _name(value: str) -> str:
    if not value.isprintable():
        raise InvalidValueError("contains a line end or another control character", "give the name alone")
    return value


def _pcp_user(value: str) -> str:
    # pcp.conf and .pcppass escape neither ':' nor blanks in a way that both ends agree on.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", value):
        raise InvalidValueError(
            "is not a PCP user name", "use at most 63 letters, digits, '.', '_' or '-', such as pgpool"
        )
    return value


def _pcp_password(value: str) -> Secret:
    if not value.isprintable():
        raise InvalidValueError("contains a line end or another control character", "choose another password")
    if len(value.encode()) > MAX_PCP_PASSWORD_BYTES:
        raise InvalidValueError(
            f"is longer than {MAX_PCP_PASSWORD_BYTES} bytes, which the pcp tools cannot read",
            "choose a shorter password",
        )
    return Secret(value)


def _patroni(value: str) -> Patroni:
    if value in ("on", "off"):
        return Patroni(value == "on")
    urls = tuple(url.rstrip("/") for url in re.split(r"[,\s]+", value) if url)
    if not urls or not all(re.fullmatch(r"https?://[^\s/?#@]+", url) for url in urls):
        raise InvalidValueError(
            "is neither on, off nor a list of URLs", "write on, off, or http://HOST:8008 for each node"
        )
    return Patroni(enabled=True, urls=urls)


def _address(value: str) -> tuple[str, int]:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):([0-9]{1,5})", value)
    if match is None or not 0 < int(match[2]) < 65536:
        raise InvalidValueError("is not an address", "write [HOST]:PORT, such as :9719 or 127.0.0.1:9719")
    return match[1].strip("[]"), int(match[2])


def _restart(value: str) -> str:
    if value not in ("auto", "never"):
        raise InvalidValueError("is not a restart policy", "write auto or never")
    return value


def _duration(value: str) -> float:
    match = re.fullmatch(r"([0-9]{1,9})(ms|s|min|h)", value)
    if match is None:
        raise InvalidValueError("is not a duration", "write a whole number with a unit: ms, s, min or h")
    return int(match[1]) * {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0}[match[2]]


BACKENDS = Setting(
    name="PGPOOL_BACKENDS",
    parse=parse_backends,
    default=None,
    required=True,
    shape="`name=host[:port][?weight=1&flag=…]`, separated by commas or blanks; IPv6 in brackets",
    help="The PostgreSQL servers. Their order gives the node ids. The name is what the server calls itself in "
    "`application_name` when it replicates: under Patroni, the member name.",
)
USERS_DIR = Setting(
    name="PGPOOL_USERS_DIR",
    parse=_path,
    default="/etc/pgpool/users",
    shape="directory",
    help="The roles that may log in: a file `ROLE` that holds the password, or a directory that holds `username` "
    "and `password` (a Secret of type `kubernetes.io/basic-auth` as mounted).",
)
CHECK_USER = Setting(
    name="PGPOOL_CHECK_USER",
    parse=_name,
    default="sr_check",
    shape="role",
    help="The role pgpool itself logs in with, for health and replication checks; it needs `pg_monitor`. Its "
    "password comes from the users directory.",
)
KEY_FILE = Setting(
    name="PGPOOLKEYFILE",
    parse=_path,
    default=None,
    shape="file",
    help="The key that encrypts pool_passwd (AES-256); its first line counts. Unset: passwords stand in "
    "pool_passwd as they are.",
)
HBA_FILE = Setting(
    name="PGPOOL_HBA_FILE",
    parse=_path,
    default=None,
    shape="file",
    help="Your own pool_hba.conf, checked and used whole. Unset: `scram-sha-256` for everybody, over TLS only when "
    "there is a certificate.",
)
TLS_DIR = Setting(
    name="PGPOOL_TLS_DIR",
    parse=_path,
    default=None,
    shape="directory",
    help="`tls.crt`, `tls.key` and, for client certificates and the servers' certificates, `ca.crt` (a Secret of type "
    "`kubernetes.io/tls` as mounted). Unset: no TLS.",
)
PCP_USER = Setting(
    name="PGPOOL_PCP_USER",
    parse=_pcp_user,
    default="pgpool",
    shape="name",
    help="The administrator who may use the pcp tools, on the socket in the run directory.",
)
PCP_PASSWORD = Setting(
    name="PGPOOL_PCP_PASSWORD",
    parse=_pcp_password,
    default=None,
    secret=True,
    shape="password",
    help="The administrator's password. Unset: a random one, new at each boot, kept in the run directory.",
)
PATRONI = Setting(
    name="PGPOOL_PATRONI",
    parse=_patroni,
    default="off",
    shape="`off`, `on` or URLs",
    help="Where the sidecar asks Patroni for the leader; `on` is `http://HOST:8008` of each backend.",
)
RUN_DIR = Setting(
    name="PGPOOL_RUN_DIR",
    parse=_path,
    default="/run/pgpool",
    shape="directory",
    help="The one writable directory, in memory, shared with the sidecar: rendered files, sockets, pid file.",
)
SIDECAR_HTTP = Setting(
    name="PGPOOL_SIDECAR_HTTP",
    parse=_address,
    default=":9719",
    shape="`[host]:port`",
    help="Where the sidecar serves health and metrics.",
)
SIDECAR_RESTART = Setting(
    name="PGPOOL_SIDECAR_RESTART",
    parse=_restart,
    default="auto",
    shape="`auto` or `never`",
    help="Whether the sidecar may restart pgpool for a change that only a restart applies (certificate, key).",
)
SIDECAR_RESTART_SPREAD = Setting(
    name="PGPOOL_SIDECAR_RESTART_SPREAD",
    parse=_duration,
    default="60s",
    shape="duration",
    help="The span over which the pods of one Deployment spread such restarts.",
)
SIDECAR_REREAD = Setting(
    name="PGPOOL_SIDECAR_REREAD",
    parse=_duration,
    default="10s",
    shape="duration",
    help="How often the sidecar reads the Secrets again even when nothing told it of a change.",
)

TABLE: tuple[Setting[Any], ...] = (
    BACKENDS,
    USERS_DIR,
    CHECK_USER,
    KEY_FILE,
    HBA_FILE,
    TLS_DIR,
    PCP_USER,
    PCP_PASSWORD,
    PATRONI,
    RUN_DIR,
    SIDECAR_HTTP,
    SIDECAR_RESTART,
    SIDECAR_RESTART_SPREAD,
    SIDECAR_REREAD,
)
_BY_NAME = {setting.name: setting for setting in TABLE}


def load(env: Mapping[str, str], catalogue: Catalogue, reader: Reader, problems: Problems) -> Settings:
    """Read the environment against the table.

    Whatever is wrong is added to `problems`, and the setting's fallback stands in, so that the caller can
    go on and find more; a result with problems is never to be used for anything else.
    """
    found = dict(_find(env, catalogue, reader, problems))
    for setting in TABLE:
        if setting.required and env.keys().isdisjoint((setting.name, f"{setting.name}_FILE")):
            problems.add(setting.name, "not set", "is required", f"set it to {setting.shape}")

    def value(setting: Setting[T], fallback: T) -> T:
        parsed = _parse(setting, found, problems)
        return fallback if parsed is None else parsed

    def optional(setting: Setting[T]) -> T | None:
        return _parse(setting, found, problems)

    return Settings(
        backends=value(BACKENDS, ()),
        users_dir=value(USERS_DIR, Path("/")),
        check_user=value(CHECK_USER, ""),
        key_file=optional(KEY_FILE),
        hba_file=optional(HBA_FILE),
        tls_dir=optional(TLS_DIR),
        pcp_user=value(PCP_USER, ""),
        pcp_password=optional(PCP_PASSWORD),
        patroni=value(PATRONI, Patroni(enabled=False)),
        run_dir=value(RUN_DIR, Path("/")),
        sidecar_http=value(SIDECAR_HTTP, ("", 0)),
        sidecar_restart=value(SIDECAR_RESTART, ""),
        sidecar_restart_spread=value(SIDECAR_RESTART_SPREAD, 0.0),
        sidecar_reread=value(SIDECAR_REREAD, 0.0),
        params=tuple(_params(found, catalogue, problems)),
        found=found,
    )


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
    """Whether a variable's own value is a secret; that of its `_FILE` form is only a path."""
    if name in _BY_NAME:
        return _BY_NAME[name].secret
    if name.startswith(PARAMS_PREFIX):
        try:
            return catalogue.find(name.removeprefix(PARAMS_PREFIX))[0].secret
        except InvalidValueError:
            return False
    return False


def _find(
    env: Mapping[str, str], catalogue: Catalogue, reader: Reader, problems: Problems
) -> Iterator[tuple[str, Raw]]:
    """Every variable that is ours, with its text; `NAME_FILE` stays under that name."""
    for name in sorted(name for name, value in env.items() if is_ours(name, value)):
        base = _base_name(name, catalogue)
        if base is None:
            problems.add(name, ENVIRONMENT, "is not a setting", _suggestion(name, catalogue))
        elif not _is_text(env[name]):
            problems.add(name, ENVIRONMENT, "is not UTF-8 text", "correct the value")
        elif base == name:
            yield name, Raw(env[name], ENVIRONMENT, is_secret(base, catalogue))
        elif base in env:
            problems.add(name, ENVIRONMENT, f"is set, and so is {base}", "keep one of the two")
        elif not env[name].startswith("/"):
            # A secret's value may stand where its path belongs.
            raw = Raw(env[name], ENVIRONMENT, is_secret(base, catalogue))
            problems.add(name, ENVIRONMENT, quoted(raw, "is not an absolute path"), "begin it with /")
        elif (value := _from_file(name, env[name], reader, problems)) is not None:
            yield name, Raw(value, env[name], is_secret(base, catalogue))


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


def _base_name(name: str, catalogue: Catalogue) -> str | None:
    """The setting a variable sets: itself, or what stands before `_FILE`; None when there is none."""
    for candidate in (name, name.removesuffix("_FILE")):
        if candidate in _BY_NAME:
            return candidate
    if name.startswith(PARAMS_PREFIX):
        without = name.removesuffix("_FILE")
        # ssl_crl_file and a few more are parameters of that name, hence the whole name first.
        if without != name and not _is_parameter(name, catalogue) and _is_parameter(without, catalogue):
            return without
        return name
    return None


def _is_parameter(variable: str, catalogue: Catalogue) -> bool:
    try:
        catalogue.find(variable.removeprefix(PARAMS_PREFIX))
    except InvalidValueError:
        return False
    return True


def _suggestion(name: str, catalogue: Catalogue) -> str:
    bare = name.removeprefix("PGPOOL_")
    if _is_parameter(bare, catalogue):
        return f"a parameter of pgpool.conf is set as {PARAMS_PREFIX}{bare}"
    close = get_close_matches(name, [*_BY_NAME, *(f"{known}_FILE" for known in _BY_NAME)], 1, 0.75)
    return f"did you mean {close[0]}?" if close else "`pgpool-entrypoint settings` lists them all"


def _parse(setting: Setting[T], found: Mapping[str, Raw], problems: Problems) -> T | None:
    raw = found.get(setting.name) or found.get(f"{setting.name}_FILE")
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
        problems.add(setting.name, raw.origin, quoted(raw, error.what), error.remedy)
    except BackendsError as error:
        for fault in error.faults:
            problems.add(setting.name, raw.origin, fault, f"write {setting.shape}")
    return None


def _params(found: Mapping[str, Raw], catalogue: Catalogue, problems: Problems) -> Iterator[Given]:
    for variable, raw in found.items():
        base = _base_name(variable, catalogue)
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
            problems.add(variable, raw.origin, quoted(raw, error.what), error.remedy)


def quoted(raw: Raw, what: str) -> str:
    """`what` with the value in front of it, unless that is a secret."""
    return what if raw.secret else f"{raw.value!r} {what}"
