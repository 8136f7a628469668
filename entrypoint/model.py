"""The one frozen description of what pgpool is to do, with every rule across settings checked."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from entrypoint import defaults, hba, tls
from entrypoint import settings as table
from entrypoint.catalogue import Assignment, Catalogue, InvalidValueError
from entrypoint.credentials import MAX_AES_BYTES, MAX_KEY_BYTES, MAX_TEXT_BYTES, aes_encrypter
from entrypoint.defaults import DefaultSection
from entrypoint.errors import Problems
from entrypoint.material import Credential, Material
from entrypoint.quoting import UnrepresentableError, pool_passwd_field
from entrypoint.saslprep import prepared
from entrypoint.secret import Secret
from entrypoint.settings import Given, Setting, Settings
from entrypoint.sources import Raw

MAX_ROLE_BYTES = 63
"""PostgreSQL cuts longer names (NAMEDATALEN - 1), pgpool does not: they would never match."""

MAX_SOCKET_PATH_BYTES = 107
"""sun_path of a Unix socket address (sys/un.h), without its terminator."""

CURRENT = "current"
"""The symlink in the run directory that always points to the live generation."""


@dataclass(frozen=True, slots=True)
class Section:
    """Lines of pgpool.conf under one heading."""

    title: str
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PgpoolModel:
    """Everything the rendered files say."""

    sections: tuple[Section, ...]
    numbers: Mapping[str, int]
    """Effective numbers by name, in the parameter's unit (booleans 0 or 1): ours, and pgpool's defaults."""
    listen_addresses: str
    credentials: tuple[Credential, ...]
    """Sorted by role, so that equal inputs render equal files."""
    key: Secret | None
    hba: str | None
    """The user's own pool_hba.conf, or None for ours."""
    pcp_user: str
    pcp_password: Secret
    tls: Mapping[str, bytes] = field(repr=False)
    warnings: tuple[str, ...]

    @property
    def connections_per_backend(self) -> int:
        """The most connections for clients that one pgpool opens to each server."""
        return self.numbers["num_init_children"] * self.numbers["max_pool"]


def build(
    settings: Settings,
    material: Material,
    pcp_password: Secret,
    catalogue: Catalogue,
    now: datetime,
    problems: Problems,
) -> PgpoolModel:
    """Check every rule that spans settings and put the model together.

    Problems are added, not raised: a model built with problems is good for nothing but finding more.

    Args:
        settings: what the environment says.
        material: what the files say that it names.
        pcp_password: the administrator's password, given or random.
        catalogue: the parameters of the installed pgpool.
        now: the time to judge certificates by, with a time zone.
        problems: collects what is wrong.
    """
    given = _given(settings, problems)
    sections = tuple(_sections(settings, material, given, catalogue, problems))
    numbers = _numbers(sections, catalogue)
    _check_numbers(numbers, given, problems)
    _check_run_dir(settings, numbers, problems)
    _check_key(settings, material, problems)
    _check_credentials(settings, material, problems)
    _check_hba(settings, material, problems)
    certificates = {}
    warnings: list[str] = []
    if material.tls is not None:
        certificates = {name: material.tls.files[name] for name in tls.FILES if material.tls.files.get(name)}
        warnings += tls.check(material.tls.files, str(material.tls.path), now, problems)
    return PgpoolModel(
        sections=sections,
        numbers=numbers,
        listen_addresses=_text_of(sections, "listen_addresses"),
        credentials=tuple(sorted(material.credentials or (), key=lambda credential: credential.role)),
        key=material.key,
        hba=material.hba,
        pcp_user=settings.pcp_user,
        pcp_password=pcp_password,
        tls=certificates,
        warnings=tuple(warnings),
    )


def _given(settings: Settings, problems: Problems) -> dict[str, Given]:
    """The user's parameters by name, without those that a setting owns."""
    given: dict[str, Given] = {}
    for parameter in settings.params:
        assignment = parameter.assignment
        if reserved := defaults.RESERVED.get(assignment.parameter.name):
            problems.add(parameter.variable, parameter.origin, reserved.reason, reserved.instead)
        elif assignment.name in given:
            twin = given[assignment.name].variable
            problems.add(parameter.variable, parameter.origin, f"sets the same as {twin}", "keep one of the two")
        elif _is_beyond(assignment, len(settings.backends)):
            problems.add(
                parameter.variable,
                parameter.origin,
                f"there is no node {assignment.index}",
                f"PGPOOL_BACKENDS has the nodes 0 to {len(settings.backends) - 1}",
            )
        else:
            given[assignment.name] = parameter
    return given


def _is_beyond(assignment: Assignment, backends: int) -> bool:
    per_backend = assignment.parameter.name.startswith(("backend_", "health_check_", "connect_timeout"))
    return per_backend and assignment.index is not None and 0 < backends <= assignment.index


