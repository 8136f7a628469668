"""What this image sets in pgpool.conf on its own, section by section, each value with its reason.

The reasons are for an application that must survive a Patroni switchover; every value can be overridden
by `PGPOOL_PARAMS_<NAME>`. `RESERVED` names the parameters that cannot, because a setting owns them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Default:
    """One parameter, its value as text, and why it is not left to pgpool."""

    name: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class DefaultSection:
    """Parameters under one heading of pgpool.conf."""

    title: str
    defaults: tuple[Default, ...]


CLIENTS = DefaultSection(
    "Clients; every statement goes to the primary",
    (
        Default("listen_addresses", "*", "pgpool's own default, localhost, is of no use in a pod"),
        Default("port", "9999", "pgpool's usual port"),
        Default("num_init_children", "32", "clients served at once; more wait in the listen queue"),
        Default(
            "max_pool",
            "1",
            "each child keeps that many server connections on every node, one per role and database: 2 pods of "
            "32 children take 66, and 132 while they are replaced",
        ),
        Default("backend_clustering_mode", "streaming_replication", "the servers replicate by themselves"),
        Default(
            "load_balance_mode",
            "off",
            "an application that reads its own writes must not meet a standby's lag",
        ),
    ),
)
AUTHENTICATION = DefaultSection(
    "Authentication: SCRAM on both sides, passwords from pool_passwd",
    (
        Default("enable_pool_hba", "on", "without it pgpool lets the server's pg_hba.conf decide, without SCRAM"),
        Default("pool_passwd", "pool_passwd", "beside pgpool.conf"),
    ),
)
CHECKS = DefaultSection(
    "Checks: patient, because a check that cannot log in would detach a healthy node",
    (
        Default("connect_timeout", "3000", "ms; outlives one lost packet (retransmitted after 1 s)"),
        Default("sr_check_period", "5", "s; auto_failback relies on what this check sees"),
        Default("health_check_period", "5", "s"),
        Default("health_check_timeout", "5", "s"),
        Default("health_check_max_retries", "24", "24 × 5 s: the check role's password may be wrong for 120 s"),
        Default("health_check_retry_delay", "5", "s"),
    ),
)
FAILOVER = DefaultSection(
    "Failover: client traffic detects it, new clients are held meanwhile",
    (
        Default("failover_on_backend_error", "on", "with off, clients get errors instead of being held"),
        Default(
            "failover_on_backend_shutdown",
            "off",
            "pg_terminate_backend by an administrator must not detach a node",
        ),
        Default(
            "search_primary_node_timeout",
            "60",
            "s; longer than Patroni needs when a node is lost (ttl 30 s). After it, pgpool looks again only at events "
            "such as the sidecar's attach, which an unpatched pgpool makes wait until then",
        ),
        Default(
            "auto_failback",
            "on",
            "a standby that streams again is attached again, the first time within seconds, without the sidecar, too",
        ),
        Default(
            "auto_failback_interval",
            "60",
            "s from one such attach of a node to the next: no less than the sidecar has one that flaps stay out",
        ),
    ),
)
ADMINISTRATION = DefaultSection(
    "Administration, and memory: 6 MB instead of 134 MB, as no query cache is used",
    (
        Default("pcp_listen_addresses", "", "PCP on its socket only"),
        Default("log_pcp_processes", "off", "the sidecar asks by PCP several times a second"),
        Default("memqcache_total_size", "4MB", "allocated even while the cache is off"),
        Default("memqcache_max_num_cache", "10000", "the same"),
        Default("enable_shared_relcache", "off", "it lives in that cache"),
    ),
)


@dataclass(frozen=True, slots=True)
class Reserved:
    """Why a parameter cannot be set by PGPOOL_PARAMS_…, and what to use instead."""

    reason: str
    instead: str


_BACKENDS = Reserved("belongs to PGPOOL_BACKENDS", "give it in PGPOOL_BACKENDS")
_CHECK_USER = Reserved("belongs to PGPOOL_CHECK_USER", "set PGPOOL_CHECK_USER")
_PASSWORD = Reserved(
    "is a password, which does not belong into pgpool.conf", "put the role's password into PGPOOL_USERS_DIR"
)
_FILES = Reserved("belongs to PGPOOL_RUN_DIR", "set PGPOOL_RUN_DIR")
_SCRAM = Reserved("is fixed, so that SCRAM works", "remove the variable")
_TLS = Reserved("belongs to PGPOOL_TLS_DIR", "set PGPOOL_TLS_DIR to a directory with tls.crt and tls.key")

RESERVED = {
    "backend_hostname": _BACKENDS,
    "backend_port": _BACKENDS,
    "backend_weight": _BACKENDS,
    "backend_flag": _BACKENDS,
    "backend_application_name": _BACKENDS,
    "sr_check_user": _CHECK_USER,
    "health_check_user": _CHECK_USER,
    "sr_check_password": _PASSWORD,
    "health_check_password": _PASSWORD,
    "recovery_password": _PASSWORD,
    "wd_lifecheck_password": _PASSWORD,
    "unix_socket_directories": _FILES,
    "pcp_socket_dir": _FILES,
    "pid_file_name": _FILES,
    "logdir": _FILES,
    "enable_pool_hba": _SCRAM,
    "pool_passwd": _SCRAM,
    "allow_clear_text_frontend_auth": _SCRAM,
    "ssl": _TLS,
    "ssl_cert": _TLS,
    "ssl_key": _TLS,
    "ssl_ca_cert": _TLS,
    "syslog_ident": Reserved("tells the sidecar which generation pgpool has read", "remove the variable"),
    "fail_over_on_backend_error": Reserved("is an old spelling", "use PGPOOL_PARAMS_FAILOVER_ON_BACKEND_ERROR"),
}
