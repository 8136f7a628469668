"""From the parameters of somebody else's pgpool.conf to our settings, with a warning for each deliberate difference."""

import re
from collections.abc import Callable
from pathlib import Path

from entrypoint import defaults, tls
from entrypoint.backends import FLAGS, MAX_NAME_BYTES, BackendsError, parse_backends
from entrypoint.catalogue import Catalogue, InvalidValueError, UnknownParameterError
from entrypoint.compat.draft import Draft, is_default, is_on
from entrypoint.environment import PARAMS_PREFIX, given_as, is_confidential, read_variable
from entrypoint.material import Supplied
from entrypoint.sources import Raw

_CACHE = frozenset({"memqcache_total_size", "memqcache_max_num_cache", "enable_shared_relcache"})
OURS = frozenset({"listen_addresses", "log_pcp_processes"}) | _CACHE
"""Defaults of ours that nobody notices, but for memory and the log; those of the query cache only while it is off."""

_NODE = re.compile(r"backend_(hostname|port|weight|flag|application_name|data_directory)(0|[1-9][0-9]*)")
_PIECE = re.compile(r"[^\s,?=&\[\]'\"]+")
_FORMS = {
    "hostname": "is neither a host name nor an address",
    "port": "is not a port from 1024 to 65535",
    "weight": "is not a number of 0 or more",
    "flag": f"is not of the flags {', '.join(FLAGS)}, joined by '|'",
    "application_name": f"is not a name of at most {MAX_NAME_BYTES} letters, digits, '.', '_' and '-'",
}
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

_GIVE = "give the password of each role that is to log in"
_ELSEWHERE = "is not taken over: the sockets and other files of pgpool are in PGPOOL_RUN_DIR; look for them there"
_DROPPED = {
    **dict.fromkeys(
        (
            "unix_socket_directories",
            "socket_dir",
            "pcp_socket_dir",
            "wd_ipc_socket_dir",
            "pid_file_name",
            "logdir",
            "work_dir",
        ),
        _ELSEWHERE,
    ),
    "syslog_ident": "is not taken over: the sidecar needs that parameter; tell the logs apart by pod",
}
_FIXED: dict[str, tuple[Callable[[Raw], bool], str]] = {
    "enable_pool_hba": (
        is_on,
        f"is not taken over: pgpool itself asks every client for its password, by SCRAM; {_GIVE}",
    ),
    "pool_passwd": (
        lambda raw: bool(raw.value),
        f"is not taken over: without pool_passwd pgpool would ask for passwords in clear text; {_GIVE}",
    ),
    "allow_clear_text_frontend_auth": (
        lambda raw: not is_on(raw),
        f"is not taken over: no password travels in clear text; {_GIVE}",
    ),
}


def settle(draft: Draft, catalogue: Catalogue, *, keep: frozenset[str] = frozenset()) -> Supplied:
    """Turn `draft.parameters` into settings, and return what has no setting.

    Where that image leaves a parameter to pgpool, so does this; except for those in `keep`, which stay as ours.
    """
    ours = keep | (OURS - _CACHE if _has_cache(draft) else OURS)
    for section in (defaults.CLIENTS, defaults.CHECKS, defaults.FAILOVER, defaults.ADMINISTRATION):
        for each in section.defaults:
            built_in = catalogue.parameters[each.name].default
            if each.name not in ours and built_in is not None:
                text = {True: "on", False: "off"}[built_in] if isinstance(built_in, bool) else str(built_in)
                draft.parameters.setdefault(each.name, Raw(text, "default of pgpool"))
    parameters = draft.parameters
    if backends := _backends(draft):
        draft.set("PGPOOL_BACKENDS", backends)
    _check_role(draft)
    files = _tls(draft, catalogue)
    _plain_text(draft, files)
    for name in [name for name in parameters if _NODE.fullmatch(name)]:
        del parameters[name]
    for name, raw in parameters.items():
        if lost := _lost(name, raw, catalogue):
            if not is_default(raw):
                draft.warnings.append(f"{name} ({raw.origin}) {lost}")
        elif name not in _FIXED and (raw.value or not _is_reserved(name, catalogue)):
            variable = f"{PARAMS_PREFIX}{name.upper()}"
            secret = raw.secret or is_confidential(variable, catalogue)
            draft.set(variable, Raw(raw.value, raw.origin, secret))
    return Supplied(credentials=tuple(draft.credentials), key=draft.key, tls=files)


def _lost(name: str, raw: Raw, catalogue: Catalogue) -> str:
    """Why a parameter is not taken over, and what to do; empty: it is, or it says what is so anyway."""
    if name in _DROPPED:
        return _DROPPED[name]
    if name in _FIXED:
        is_so_anyway, words = _FIXED[name]
        return "" if is_so_anyway(raw) else words
    try:
        catalogue.find(name)
    except UnknownParameterError as error:
        return f"is passed over, as by pgpool: {error.what}; remove it ({error.remedy})"
    except InvalidValueError:  # told when it is set
        pass
    return ""


