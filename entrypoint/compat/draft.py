"""A translation in the making: what the tables of both images fill in."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from entrypoint.catalogue import TRUE
from entrypoint.compat import conf
from entrypoint.environment import ENVIRONMENT, given_as, read_variable
from entrypoint.errors import Problems
from entrypoint.material import Credential
from entrypoint.secret import Secret
from entrypoint.sources import Raw, Reader, SourceError, text


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variable of another image, and what becomes of it."""

    variable: str
    to: str = ""
    """A parameter of pgpool.conf, or a setting of ours. Empty: `note` says it."""
    default: str | None = None
    """What that image takes when the variable is not set; None: nothing."""
    secret: bool = False
    note: str = ""
    """What happens instead, for people."""


@dataclass(slots=True)
class Draft:
    """Collects what one environment says, in pgpool's words and in ours."""

    env: Mapping[str, str]
    theirs: frozenset[str]
    """The names in `env` that are that image's; what is left is read as ours."""
    reader: Reader
    problems: Problems
    parameters: dict[str, Raw] = field(default_factory=dict)
    """What that image would write into pgpool.conf, by name."""
    settings: dict[str, Raw] = field(default_factory=dict)
    """Our settings, by name."""
    credentials: list[Credential] = field(default_factory=list)
    key: Secret | None = None
    warnings: list[str] = field(default_factory=list)
    here: bool = True
    """Whether what may be mounted in that image is mounted on this machine."""
    certificate: str = ""
    """What to do when TLS is on without a certificate, in that image's words."""
    both: str = ""
    """What to do to have clients without TLS as well."""
    self_signs: bool = False
    """Whether that image makes one up."""

    def has(self, setting: str) -> bool:
        """Whether one of our settings is given in our own words."""
        return any(name not in self.theirs for name in given_as(setting, self.env))

    def set(self, setting: str, raw: Raw) -> None:
        """Set one of ours. Given in our words as well, it is a contradiction, unless this is but a default."""
        if not self.has(setting):
            self.settings[setting] = raw
        elif not is_default(raw):
            self.problems.add(
                setting, ENVIRONMENT, f"is set, and so is {raw.origin.removeprefix('from ')}", "keep one of the two"
            )

    def add_role(self, role: Raw | None, password: Raw | None) -> None:
        """A role that may log in; the same one with the same password counts once."""
        if role is None or password is None or not role.value:
            return
        secret = Secret(password.value)
        if not any(each.role == role.value and each.password == secret for each in self.credentials):
            self.credentials.append(Credential(role.value, secret, password.origin.removeprefix("from ")))

    def lacks_roles(self) -> bool:
        """Whether nobody is given who could log in."""

        def has_any(field: str) -> bool:
            raws = (self.parameters.get(f"{check}_{field}") for check in ("sr_check", "health_check"))
            return any(raw is not None and raw.value for raw in raws)

        checks = has_any("user") and has_any("password")
        return not (self.credentials or checks or self.has("PGPOOL_USERS_DIR"))

    def refuse(self, raw: Raw, setting: str, what: str, remedy: str) -> None:
        """Add a problem with something that was given."""
        if raw.value[:1] in ("'", '"') and raw.value[:1] == raw.value[-1:]:
            remedy = "remove the quotes: they are part of the value"
        self.problems.add(setting, raw.origin, raw.quoted(what), remedy)


def is_on(raw: Raw | None) -> bool:
    """Whether this is one of pgpool's own spellings of `on`, in any case."""
    return raw is not None and raw.value.lower() in TRUE


def is_default(raw: Raw) -> bool:
    """Whether nobody has set this."""
    return raw.origin.startswith("default")


def read_rows(draft: Draft, rows: Iterable[Row]) -> dict[str, Raw]:
    """What is set of a table, by variable; `…_FILE` of it counts as the variable. An empty one counts as not set."""
    return {name: raw for name, raw in _read(draft, rows) if raw.value}


def read_conf(draft: Draft, path: Path, setting: str, origin: str) -> None:
    """Take the lines of a pgpool.conf over whatever was said before."""
    try:
        content = text(draft.reader.file(path))
    except SourceError as error:
        draft.problems.add(setting, origin, str(error), error.remedy)
        return
    except UnicodeDecodeError:
        draft.problems.add(setting, str(path), "is not UTF-8 text", "write it anew")
        return
    for line in conf.lines(content):
        place = f"{path}, line {line.number}"
        if line.value is None:
            draft.problems.add(setting, place, "is no line of a pgpool.conf", "write name = 'value'")
        elif line.name == "include":
            draft.problems.add(setting, place, "includes another file, which is not read", "put its lines here")
        else:
            draft.parameters[line.name] = Raw(line.value, place, secret="password" in line.name)


def _read(draft: Draft, rows: Iterable[Row]) -> Iterator[tuple[str, Raw]]:
    for row in rows:
        given = given_as(row.variable, draft.env)
        if len(given) > 1:
            given = [name for name in given if draft.env[name]] or given[:1]
        env = {name: draft.env[name] for name in given}
        for name in given:
            raw = read_variable(name, row.variable, env, draft.reader, draft.problems, secret=row.secret)
            if raw is not None:
                origin = f"from {name}" if raw.origin == ENVIRONMENT else raw.origin
                yield row.variable, Raw(raw.value, origin, raw.secret)
