"""The variables of bitnami/pgpool, and of the chart postgresql-ha, which sets them."""

import re
from pathlib import Path

from entrypoint.compat.draft import Draft, Row, is_on, read_conf, read_rows
from entrypoint.environment import given_as
from entrypoint.secret import Secret
from entrypoint.sources import Raw

NAME = "bitnami/pgpool"
PCP_PASSWORD = "PGPOOL_ADMIN_PASSWORD"  # noqa: S105  # a variable's name

INIT_SCRIPTS = Path("/docker-entrypoint-initdb.d")

KEPT = frozenset({"search_primary_node_timeout"})
"""That image always has 0 there: a failover that finds no primary never ends, and nothing else is done meanwhile."""

_PROBES = "for that image's probes; those of this one are `pgpool-entrypoint probe live` and `ready`"
_FILES = "pgpool's files are in PGPOOL_RUN_DIR"

TABLE = (
    Row(variable="PGPOOL_BACKEND_NODES", to="PGPOOL_BACKENDS"),
    Row(variable="PGPOOL_BACKEND_APPLICATION_NAMES", to="PGPOOL_BACKENDS"),
    Row(variable="PGPOOL_PORT_NUMBER", to="port", default="5432"),
    Row(variable="PGPOOL_ENABLE_LOAD_BALANCING", to="load_balance_mode", default="yes"),
    Row(variable="PGPOOL_ENABLE_STATEMENT_LOAD_BALANCING", to="statement_level_load_balance", default="no"),
    Row(variable="PGPOOL_DISABLE_LOAD_BALANCE_ON_WRITE", to="disable_load_balance_on_write", default="transaction"),
    Row(variable="PGPOOL_ENABLE_CONNECTION_CACHE", to="connection_cache", default="yes"),
    Row(variable="PGPOOL_CONNECT_TIMEOUT", to="connect_timeout", default="10000"),
    Row(variable="PGPOOL_NUM_INIT_CHILDREN", to="num_init_children"),
    Row(variable="PGPOOL_RESERVED_CONNECTIONS", to="reserved_connections"),
    Row(variable="PGPOOL_MAX_POOL", to="max_pool", default="15"),
    Row(variable="PGPOOL_CHILD_MAX_CONNECTIONS", to="child_max_connections"),
    Row(variable="PGPOOL_CHILD_LIFE_TIME", to="child_life_time"),
    Row(variable="PGPOOL_CONNECTION_LIFE_TIME", to="connection_life_time"),
    Row(variable="PGPOOL_CLIENT_IDLE_LIMIT", to="client_idle_limit"),
    Row(variable="PGPOOL_HEALTH_CHECK_PERIOD", to="health_check_period", default="30"),
    Row(variable="PGPOOL_HEALTH_CHECK_TIMEOUT", to="health_check_timeout", default="10"),
    Row(variable="PGPOOL_HEALTH_CHECK_MAX_RETRIES", to="health_check_max_retries", default="5"),
    Row(variable="PGPOOL_HEALTH_CHECK_RETRY_DELAY", to="health_check_retry_delay", default="5"),
    Row(variable="PGPOOL_HEALTH_CHECK_USER", to="health_check_user"),
    Row(variable="PGPOOL_HEALTH_CHECK_PASSWORD", to="health_check_password", secret=True),
    Row(variable="PGPOOL_SR_CHECK_USER", to="sr_check_user"),
    Row(variable="PGPOOL_SR_CHECK_PASSWORD", to="sr_check_password", secret=True),
    Row(variable="PGPOOL_SR_CHECK_DATABASE", to="sr_check_database", default="postgres"),
    Row(variable="PGPOOL_SR_CHECK_PERIOD", to="sr_check_period", default="30"),
    Row(variable="PGPOOL_AUTO_FAILBACK", to="auto_failback", default="no"),
    Row(variable="PGPOOL_FAILOVER_ON_BACKEND_SHUTDOWN", to="failover_on_backend_shutdown", default="on"),
    Row(variable="PGPOOL_FAILOVER_ON_BACKEND_ERROR", to="failover_on_backend_error", default="off"),
    Row(variable="PGPOOL_ENABLE_LOG_CONNECTIONS", to="log_connections", default="no"),
    Row(variable="PGPOOL_ENABLE_LOG_HOSTNAME", to="log_hostname", default="no"),
    Row(variable="PGPOOL_ENABLE_LOG_PCP_PROCESSES", to="log_pcp_processes"),
    Row(variable="PGPOOL_ENABLE_LOG_PER_NODE_STATEMENT", to="log_per_node_statement", default="no"),
    Row(variable="PGPOOL_LOG_LINE_PREFIX", to="log_line_prefix"),
    Row(variable="PGPOOL_CLIENT_MIN_MESSAGES", to="client_min_messages"),
    Row(variable="PGPOOL_ENABLE_TLS", to="ssl", default="no"),
    Row(variable="PGPOOL_TLS_CERT_FILE", to="ssl_cert"),
    Row(variable="PGPOOL_TLS_KEY_FILE", to="ssl_key"),
    Row(variable="PGPOOL_TLS_CA_FILE", to="ssl_ca_cert"),
    Row(variable="PGPOOL_TLS_PREFER_SERVER_CIPHERS", to="ssl_prefer_server_ciphers"),
    Row(variable="PGPOOL_ENABLE_POOL_HBA", to="enable_pool_hba", default="yes"),
    Row(variable="PGPOOL_USER_CONF_FILE", note="each line sets a parameter, and wins over the variables"),
    Row(variable="PGPOOL_USER_HBA_FILE", to="PGPOOL_HBA_FILE"),
    Row(variable="PGPOOL_ADMIN_USERNAME", to="PGPOOL_PCP_USER"),
    Row(variable=PCP_PASSWORD, to="PGPOOL_PCP_PASSWORD", secret=True),
    Row(variable="PGPOOL_AES_KEY", to="PGPOOLKEYFILE", secret=True),
    Row(variable="PGPOOL_POSTGRES_USERNAME", default="postgres", note="a role that may log in"),
    Row(variable="PGPOOL_POSTGRES_PASSWORD", secret=True, note="its password"),
    Row(variable="PGPOOL_POSTGRES_CUSTOM_USERS", note="more roles that may log in"),
    Row(variable="PGPOOL_POSTGRES_CUSTOM_PASSWORDS", secret=True, note="their passwords"),
    Row(variable="PGPOOL_AUTHENTICATION_METHOD", note="always scram-sha-256"),
    Row(variable="PGPOOL_ENABLE_POOL_PASSWD", note="always on"),
    Row(variable="PGPOOL_PASSWD_FILE", note=_FILES),
    Row(variable="PGPOOL_WORK_DIR", note=_FILES),
    Row(variable="PGPOOL_ENABLE_LDAP", note="refused: there is no LDAP client here"),
    Row(variable="PGPOOL_DISCARD_STATUS", note="always yes"),
    Row(variable="PGPOOL_EXTRA_FLAGS", note="arguments for pgpool follow `run --`"),
    Row(variable="PGPOOL_HEALTH_CHECK_PSQL_TIMEOUT", note=_PROBES),
    Row(variable="PGPOOL_TIMEOUT", note="does nothing there either"),
    Row(variable="PGPOOL_DAEMON_USER", note="the container's user is pgpool's"),
    Row(variable="PGPOOL_DAEMON_GROUP", note="the same"),
)
"""What is `to` nothing is looked at in `draft`, or has no use here."""