def _has_cache(draft: Draft) -> bool:
    variable = f"{PARAMS_PREFIX}MEMORY_CACHE_ENABLED"
    given = [draft.parameters.get("memory_cache_enabled")] + [
        read_variable(name, variable, draft.env, draft.reader, draft.problems, secret=False)
        for name in given_as(variable, draft.env)
        if name not in draft.theirs
    ]
    return any(map(is_on, given))


def _is_reserved(name: str, catalogue: Catalogue) -> bool:
    try:
        return catalogue.find(name)[0].name in defaults.RESERVED
    except InvalidValueError:
        return False


def _backends(draft: Draft) -> Raw | None:
    """The servers as PGPOOL_BACKENDS has them."""
    nodes: dict[int, dict[str, Raw]] = {}
    for name, raw in draft.parameters.items():
        if match := _NODE.fullmatch(name):
            nodes.setdefault(int(match[2]), {})[match[1]] = raw
    hosts = {node: fields["hostname"] for node, fields in sorted(nodes.items()) if _given(fields.get("hostname"))}
    if not hosts:
        return None
    if list(hosts) != list(range(len(hosts))):
        draft.warnings.append(
            f"the nodes {', '.join(map(str, hosts))} are numbered from 0 on, in their order; "
            "use the new numbers with the pcp tools"
        )
    names = _names(draft, nodes, hosts)
    before = len(draft.problems)
    places: dict[tuple[str, str], int] = {}
    for node, host in hosts.items():
        _find_faults(draft, node, nodes[node])
        same = places.setdefault((host.value, _value(nodes[node].get("port"), "5432")), node)
        if same != node:
            draft.refuse(host, f"backend_hostname{node}", f"is node {same} already", "give each server once")
    if len(draft.problems) > before:
        return None
    entries = [_entry(nodes[node], name) for node, name in names.items()]
    return Raw(",".join(entries), next(iter(hosts.values())).origin)


def _find_faults(draft: Draft, node: int, fields: dict[str, Raw]) -> None:
    """What is wrong with one server, told in the words that it was given in."""
    for field, raw in fields.items():
        where = f"backend_{field}{node}"
        if field == "data_directory" or not raw.value:
            continue
        if not _PIECE.fullmatch(raw.value):  # else a comma or a question mark would begin something new
            draft.refuse(raw, where, "has blanks or signs where none can be", "correct it")
        elif field == "flag" and "ALWAYS_MASTER" in raw.value:
            draft.refuse(raw, where, "has a flag of pgpool before 4.2", "write ALWAYS_PRIMARY for ALWAYS_MASTER")
        else:
            alone = {"hostname": Raw("host", raw.origin), field: raw}
            try:
                parse_backends(_entry(alone, _value(alone.get("application_name"), "node")))
            except BackendsError:
                draft.refuse(raw, where, _FORMS[field], "correct it")


def _entry(fields: dict[str, Raw], name: str) -> str:
    """One server in our grammar."""
    host = fields["hostname"].value
    port = _value(fields.get("port"), "5432")
    weight, flag = _value(fields.get("weight"), "1"), _value(fields.get("flag"), "ALLOW_TO_FAILOVER")
    options = [f"weight={weight}"] * (weight != "1") + [f"flag={flag}"] * (flag != "ALLOW_TO_FAILOVER")
    address = f"[{host}]" if ":" in host else host
    return f"{name}={address}:{port}{'?' if options else ''}{'&'.join(options)}"


def _names(draft: Draft, nodes: dict[int, dict[str, Raw]], hosts: dict[int, Raw]) -> dict[int, str]:
    """What each server calls itself when it replicates: as given, or the first label of its host, which is its pod."""
    labels = {node: host.value.partition(".")[0] for node, host in hosts.items()}
    taken = {label.rstrip("-0123456789") for label in labels.values()}
    other = next(each for each in ("unnamed", "nameless", "other") if each not in taken)
    guessed = {
        node: label
        if _LABEL.fullmatch(label) and len(label) <= 62 and list(labels.values()).count(label) == 1
        else f"{other}-{node}"
        for node, label in labels.items()
    }
    names = {node: _value(nodes[node].get("application_name"), guessed[node]) for node in hosts}
    if len(set(names.values())) < len(names):
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        draft.warnings.append(
            f"the name {twice!r} of several servers is not taken over, for it tells none from the other; give each the "
            f"application_name under which it replicates (now {', '.join(guessed.values())})"
        )
        return guessed
    unnamed = [node for node in hosts if not _given(nodes[node].get("application_name"))]
    if unnamed and is_on(draft.parameters.get("auto_failback")):
        draft.warnings.append(
            f"auto_failback relies on names that are guessed from the hosts ({', '.join(names[n] for n in unnamed)}); "
            "give each server its application_name"
        )
    return names


