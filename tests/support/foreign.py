"""Environments that other images document, and what their own rules make of them: the oracle of the translation.

`EXPECTED` is what the rules of the image write into pgpool.conf (its documented defaults and the variables), without
what they say of paths; what is left to pgpool's sample file counts as pgpool's default. `DIFFERS` are the deliberate
differences.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from entrypoint.self_signed import self_signed


@dataclass(frozen=True)
class Foreign:
    """One environment, from a README, a chart or a user's report."""

    environment: dict[str, str]
    expected: dict[str, str]
    roles: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    """Mounted ones, by the path below a directory whose path stands for `{DIR}` in the environment."""

    def placed(self, directory: Path) -> dict[str, str]:
        """The environment, once the files are in this directory."""
        for name, content in self.files.items():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            (directory / name).write_text(content)
        return {name: value.replace("{DIR}", str(directory)) for name, value in self.environment.items()}


def pair_in_words() -> dict[str, str]:
    """A certificate and its key, by the words with which `migrate` asks for what nobody has given."""
    pair = self_signed(datetime(2026, 1, 1, tzinfo=UTC))
    certificate = "a certificate for the name that clients connect to (cert-manager makes one, as in deploy/)"
    return {certificate: pair["tls.crt"].decode(), "its key": pair["tls.key"].decode()}


DIFFERS = {
    # ours, whatever the other image says; docs/migration.md has the reasons
    "search_primary_node_timeout",
    "log_pcp_processes",
    "memqcache_total_size",
    "memqcache_max_num_cache",
    "enable_shared_relcache",
    "failover_command",
}

_BITNAMI = {
    "port": "5432",
    "listen_addresses": "'*'",
    "max_pool": "15",
    "num_init_children": "32",
    "load_balance_mode": "on",
    "statement_level_load_balance": "off",
    "disable_load_balance_on_write": "'transaction'",
    "connection_cache": "on",
    "connect_timeout": "10000",
    "health_check_period": "30",
    "health_check_timeout": "10",
    "health_check_max_retries": "5",
    "health_check_retry_delay": "5",
    "sr_check_period": "30",
    "sr_check_database": "'postgres'",
    "failover_on_backend_shutdown": "on",
    "failover_on_backend_error": "off",
    "auto_failback": "off",
    "authentication_timeout": "30",
    "log_connections": "off",
    "log_hostname": "off",
    "log_per_node_statement": "off",
    "enable_pool_hba": "on",
    "pool_passwd": "'pool_passwd'",
    "pcp_listen_addresses": "'localhost'",
    "auto_failback_interval": "60",
    "backend_clustering_mode": "'streaming_replication'",
}
_OFFICIAL = {
    "port": "9999",
    "listen_addresses": "'*'",
    "max_pool": "4",
    "num_init_children": "32",
    "load_balance_mode": "on",
    "connect_timeout": "10000",
    "health_check_period": "0",
    "health_check_timeout": "20",
    "health_check_max_retries": "0",
    "health_check_retry_delay": "1",
    "sr_check_period": "0",
    "failover_on_backend_shutdown": "off",
    "failover_on_backend_error": "off",
    "search_primary_node_timeout": "300",
    "auto_failback": "off",
    "auto_failback_interval": "60",
    "pcp_listen_addresses": "'localhost'",
    "backend_clustering_mode": "'streaming_replication'",
}


def _node(
    number: int, host: str, flag: str = "ALLOW_TO_FAILOVER", *, port: int = 5432, weight: str = "1"
) -> dict[str, str]:
    return {
        f"backend_hostname{number}": f"'{host}'",
        f"backend_port{number}": str(port),
        f"backend_weight{number}": weight,
        f"backend_flag{number}": f"'{flag}'",
    }


def _checks(role: str) -> dict[str, str]:
    return {"sr_check_user": f"'{role}'", "health_check_user": f"'{role}'"}