_DEFAULTS = {"authentication_timeout": "30"}
"""Fixed there."""


def draft(given: Draft) -> None:
    """Fill in what the variables say; what is wrong with them is added to the draft's problems."""
    values = read_rows(given, TABLE)
    given.certificate = (
        "name both in PGPOOL_TLS_CERT_FILE and PGPOOL_TLS_KEY_FILE, or a directory with tls.crt and tls.key in "
        "PGPOOL_TLS_DIR; or set PGPOOL_ENABLE_TLS=no"
    )
    given.both = (
        "mount a pool_hba.conf with the line `host all all all scram-sha-256` and name it in PGPOOL_USER_HBA_FILE"
    )
    for row in TABLE:
        raw = values.get(row.variable)
        if raw is None and row.default is not None:
            raw = Raw(row.default, f"default of {NAME}")
        if raw is not None and row.to and not row.to.startswith("PGPOOL"):
            # In pgpool.conf, AES… or md5… would be an encrypted password; that image encrypts whatever is given.
            given.parameters[row.to] = Raw(f"TEXT{raw.value}", raw.origin, secret=True) if row.secret else raw
        elif raw is not None and row.to in ("PGPOOL_PCP_USER", "PGPOOL_PCP_PASSWORD", "PGPOOL_HBA_FILE"):
            given.set(row.to, raw)
    for name, value in _DEFAULTS.items():
        given.parameters[name] = Raw(value, f"default of {NAME}")
    _servers(given, values)
    _key(given, values.get("PGPOOL_AES_KEY"))
    role = values.get("PGPOOL_POSTGRES_USERNAME", Raw("postgres", f"default of {NAME}"))
    given.add_role(role, values.get("PGPOOL_POSTGRES_PASSWORD"))
    _custom_roles(given, values)
    if file := values.get("PGPOOL_USER_CONF_FILE"):
        read_conf(given, Path(file.value), "PGPOOL_USER_CONF_FILE", file.origin)
    _required_passwords(given, values, role)
    _differences(given, values)


