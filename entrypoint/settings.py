"""THE table of settings.

Everything else about a setting derives from its row: the check of its value, `NAME_FILE`, unknown-name
suggestions, `pgpool-entrypoint settings` and docs/settings.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from entrypoint import values
from entrypoint.backends import Backend, parse_backends
from entrypoint.catalogue import Assignment
from entrypoint.secret import Secret
from entrypoint.sources import Raw
from entrypoint.values import Patroni

REFUSED = Path()
"""Stands in for a directory that was refused, so that more problems can be found; no accepted path is relative."""

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
    repeatable: bool = True
    """Whether a refused value may be repeated. Not where people put a secret by mistake."""

    def given(self, found: Mapping[str, Raw]) -> Raw | None:
        """What was found for it, under its name or as `…_FILE`."""
        return found.get(self.name) or found.get(f"{self.name}_FILE")

    def origin(self, found: Mapping[str, Raw]) -> str:
        """Where its value came from: `environment`, a file, or `default`."""
        raw = self.given(found)
        return "default" if raw is None else raw.origin


@dataclass(frozen=True, slots=True)
class Given:
    """A pgpool.conf parameter given by the user."""

    variable: str
    assignment: Assignment
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says, checked and typed, but for the sidecar's own settings (sidecar/options.py)."""

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
    compat: str | None
    params: tuple[Given, ...]
    found: Mapping[str, Raw] = field(repr=False)
    """Every variable that was taken into account, by the name it was given under (`…_FILE` too)."""

    def origin(self, setting: Setting[Any]) -> str:
        """Where the value of a setting came from: `environment`, a file, or `default`."""
        return setting.origin(self.found)


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
    parse=values.absolute_path,
    default="/etc/pgpool/users",
    shape="directory",
    help="The roles that may log in: a file `ROLE` that holds the password, or a directory that holds `username` "
    "and `password` (a Secret of type `kubernetes.io/basic-auth` as mounted).",
)
CHECK_USER = Setting(
    name="PGPOOL_CHECK_USER",
    parse=values.name,
    default="sr_check",
    shape="role",
    help="The role pgpool itself logs in with, for health and replication checks; it needs `pg_monitor`. Its "
    "password, of at most 79 bytes, comes from the users directory.",
)
KEY_FILE = Setting(
    name="PGPOOLKEYFILE",
    parse=values.absolute_path,
    default=None,
    repeatable=False,
    shape="file",
    help="The key that encrypts pool_passwd (AES-256); its first line counts. Unset: passwords stand in "
    "pool_passwd as they are.",
)
HBA_FILE = Setting(
    name="PGPOOL_HBA_FILE",
    parse=values.absolute_path,
    default=None,
    shape="file",
    help="Your own pool_hba.conf, checked and used whole. Unset: `scram-sha-256` for everybody, over TLS only when "
    "there is a certificate.",
)
TLS_DIR = Setting(
    name="PGPOOL_TLS_DIR",
    parse=values.absolute_path,
    default=None,
    shape="directory",
    help="`tls.crt`, `tls.key` and, for client certificates and the servers' certificates, `ca.crt` (a Secret of type "
    "`kubernetes.io/tls` as mounted). With a `ca.crt`, pgpool accepts only PostgreSQL servers whose certificates it "
    "signed: leave it out if another authority did. Unset: no TLS.",
)
PCP_USER = Setting(
    name="PGPOOL_PCP_USER",
    parse=values.pcp_user,
    default="pgpool",
    shape="name",
    help="The administrator who may use the pcp tools, on the socket in the run directory.",
)
PCP_PASSWORD = Setting(
    name="PGPOOL_PCP_PASSWORD",
    parse=values.pcp_password,
    default=None,
    secret=True,
    shape="password",
    help="The administrator's password. Unset: a random one, new at each boot, kept in the run directory.",
)
PATRONI = Setting(
    name="PGPOOL_PATRONI",
    parse=values.patroni,
    default="off",
    repeatable=False,
    shape="`off`, `on` or URLs",
    help="Where the sidecar asks Patroni who leads, a URL for each backend in their order; `on` is "
    "`http://HOST:8008` of each. When it is off, or no Patroni answers, PostgreSQL alone is asked. For https: the "
    "authorities of the system, and `ca.crt` in PGPOOL_TLS_DIR.",
)
RUN_DIR = Setting(
    name="PGPOOL_RUN_DIR",
    parse=values.absolute_path,
    default="/run/pgpool",
    shape="directory",
    help="The one writable directory, in memory, shared with the sidecar: rendered files, sockets, pid file. Like the "
    "`PGPOOL_SIDECAR_…` below, the sidecar reads it from its own environment; all else it has from there.",
)
COMPAT = Setting(
    name="PGPOOL_COMPAT",
    parse=values.choice("an image whose variables are understood", "official", "bitnami", "none"),
    default=None,
    shape="`official`, `bitnami` or `none`",
    help="Whose variables the environment speaks: those of `pgpool/pgpool`, of `bitnami/pgpool`, or only those of this "
    "table. Unset: told from how the servers are given ([migration.md](migration.md)).",
)
_OWN = "Read from the sidecar's own environment."

