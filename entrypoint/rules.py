"""Every rule that spans settings and files: what pgpool or PostgreSQL would cut, misread or refuse to work with."""

import re
from collections.abc import Mapping

from entrypoint import hba
from entrypoint import settings as table
from entrypoint.credentials import MAX_AES_BYTES, MAX_KEY_BYTES, MAX_TEXT_BYTES
from entrypoint.errors import Problems
from entrypoint.material import Material
from entrypoint.quoting import UnrepresentableError, pool_passwd_field
from entrypoint.saslprep import prepared
from entrypoint.settings import Given, Settings

MAX_ROLE_BYTES = 63
"""PostgreSQL cuts longer names (NAMEDATALEN - 1), pgpool does not: they would never match."""

MAX_SOCKET_PATH_BYTES = 107
"""sun_path of a Unix socket address (sys/un.h), without its terminator."""


def check_rules(
    settings: Settings,
    material: Material,
    given: Mapping[str, Given],
    numbers: Mapping[str, int],
    problems: Problems,
) -> None:
    """Add to `problems` whatever breaks a rule.

    Args:
        settings: what the environment says.
        material: what the files say that it names.
        given: the user's own parameters of pgpool.conf, by name.
        numbers: the effective numbers of pgpool.conf, by name, in the parameter's unit.
        problems: collects what is wrong.
    """
    _check_numbers(numbers, given, problems)
    _check_run_dir(settings, numbers, problems)
    _check_patroni(settings, problems)
    _check_key(settings, material, problems)
    _check_credentials(settings, material, problems)
    _check_hba(settings, material, problems)


def _check_numbers(numbers: Mapping[str, int], given: Mapping[str, Given], problems: Problems) -> None:
    def add(name: str, what: str, remedy: str) -> None:
        parameter = given.get(name)
        variable, origin = (parameter.variable, parameter.origin) if parameter else (name, "default")
        problems.add(variable, origin, what, remedy)

    children = numbers["num_init_children"]
    if numbers["reserved_connections"] >= children:
        add("reserved_connections", f"leaves none of {children} children for clients", "make it smaller")
    if numbers["port"] == numbers["pcp_port"]:
        add("pcp_port", f"is the same as port, {numbers['port']}", "choose another")
    mode = given.get("process_management_mode")
    if mode and mode.assignment.encoded == "'dynamic'":
        low, high = numbers["min_spare_children"], numbers["max_spare_children"]
        if not low < high <= children:
            add(
                "min_spare_children",
                f"is {low}; dynamic children need min_spare_children < max_spare_children {high} "
                f"≤ num_init_children {children}",
                "set the three accordingly",
            )


def _check_run_dir(settings: Settings, numbers: Mapping[str, int], problems: Problems) -> None:
    if "," in str(settings.run_dir):
        problems.add(
            table.RUN_DIR.name,
            settings.origin(table.RUN_DIR),
            f"{str(settings.run_dir)!r} contains a comma, where pgpool divides a list of directories",
            "choose another directory",
        )
    longest = f"{settings.run_dir}/.s.PGSQL.{max(numbers['port'], numbers['pcp_port'])}"
    if len(longest.encode()) > MAX_SOCKET_PATH_BYTES:
        problems.add(
            table.RUN_DIR.name,
            settings.origin(table.RUN_DIR),
            f"is too long: the socket {longest} has a path of more than {MAX_SOCKET_PATH_BYTES} bytes",
            "choose a shorter directory",
        )


def _check_patroni(settings: Settings, problems: Problems) -> None:
    urls, backends = settings.patroni.urls, settings.backends
    if urls and len(urls) != len(backends):
        problems.add(
            table.PATRONI.name,
            settings.origin(table.PATRONI),
            f"has {len(urls)} {'URL' if len(urls) == 1 else 'URLs'}, but there are {len(backends)} backends",
            "give one URL for each backend, in their order",
        )