def _servers(given: Draft, values: dict[str, Raw]) -> None:
    nodes = values.get("PGPOOL_BACKEND_NODES")
    if nodes is None:
        if not given.has("PGPOOL_BACKENDS"):
            given.problems.add(
                "PGPOOL_BACKEND_NODES", "not set", "is required", "set it to 0:HOST:PORT,1:HOST:PORT, and so on"
            )
        return
    entries = _list(nodes)
    for entry in entries:
        fields = entry.split(":")
        if not re.fullmatch(r"[0-9]{1,3}", fields[0]) or not all(fields[:2]) or not 2 <= len(fields) <= 6:
            given.refuse(
                nodes,
                "PGPOOL_BACKEND_NODES",
                "has an entry of another form",
                "write NUMBER:HOST[:PORT[:WEIGHT[:DIRECTORY[:FLAG]]]], separated by commas",
            )
            return
        number = int(fields[0])
        if f"backend_hostname{number}" in given.parameters:
            given.refuse(nodes, "PGPOOL_BACKEND_NODES", f"has the number {number} twice", "number the nodes from 0")
        for name, value in zip(("hostname", "port", "weight", "data_directory", "flag"), fields[1:], strict=False):
            if value:
                given.parameters[f"backend_{name}{number}"] = Raw(value, nodes.origin)
    names = values.get("PGPOOL_BACKEND_APPLICATION_NAMES")
    if names is None:
        return
    if len(_list(names)) != len(entries):
        what = f"has {len(_list(names))} names for {len(entries)} nodes"
        remedy = "give each node one, in their order"
        if is_on(values.get("PGPOOL_AUTO_FAILBACK")):
            given.problems.add("PGPOOL_BACKEND_APPLICATION_NAMES", names.origin, what, remedy)
        else:
            given.warnings.append(f"PGPOOL_BACKEND_APPLICATION_NAMES {what}, and is not taken over; {remedy}")
        return
    for entry, name in zip(entries, _list(names), strict=False):
        given.parameters[f"backend_application_name{int(entry.partition(':')[0])}"] = Raw(name, names.origin)


def _key(given: Draft, key: Raw | None) -> None:
    if key is None:
        return
    if given.has("PGPOOLKEYFILE"):
        given.problems.add("PGPOOL_AES_KEY", key.origin, "is set, and so is PGPOOLKEYFILE", "keep one of the two")
    given.key = Secret(key.value.partition("\n")[0])


def _required_passwords(given: Draft, values: dict[str, Raw], role: Raw) -> None:
    def is_unset(variable: str) -> bool:
        return not any(given.env[name] for name in given_as(variable, given.env))

    password = "PGPOOL_POSTGRES_PASSWORD"  # noqa: S105  # a variable's name
    pool_passwd = values.get("PGPOOL_ENABLE_POOL_PASSWD")
    is_needed = pool_passwd is None or is_on(pool_passwd) or given.lacks_roles()
    if is_unset(password) and not given.has("PGPOOL_USERS_DIR") and is_needed:
        what = f"is required: without it, {role.value!r} cannot log in"
        given.problems.add(password, "not set", what, f"set it, or {password}_FILE; or give roles in PGPOOL_USERS_DIR")
    if "PGPOOL_ADMIN_USERNAME" in values and is_unset(PCP_PASSWORD) and not given.has("PGPOOL_PCP_PASSWORD"):
        given.warnings.append(
            f"{PCP_PASSWORD} is not set: PCP gets a password that boot makes up; set it if you use the pcp tools"
        )