COMPOSE = Foreign(
    {
        "PGPOOL_BACKEND_NODES": "0:pg-0:5432,1:pg-1:5432",
        "PGPOOL_SR_CHECK_USER": "customuser",
        "PGPOOL_SR_CHECK_PASSWORD": "custompassword",
        "PGPOOL_ENABLE_LDAP": "no",
        "PGPOOL_POSTGRES_USERNAME": "postgres",
        "PGPOOL_POSTGRES_PASSWORD": "adminpassword",
        "PGPOOL_ADMIN_USERNAME": "admin",
        "PGPOOL_ADMIN_PASSWORD": "adminpassword",
        "PGPOOL_ENABLE_LOAD_BALANCING": "yes",
    },
    {**_BITNAMI, **_node(0, "pg-0"), **_node(1, "pg-1"), **_checks("customuser")},
    {"customuser": "custompassword", "postgres": "adminpassword"},
)
"""The example of Bitnami's README."""

CHART = Foreign(
    {
        "BITNAMI_DEBUG": "false",
        "PGPOOL_BACKEND_NODES": "0:db-0.db-headless:5432,1:db-1.db-headless:5432,",
        "PGPOOL_SR_CHECK_USER": "repmgr",
        "PGPOOL_SR_CHECK_PASSWORD_FILE": "{DIR}/secrets/sr-check-password",
        "PGPOOL_SR_CHECK_DATABASE": "postgres",
        "PGPOOL_ENABLE_LDAP": "no",
        "PGPOOL_POSTGRES_USERNAME": "postgres",
        "PGPOOL_POSTGRES_PASSWORD_FILE": "{DIR}/secrets/pgpool-password",
        "PGPOOL_ADMIN_USERNAME": "admin",
        "PGPOOL_ADMIN_PASSWORD_FILE": "{DIR}/secrets/admin-password",
        "PGPOOL_AUTHENTICATION_METHOD": "scram-sha-256",
        "PGPOOL_ENABLE_LOAD_BALANCING": "yes",
        "PGPOOL_DISABLE_LOAD_BALANCE_ON_WRITE": "transaction",
        "PGPOOL_ENABLE_LOG_CONNECTIONS": "no",
        "PGPOOL_ENABLE_LOG_HOSTNAME": "yes",
        "PGPOOL_ENABLE_LOG_PCP_PROCESSES": "yes",
        "PGPOOL_ENABLE_LOG_PER_NODE_STATEMENT": "no",
        "PGPOOL_RESERVED_CONNECTIONS": "1",
        "PGPOOL_CHILD_LIFE_TIME": "",
        "PGPOOL_ENABLE_TLS": "no",
        "PGPOOL_HEALTH_CHECK_PSQL_TIMEOUT": "6",
        "PGPOOL_USER_CONF_FILE": "{DIR}/user_config/pgpool.conf",
    },
    {
        **_BITNAMI,
        **_node(0, "db-0.db-headless"),
        **_node(1, "db-1.db-headless"),
        **_checks("repmgr"),
        "log_hostname": "on",
        "reserved_connections": "1",
        "max_pool": "4",
        "client_idle_limit": "300",
    },
    {"repmgr": "repmgr % pass", "postgres": "postgres & pass"},
    {
        "secrets/sr-check-password": "repmgr % pass\n",
        "secrets/pgpool-password": "postgres & pass",
        "secrets/admin-password": "admin pass",
        "user_config/pgpool.conf": "# ours\nmax_pool = 4\nclient_idle_limit = '300'  # seconds\n",
    },
)
"""What the chart postgresql-ha gives its Deployment, with a `configuration` of the user's."""