def _check_key(settings: Settings, material: Material, problems: Problems) -> None:
    if material.key is None:
        return
    key = material.key.reveal()
    if not key:
        what, remedy = "its first line is empty", "write the key on the first line"
    elif len(key.encode()) > MAX_KEY_BYTES:
        what, remedy = (
            f"its first line is longer than {MAX_KEY_BYTES} bytes, where pgpool stops reading",
            "shorten the key",
        )
    elif "\0" in key or key.endswith("\r"):
        what = "its first line holds a NUL character or ends in a carriage return"
        remedy = "write it as one line of text with Unix line ends"
    else:
        return
    problems.add(table.KEY_FILE.name, str(settings.key_file or "PGPOOL_AES_KEY"), what, remedy)


def _check_credentials(settings: Settings, material: Material, problems: Problems) -> None:
    if material.credentials is None:
        return
    origins: dict[str, str] = {}
    for credential in material.credentials:
        if fault := _role_fault(credential.role):
            problems.add(f"role {credential.role!r}", credential.origin, *fault)
        if credential.role in origins:
            problems.add(
                f"role {credential.role!r}",
                credential.origin,
                f"has a password in {origins[credential.role]} already",
                "keep one of the two",
            )
        origins.setdefault(credential.role, credential.origin)
        encrypted = ""
        if settings.key_file is not None or material.key is not None:
            encrypted = " when they are encrypted"
        elif credential.role == settings.check_user:
            encrypted = " when they are encrypted, as the check role's always is in pgpool.conf"
        if fault := _password_fault(credential.password.reveal(), encrypted):
            problems.add(f"password of role {credential.role!r}", credential.origin, *fault)
    translated = settings.compat in ("official", "bitnami") and settings.origin(table.USERS_DIR) == "default"
    told = translated and not origins  # that nobody could log in
    if settings.check_user and settings.check_user not in origins and not material.unread and not told:
        # What comes from a file is not repeated: it may be the wrong file, and hold a password.
        from_file = settings.origin(table.CHECK_USER).startswith("/")
        named, file = (
            ("the role that it names", "a file of that name")
            if from_file
            else (f"the role {settings.check_user!r}", f"the file {settings.users_dir}/{settings.check_user}")
        )
        where, remedy = str(settings.users_dir), f"add {file}, or name another role"
        if translated:
            where, remedy = "the environment", "set the variable of its password, or name another role"
        problems.add(
            table.CHECK_USER.name, settings.origin(table.CHECK_USER), f"{named} has no password in {where}", remedy
        )


def _role_fault(role: str) -> tuple[str, str] | None:
    if not role:
        return "has an empty name", "write the role's name"
    if len(role.encode()) > MAX_ROLE_BYTES:
        return (
            f"is longer than {MAX_ROLE_BYTES} bytes, where PostgreSQL cuts names",
            "use the name that PostgreSQL has",
        )
    try:
        pool_passwd_field(role)
    except UnrepresentableError as error:
        return str(error), "write the role's name alone, with no line end but one"
    return None


def _password_fault(password: str, encrypted: str) -> tuple[str, str] | None:
    """What makes a password unusable, and the remedy. Speaks of it without quoting it.

    `encrypted` says when it is encrypted, in words that end a sentence; empty: it is not.
    """
    if not password:
        return "is empty", "write the password into the file"
    try:
        pool_passwd_field(password)
    except UnrepresentableError as error:
        return str(error), "write the password alone, with no line end but one (`printf %s`)"
    if re.fullmatch(r"md5[0-9a-f]{32}|SCRAM-SHA-256\$.*", password):
        return (
            "is a hash as PostgreSQL stores it; SCRAM needs the password itself",
            "store the password in the Secret; set PGPOOLKEYFILE to have it encrypted in pool_passwd",
        )
    limit = MAX_AES_BYTES if encrypted else MAX_TEXT_BYTES
    length = len(prepared(password).encode())
    if length > limit:
        return (
            f"has {length} bytes; pgpool cuts entries after {limit}{encrypted}",
            "choose a shorter password",
        )
    return None


def _check_hba(settings: Settings, material: Material, problems: Problems) -> None:
    if material.hba is None:
        return
    authority = material.tls is None or bool(material.tls.files.get("ca.crt"))
    for number, fault in hba.faults(material.hba, tls=settings.tls_dir is not None, authority=authority):
        problems.add(
            table.HBA_FILE.name,
            f"{settings.hba_file}, line {number}",
            fault,
            "correct the line; the format is pgpool's pool_hba.conf",
        )