def _given(raw: Raw | None) -> bool:
    return raw is not None and bool(raw.value)


def _value(raw: Raw | None, other: str) -> str:
    return raw.value if raw is not None and raw.value else other


def _check_role(draft: Draft) -> None:
    """One role for both checks, with its password among the others."""
    take = draft.parameters.pop
    users = {name: take(f"{name}_user", None) for name in ("sr_check", "health_check")}
    passwords = {name: take(f"{name}_password", None) for name in users}
    user = next((raw for raw in users.values() if raw is not None and raw.value), None)
    for name, password in passwords.items():
        if password is None or not password.value:
            continue
        if re.match(r"AES|md5[0-9a-f]{32}$", password.value):
            draft.refuse(password, f"{name}_password", "is encrypted, and its key is not here", "give it as it is")
        elif user is None:
            draft.warnings.append(
                f"{name}_password ({password.origin}) counts for nothing, because no {name}_user is set; set that too"
            )
        else:
            plain = Raw(password.value.removeprefix("TEXT"), password.origin, secret=True)
            draft.add_role(users[name] or user, plain)
    other = users["health_check"]
    if user is not None and _given(other) and other is not None and other.value != user.value:
        draft.warnings.append(
            f"health_check_user ({other.origin}) is not taken over: both checks log in as the role of sr_check_user; "
            "nothing is to be done if that role can connect to every server"
        )
    if user is None and not draft.has("PGPOOL_CHECK_USER"):
        known = {each.origin: each for each in draft.credentials}
        first = known.get("POSTGRES_PASSWORD") or next(iter(draft.credentials), None)
        if first is not None:
            user = Raw(first.role, f"the role of {first.origin}")
            draft.warnings.append(
                f"pgpool's own logins and the sidecar's are made as {first.role!r}, because sr_check_user is not set; "
                "better make a role of its own for them, a member of pg_monitor"
            )
    if user is not None:
        draft.set("PGPOOL_CHECK_USER", user)


def _tls(draft: Draft, catalogue: Catalogue) -> dict[str, Path] | None:
    """Where certificate, key and authority are, as a Secret of type kubernetes.io/tls names them; None: made up."""
    names = {"tls.crt": "ssl_cert", "tls.key": "ssl_key", "ca.crt": "ssl_ca_cert"}
    switch = draft.parameters.pop("ssl", None)
    files = {file: raw for file, name in names.items() if (raw := draft.parameters.pop(name, None)) and raw.value}
    if draft.has("PGPOOL_TLS_DIR"):
        if theirs := [*files.values(), *([switch] if switch is not None and not is_on(switch) else [])]:
            draft.set("PGPOOL_TLS_DIR", theirs[0])
        return {}
    if switch is None:
        return {}
    try:
        if not catalogue.assign("ssl", switch.value).number:
            return {}
    except InvalidValueError as error:
        draft.refuse(switch, "ssl", error.what, error.remedy)
        return {}
    if missing := [names[file] for file in tls.REQUIRED if file not in files]:
        if draft.self_signs and not files:
            draft.warnings.append(
                f"TLS is on ({switch.origin}) without a certificate, so that one is made up at each boot, as by that "
                f"image; it proves nothing to clients: {draft.certificate}"
            )
            return None
        draft.problems.add("ssl", switch.origin, f"TLS is on without {' and '.join(missing)}", draft.certificate)
        return {}
    for raw in files.values():
        if not raw.value.startswith("/"):
            draft.refuse(raw, "ssl", "is not an absolute path", "begin it with /")
    paths = {file: Path(raw.value) for file, raw in files.items()}
    directory = paths["tls.crt"].parent
    draft.set("PGPOOL_TLS_DIR", Raw(str(directory), files["tls.crt"].origin))
    if renamed := [f"{file} for {path}" for file, path in paths.items() if path != directory / file]:
        draft.warnings.append(f"in messages, PGPOOL_TLS_DIR has {', '.join(renamed)}")
    return paths


def _plain_text(draft: Draft, files: dict[str, Path] | None) -> None:
    """Who comes without TLS is refused; in the other images, not."""
    has_hba = "PGPOOL_HBA_FILE" in draft.settings or draft.has("PGPOOL_HBA_FILE")
    if (files or files is None or draft.has("PGPOOL_TLS_DIR")) and not has_hba:
        draft.warnings.append(f"TLS is on, so that clients without TLS are refused; to have both, {draft.both}")