AWKWARD = Foreign(
    {
        "PGPOOL_BACKEND_NODES": "0:pg-0::2 1:pg-1:5433:0:/data:DISALLOW_TO_FAILOVER|ALWAYS_PRIMARY;",
        "PGPOOL_BACKEND_APPLICATION_NAMES": "zero,one",
        "PGPOOL_AUTO_FAILBACK": "YES",
        "PGPOOL_SR_CHECK_USER": "checker",
        "PGPOOL_SR_CHECK_PASSWORD": "a b * & \\ $ ' \" %",
        "PGPOOL_POSTGRES_PASSWORD": "-secret&\\1 $x",
        "PGPOOL_POSTGRES_CUSTOM_USERS": "one;two",
        "PGPOOL_POSTGRES_CUSTOM_PASSWORDS": "1%p,2%p",
        "PGPOOL_ADMIN_USERNAME": "admin",
        "PGPOOL_ADMIN_PASSWORD": "admin % pass",
        "PGPOOL_AUTHENTICATION_METHOD": "md5",
        "PGPOOL_LOG_LINE_PREFIX": "%m & % \\p: ",
        "PGPOOL_NUM_INIT_CHILDREN": "8",
        "PGPOOL_FAILOVER_ON_BACKEND_SHUTDOWN": "off",
        "PGPOOL_AES_KEY": "a key % of ours",
    },
    {
        **_BITNAMI,
        **_node(0, "pg-0", weight="2"),
        **_node(1, "pg-1", "DISALLOW_TO_FAILOVER|ALWAYS_PRIMARY", port=5433, weight="0"),
        **_checks("checker"),
        "backend_application_name0": "'zero'",
        "backend_application_name1": "'one'",
        "auto_failback": "on",
        "log_line_prefix": "'%m & % \\p: '",
        "num_init_children": "8",
        "failover_on_backend_shutdown": "off",
    },
    {"checker": "a b * & \\ $ ' \" %", "postgres": "-secret&\\1 $x", "one": "1%p", "two": "2%p"},
)
"""What users of Bitnami's image report as broken: signs in passwords, empty fields, md5, application names."""

MINIMAL = Foreign(
    {
        "PGPOOL_PARAMS_BACKEND_HOSTNAME0": "mypostgres",
        "PGPOOL_PARAMS_BACKEND_PORT0": "5432",
        "PGPOOL_PARAMS_BACKEND_WEIGHT0": "1",
        "PGPOOL_PARAMS_BACKEND_FLAG0": "ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER",
        "PGPOOL_PARAMS_BACKEND_HOSTNAME1": "mypostgres-replica",
        "PGPOOL_PARAMS_BACKEND_PORT1": "5432",
        "PGPOOL_PARAMS_BACKEND_WEIGHT1": "1",
        "PGPOOL_PARAMS_BACKEND_FLAG1": "DISALLOW_TO_FAILOVER",
        "PGPOOL_PARAMS_FAILOVER_ON_BACKEND_ERROR": "off",
        "POSTGRES_USERNAME": "postgres",
        "POSTGRES_PASSWORD": "postgres % pass",
    },
    {
        **_OFFICIAL,
        **_node(0, "mypostgres", "ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER"),
        **_node(1, "mypostgres-replica", "DISALLOW_TO_FAILOVER"),
    },
    {"postgres": "postgres % pass"},
)
"""The official image's minimal manifest, as it was before TLS."""

MINIMAL_TLS = Foreign(
    {
        **MINIMAL.environment,
        "PGPOOL_PARAMS_ENABLE_POOL_HBA": "on",
        "PGPOOL_PARAMS_SSL": "on",
        "PGPOOL_PASSWORD_ENCRYPTION_METHOD": "scram-sha-256",
        "PGPOOL_ENABLE_POOL_PASSWD": "true",
        "PGPOOL_SKIP_PASSWORD_ENCRYPTION": "false",
    },
    {**MINIMAL.expected, "enable_pool_hba": "on", "ssl": "on"},
    MINIMAL.roles,
)
"""The present one: TLS is on, with a certificate that is made up at each start unless one is mounted."""

