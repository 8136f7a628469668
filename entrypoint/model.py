"""The one frozen description of what pgpool is to do, once it obeys the rules."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from entrypoint import defaults, tls
from entrypoint import settings as table
from entrypoint.catalogue import Assignment, Catalogue, InvalidValueError
from entrypoint.credentials import aes_encrypter
from entrypoint.defaults import DefaultSection
from entrypoint.errors import Problems
from entrypoint.material import Credential, Material
from entrypoint.rules import check_rules
from entrypoint.saslprep import prepared
from entrypoint.secret import Secret
from entrypoint.settings import Given, Setting, Settings
from entrypoint.sources import Raw

CURRENT = "current"
"""The symlink in the run directory that always points to the live generation."""


@dataclass(frozen=True, slots=True)
class Section:
    """Lines of pgpool.conf under one heading."""

    title: str
    assignments: tuple[Assignment, ...]


@dataclass(frozen=True, slots=True)
class MadeUp:
    """Random values that stand in for what is not given."""

    pcp_password: Secret
    check_key: Secret | None
    """Encrypts the check role's password in pgpool.conf when PGPOOLKEYFILE does not; None: it is left out there."""
    certificate: Mapping[str, bytes] | None = field(default=None, repr=False)
    """tls.crt and tls.key, for who comes from an image that makes them up; None: made when needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PgpoolModel:
    """Everything the rendered files say."""

    sections: tuple[Section, ...]
    numbers: Mapping[str, int]
    """Effective numbers by name, in the parameter's unit (booleans 0 or 1): ours, and pgpool's defaults."""
    listen_addresses: str
    pcp_listen_addresses: str
    credentials: tuple[Credential, ...]
    """Sorted by role, so that equal inputs render equal files."""
    key: Secret | None
    """Encrypts pool_passwd; None: it is not encrypted."""
    check_key: Secret | None
    """What pgpool needs to read the check role's password in pgpool.conf: `key`, or one that was made up."""
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
    made_up: MadeUp,
    catalogue: Catalogue,
    now: datetime,
    problems: Problems,
) -> PgpoolModel:
    """Check every rule that spans settings and put the model together.

    Problems are added, not raised: a model built with problems is good for nothing but finding more.

    Args:
        settings: what the environment says.
        material: what the files say that it names.
        made_up: stands in for what is not given.
        catalogue: the parameters of the installed pgpool.
        now: the time to judge certificates by, with a time zone.
        problems: collects what is wrong.
    """
    given = _given(settings, problems)
    check_key = material.key or made_up.check_key
    sections = tuple(_sections(settings, material, given, catalogue, check_key, problems))
    numbers = _numbers(sections, catalogue)
    check_rules(settings, material, given, numbers, problems)
    certificates = {}
    warnings: list[str] = []
    if settings.tls_dir is not None:
        tls.check_parameters(given, problems)
    if material.tls is not None:
        certificates = {name: material.tls.files[name] for name in tls.FILES if material.tls.files.get(name)}
        warnings += tls.check(material.tls.files, str(material.tls.path), now, problems)
    return PgpoolModel(
        sections=sections,
        numbers=numbers,
        listen_addresses=_text_of(sections, "listen_addresses"),
        pcp_listen_addresses=_text_of(sections, "pcp_listen_addresses"),
        credentials=tuple(sorted(material.credentials or (), key=lambda credential: credential.role)),
        key=material.key,
        check_key=check_key,
        hba=material.hba,
        pcp_user=settings.pcp_user,
        pcp_password=settings.pcp_password or made_up.pcp_password,
        tls=certificates,
        warnings=tuple(warnings),
    )


def _given(settings: Settings, problems: Problems) -> dict[str, Given]:
    """The user's parameters by name, without those that a setting owns."""
    given: dict[str, Given] = {}
    for parameter in settings.params:
        assignment = parameter.assignment
        if reserved := defaults.RESERVED.get(assignment.parameter.name):
            instead = f"remove the line; {reserved.instead}" if ", line " in parameter.origin else reserved.instead
            problems.add(parameter.variable, parameter.origin, reserved.reason, instead)
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
    settings: Settings,
    material: Material,
    given: dict[str, Given],
    catalogue: Catalogue,
    check_key: Secret | None,
    problems: Problems,
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
    yield section(defaults.AUTHENTICATION, *owned(table.RUN_DIR, list(_tls_parameters(settings, material))))
    yield section(defaults.CHECKS, *owned(table.CHECK_USER, list(_check_parameters(settings, material, check_key))))
    yield section(defaults.FAILOVER)
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
        # Stated even when it is pgpool's default: a reload keeps what the file does not mention, and the sidecar
        # holds failover for a moment while it renews the health checks.
        allowed = () if any("FAILOVER" in flag for flag in backend.flags) else ("ALLOW_TO_FAILOVER",)
        yield f"backend_flag{node}", "|".join((*backend.flags, *allowed))


def _check_parameters(settings: Settings, material: Material, check_key: Secret | None) -> Iterator[tuple[str, str]]:
    yield "sr_check_user", settings.check_user
    yield "health_check_user", settings.check_user
    # Without a password here, pgpool takes it from pool_passwd. Its main process opens that file once, at start:
    # after a rotation it would look for the primary with the old password, and find none. A reload does give it
    # this one. In clear it must not stand here, because any client can have a reload log it (log_min_messages).
    for credential in material.credentials or ():
        if check_key is not None and credential.role == settings.check_user:
            yield "sr_check_password", aes_encrypter(check_key.reveal())(prepared(credential.password.reveal()))


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
    return next(each.text or "" for section in sections for each in section.assignments if each.name == name)