def _custom_roles(given: Draft, values: dict[str, Raw]) -> None:
    users, passwords = (values.get(f"PGPOOL_POSTGRES_CUSTOM_{what}") for what in ("USERS", "PASSWORDS"))
    if users is None and passwords is None:
        return
    roles = _list(users) if users else []
    secrets = _list(passwords) if passwords else []
    if len(roles) != len(secrets) or users is None or passwords is None:
        origin = (users or passwords or Raw("", "not set")).origin
        what = f"has {len(roles)} roles, but PGPOOL_POSTGRES_CUSTOM_PASSWORDS has {len(secrets)} passwords"
        remedy = "give each role one; put passwords with blanks, commas or semicolons into PGPOOL_USERS_DIR"
        given.problems.add("PGPOOL_POSTGRES_CUSTOM_USERS", origin, what, remedy)
        return
    for number, (role, password) in enumerate(zip(roles, secrets, strict=True), start=1):
        given.add_role(Raw(role, users.origin), Raw(password, f"{passwords.origin}, part {number}", secret=True))


def _differences(given: Draft, values: dict[str, Raw]) -> None:
    """Where this image differs on purpose, and the user has asked for, or would count on, something else."""

    def is_off(variable: str) -> bool:
        return variable in values and not is_on(values[variable])

    warn = given.warnings.append
    method = values.get("PGPOOL_AUTHENTICATION_METHOD")
    if method is not None and method.value.lower() != "scram-sha-256":
        warn(
            "PGPOOL_AUTHENTICATION_METHOD is not taken over: clients log in by scram-sha-256; give each role its "
            "password, and upgrade drivers that cannot do SCRAM"
        )
    if is_off("PGPOOL_ENABLE_POOL_PASSWD"):
        warn(
            "PGPOOL_ENABLE_POOL_PASSWD is not taken over: only roles whose passwords are given can log in; give each "
            "role that is to log in its password"
        )
    _hba_differences(given, values)
    if is_on(values.get("PGPOOL_ENABLE_LDAP")):
        given.refuse(
            values["PGPOOL_ENABLE_LDAP"],
            "PGPOOL_ENABLE_LDAP",
            "cannot be had: there is no LDAP client (nslcd, pam_ldap) in this image",
            "remove it, and give passwords, or a pool_hba.conf with `pam` and an image of your own",
        )
    if is_off("PGPOOL_DISCARD_STATUS"):
        warn("PGPOOL_DISCARD_STATUS is not taken over: pgpool always starts afresh (-D); nothing is to be done")
    file = values.get("PGPOOL_PASSWD_FILE")
    if file is not None and file.value != "pool_passwd":
        warn(
            "PGPOOL_PASSWD_FILE is not taken over: pool_passwd is made in PGPOOL_RUN_DIR; if that file was mounted, "
            "give the passwords of its roles"
        )
    if "PGPOOL_EXTRA_FLAGS" in values:
        warn("PGPOOL_EXTRA_FLAGS is not taken over; give pgpool's arguments to the container: `run -- …`")
    if given.here and (scripts := _init_scripts()):
        warn(
            f"{', '.join(scripts)} in {INIT_SCRIPTS} are not run; set what they change in pgpool.conf as "
            "PGPOOL_PARAMS_…, and do the rest before this container starts"
        )
    timeout = "PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT"
    if "search_primary_node_timeout" not in given.parameters and not given.has(timeout):
        warn(
            "search_primary_node_timeout is not 0 as in that image, but as in this one's table of defaults; set "
            f"{timeout} if you want another"
        )


def _hba_differences(given: Draft, values: dict[str, Raw]) -> None:
    warn = given.warnings.append
    if "PGPOOL_USER_HBA_FILE" not in values and not given.has("PGPOOL_HBA_FILE"):
        warn(
            "clients on the Unix socket need their password, too (no `trust` there); give it to scripts that log in "
            "without one"
        )
    if is_on(values.get("PGPOOL_ENABLE_TLS")) and "PGPOOL_TLS_CA_FILE" in values:
        warn(
            "PGPOOL_TLS_CA_FILE does not make clients need a certificate; for that, mount a pool_hba.conf with the "
            "line `hostssl all all all cert` and name it in PGPOOL_USER_HBA_FILE"
        )


def _init_scripts() -> list[str]:
    try:
        return sorted(script.name for script in INIT_SCRIPTS.glob("*.sh"))
    except OSError:
        return []


def _list(raw: Raw) -> list[str]:
    return [each for each in re.split(r"[,;\s]+", raw.value) if each]