SIDECAR_HTTP = Setting(
    name="PGPOOL_SIDECAR_HTTP",
    parse=values.address,
    default=":9719",
    shape="`[host]:port`",
    help=f"Where the sidecar serves health and metrics. {_OWN}",
)
SIDECAR_RESTART = Setting(
    name="PGPOOL_SIDECAR_RESTART",
    parse=values.choice("a restart policy", "auto", "never"),
    default="auto",
    shape="`auto` or `never`",
    help=f"Whether the sidecar may restart pgpool for a change that only a restart applies (certificate, key). {_OWN}",
)
SIDECAR_RESTART_SPREAD = Setting(
    name="PGPOOL_SIDECAR_RESTART_SPREAD",
    parse=values.duration,
    default="60s",
    shape="duration",
    help=f"The span over which the pods of one Deployment spread such restarts. {_OWN}",
)
SIDECAR_REREAD = Setting(
    name="PGPOOL_SIDECAR_REREAD",
    parse=values.period,
    default="10s",
    shape="duration",
    help="How often the sidecar reads the Secrets again even when nothing told it of a change; at least `100ms`. "
    f"{_OWN}",
)
SIDECAR_REMOVAL_GRACE = Setting(
    name="PGPOOL_SIDECAR_REMOVAL_GRACE",
    parse=values.duration,
    default="10min",
    shape="duration",
    help="How long a role's file must have been gone before the sidecar takes the role out of pool_passwd: a Secret "
    f"that is deleted by mistake locks nobody out at once. {_OWN}",
)
SIDECAR_DATABASE = Setting(
    name="PGPOOL_SIDECAR_DATABASE",
    parse=values.name,
    default="postgres",
    shape="database",
    help="Where the sidecar logs in to try and to prove a password. When the role cannot enter there, or pg_hba.conf "
    "has no line for it, it tries in this order: the same over TLS, the database named like the role, `template1`, "
    f"`postgres`. Through pgpool, it takes the one that PostgreSQL last let the role into. {_OWN}",
)
SIDECAR_NODES = Setting(
    name="PGPOOL_SIDECAR_NODES",
    parse=values.choice("what can be done about nodes", "keep", "watch", "off"),
    default="keep",
    shape="`keep`, `watch` or `off`",
    help="What the sidecar does when pgpool's node table is not what the cluster is: put it right, only say in its log "
    f"what it would do, or not even look. {_OWN}",
)
SIDECAR_LOG = Setting(
    name="PGPOOL_SIDECAR_LOG",
    parse=values.choice("a log format", "logfmt", "json"),
    default="logfmt",
    shape="`logfmt` or `json`",
    help=f"The form of the sidecar's log, one line per transition. {_OWN}",
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
    COMPAT,
    SIDECAR_HTTP,
    SIDECAR_RESTART,
    SIDECAR_RESTART_SPREAD,
    SIDECAR_REREAD,
    SIDECAR_REMOVAL_GRACE,
    SIDECAR_DATABASE,
    SIDECAR_NODES,
    SIDECAR_LOG,
)