MOUNTED = Foreign(
    {
        "PGPOOL_CONF_VOLUME": "{DIR}/config",
        "POSTGRES_USERNAME": "postgres",
        "POSTGRES_PASSWORD": "postgres % pass",
        "PGPOOL_PCP_USER": "admin",
        "PGPOOL_PCP_PASSWORD": "admin % pass",
    },
    {
        **_OFFICIAL,
        **_node(0, "mypostgres", "ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER"),
        **_node(1, "mypostgres-replica", "DISALLOW_TO_FAILOVER"),
        "pcp_listen_addresses": "'*'",
        "pcp_port": "9898",
        "child_life_time": "300",
        "child_max_connections": "0",
        "connection_life_time": "0",
        "client_idle_limit": "0",
        "connection_cache": "on",
    },
    {"postgres": "postgres % pass"},
    {
        "config/pgpool.conf": (
            "listen_addresses = '*'\nport = 9999\nsocket_dir = '/var/run/pgpool'\npcp_listen_addresses = '*'\n"
            "pcp_port = 9898\npcp_socket_dir = '/var/run/pgpool'\nbackend_hostname0 = 'mypostgres'\n"
            "backend_port0 = 5432\nbackend_weight0 = 1\nbackend_flag0 = 'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'\n"
            "backend_hostname1 = 'mypostgres-replica'\nbackend_port1 = 5432\nbackend_weight1 = 1\n"
            "backend_flag1 = 'DISALLOW_TO_FAILOVER'\nsr_check_period = 0\nenable_pool_hba = off\n"
            "backend_clustering_mode = 'streaming_replication'\nnum_init_children = 32\nmax_pool = 4\n"
            "child_life_time = 300\nchild_max_connections = 0\nconnection_life_time = 0\nclient_idle_limit = 0\n"
            "connection_cache = on\nload_balance_mode = on\nssl = off\n"
        ),
        "config/pool_hba.conf": "local all all trust\nhost all all 0.0.0.0/0 md5\n",
    },
)
"""The official image's ConfigMap, as it was before TLS."""

MOUNTED_TLS = Foreign(
    {name: value for name, value in MOUNTED.environment.items() if not name.startswith("PGPOOL_PCP_")}
    | {name: value for name, value in MINIMAL_TLS.environment.items() if "PASSW" in name},
    {**MOUNTED.expected, "enable_pool_hba": "on", "ssl": "on", "log_min_messages": "'warning'"},
    MOUNTED.roles,
    {
        "config/pgpool.conf": MOUNTED.files["config/pgpool.conf"]
        .replace("ssl = off\n", "ssl = on\nfailover_on_backend_error = off\nlog_min_messages = warning\n")
        .replace("enable_pool_hba = off", "enable_pool_hba = on\nhealth_check_period = 0"),
    },
)
"""The present one."""

WITHOUT_CERTIFICATE = {"official minimal, TLS": MINIMAL_TLS, "official configmap, TLS": MOUNTED_TLS}
"""Those that boot with a certificate that is made up."""

OPERATOR = Foreign(
    {
        "PGPOOL_PARAMS_BACKEND_HOSTNAME0": "db.default.svc",
        "PGPOOL_PARAMS_BACKEND_APPLICATION_NAME0": "db-0",
        "PGPOOL_PARAMS_SR_CHECK_PERIOD": "10",
        "PGPOOL_PARAMS_SR_CHECK_USER": "checker",
        "PGPOOL_PARAMS_SR_CHECK_PASSWORD": "check % pass",
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD": "20",
        "PGPOOL_PARAMS_HEALTH_CHECK_USER": "checker",
        "PGPOOL_PARAMS_HEALTH_CHECK_PASSWORD": "check % pass",
        "PGPOOL_PARAMS_SOCKET_DIR": "/var/run/pgpool",
        "PGPOOL_PARAMS_ENABLE_POOL_HBA": "on",
        "PGPOOL_PARAMS_LOG_LINE_PREFIX": "a=b: ",
        "PGPOOL_PARAMS_PORT": "9999",
        "MY_APP_USERNAME": "my_app",
        "MY_APP_PASSWORD": "a b * $x",
        "GIT_USERNAME": "nobody",
        "PGPOOL_PASSWORD_ENCRYPTION_METHOD": "scram-sha-256",
        "PGPOOL_ENABLE_POOL_PASSWD": "true",
    },
    {
        **_OFFICIAL,
        **_node(0, "db.default.svc"),
        **_checks("checker"),
        "backend_application_name0": "'db-0'",
        "sr_check_period": "10",
        "health_check_period": "20",
        "log_line_prefix": "'a=b: '",
        "enable_pool_hba": "on",
    },
    {"checker": "check % pass", "my_app": "a b * $x"},
)
"""What users of the official image report: a prefix with an underscore, `=` in values, unrelated variables."""

ALL = {
    "bitnami compose": COMPOSE,
    "bitnami chart": CHART,
    "bitnami issues": AWKWARD,
    "official minimal": MINIMAL,
    "official configmap": MOUNTED,
    "official issues": OPERATOR,
    **WITHOUT_CERTIFICATE,
}