def _sections(
    settings: Settings, material: Material, given: dict[str, Given], catalogue: Catalogue, problems: Problems
) -> Iterator[Section]:
    run_dir = str(settings.run_dir)
    left = dict(given)

    def owned(setting: Setting[Any], pairs: Sequence[tuple[str, str]]) -> Iterator[Assignment]:
        for name, value in pairs:
            try:
                yield catalogue.assign(name, value)
            except InvalidValueError as error:
                origin = settings.origin(setting)
                problems.add(setting.name, origin, Raw(value, origin).quoted(error.what), error.remedy)

    def section(of: DefaultSection, *first: Assignment) -> Section:
        chosen = []
        for default in of.defaults:
            override = left.pop(default.name, None)
            chosen.append(override.assignment if override else catalogue.assign(default.name, default.value))
        return Section(of.title, (*first, *chosen))

    yield Section(
        "Backends: the order gives the node ids; the application name is Patroni's member name",
        tuple(owned(table.BACKENDS, list(_backend_parameters(settings)))),
    )
    yield section(defaults.CLIENTS, *owned(table.RUN_DIR, [("unix_socket_directories", run_dir)]))
    yield section(defaults.ROUTING)
    yield section(defaults.AUTHENTICATION, *owned(table.RUN_DIR, list(_tls_parameters(settings, material))))
    yield section(defaults.CHECKS, *owned(table.CHECK_USER, list(_check_parameters(settings, material))))
    yield section(defaults.FAILOVER)
    yield section(defaults.MEMORY)
    files = [("pcp_socket_dir", run_dir), ("pid_file_name", f"{run_dir}/pgpool.pid"), ("logdir", run_dir)]
    yield section(defaults.ADMINISTRATION, *owned(table.RUN_DIR, files))
    if left:
        yield Section("From PGPOOL_PARAMS_…", tuple(left[name].assignment for name in sorted(left)))


def _backend_parameters(settings: Settings) -> Iterator[tuple[str, str]]:
    for node, backend in enumerate(settings.backends):
        # The host stands before the port: the other way round, pgpool adds a node at reload with a socket
        # in /tmp for its host (BackendPortAssignFunc, src/config/pool_config_variables.c).
        yield f"backend_hostname{node}", backend.host
        yield f"backend_port{node}", str(backend.port)
        yield f"backend_weight{node}", f"{backend.weight:.6f}".rstrip("0").rstrip(".")
        yield f"backend_application_name{node}", backend.name
        if backend.flags != ("ALLOW_TO_FAILOVER",):
            yield f"backend_flag{node}", "|".join(backend.flags)


def _check_parameters(settings: Settings, material: Material) -> Iterator[tuple[str, str]]:
    yield "sr_check_user", settings.check_user
    yield "health_check_user", settings.check_user
    # Without a password here, pgpool takes it from pool_passwd. Its main process opens that file once, at start:
    # after a rotation it would look for the primary with the old password, and find none. A reload does give it
    # this one. In clear it must not stand here, because any client can have a reload log it (log_min_messages).
    for credential in material.credentials or ():
        if material.key is not None and credential.role == settings.check_user:
            encrypt = aes_encrypter(material.key.reveal())
            yield "sr_check_password", encrypt(prepared(credential.password.reveal()))


def _tls_parameters(settings: Settings, material: Material) -> Iterator[tuple[str, str]]:
    if settings.tls_dir:
        yield "ssl", "on"
        directory = f"{settings.run_dir}/{CURRENT}"
        yield "ssl_cert", f"{directory}/tls.crt"
        yield "ssl_key", f"{directory}/tls.key"
        if material.tls is not None and material.tls.files.get("ca.crt"):
            yield "ssl_ca_cert", f"{directory}/ca.crt"


def _numbers(sections: Sequence[Section], catalogue: Catalogue) -> dict[str, int]:
    numbers = {
        parameter.name: int(parameter.default)
        for parameter in catalogue.parameters.values()
        if isinstance(parameter.default, int)
    }
    for section in sections:
        numbers |= {each.name: each.number for each in section.assignments if each.number is not None}
    return numbers


def _text_of(sections: Sequence[Section], name: str) -> str:
    return next(each.encoded for section in sections for each in section.assignments if each.name == name).strip("'")


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
    problems.add(table.KEY_FILE.name, str(settings.key_file), what, remedy)


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
        if fault := _password_fault(credential.password.reveal(), encrypted=settings.key_file is not None):
            problems.add(f"password of role {credential.role!r}", credential.origin, *fault)
    if settings.check_user and settings.check_user not in origins:
        problems.add(
            table.CHECK_USER.name,
            settings.origin(table.CHECK_USER),
            f"the role {settings.check_user!r} has no password in {settings.users_dir}",
            f"add the file {settings.users_dir}/{settings.check_user}, or name another role",
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


def _password_fault(password: str, *, encrypted: bool) -> tuple[str, str] | None:
    """What makes a password unusable, and the remedy. Speaks of it without quoting it."""
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
            f"has {length} bytes; pgpool cuts entries after {limit}"
            + (" when they are encrypted" if encrypted else ""),
            "choose a shorter password",
        )
    return None


def _check_hba(settings: Settings, material: Material, problems: Problems) -> None:
    if material.hba is None:
        return
    for number, fault in hba.faults(material.hba, tls=settings.tls_dir is not None):
        problems.add(
            table.HBA_FILE.name,
            f"{settings.hba_file}, line {number}",
            fault,
            "correct the line; the format is pgpool's pool_hba.conf",
        )
