"""What the sidecar knows of itself, for people and for probes: status.json, and GET /status."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from entrypoint.publish import replace_file

STATUS = "status.json"
_SHOWN = 12
"""Characters of a digest that are shown."""


class State(StrEnum):
    """How pgpool stands to the Secrets."""

    STARTING = "starting"
    """pgpool has not booted here."""
    IN_SYNC = "in_sync"
    """pgpool serves what the Secrets say, and logins have proved it."""
    PENDING = "pending"
    """pgpool works with an older set, on purpose: PostgreSQL does not accept the new one yet."""
    APPLYING = "applying"
    """A new set is published; reload or proof is tried again."""
    INVALID = "invalid"
    """The Secrets or files of this moment cannot be used; pgpool works with an older set."""
    DEGRADED = "degraded"
    """Somebody must act: see the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A restart of pgpool that a change needs."""

    required_by: tuple[str, ...]
    policy: str
    in_seconds: float | None
    """Until this pod's turn, when the status was made; None: it does not happen by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One moment's account. Digests name generations; nothing here is a secret."""

    state: State
    reason: str = ""
    since: str = ""
    """When this state began: ISO 8601, UTC."""
    desired: str | None = None
    applied: str | None = None
    verified: str | None = None
    rejected: tuple[str, ...] = ()
    """Generations, as shown, that were put back because logins through pgpool failed with them."""
    held: Mapping[str, str] = field(default_factory=dict)
    """Roles that keep what pgpool has, each with the reason."""
    unproven: Mapping[str, str] = field(default_factory=dict)
    """New roles that pgpool has, but that PostgreSQL does not let in yet."""
    restart: Restart | None = None
    settled: bool = False
    """Whether logins through pgpool have proved a set since the start: it never turns back."""

    def document(self) -> dict[str, object]:
        """As JSON has it; digests shortened as in the log."""
        document = asdict(self)
        for name in ("desired", "applied", "verified"):
            document[name] = document[name] and shown(document[name])
        return document

    def text(self, *, indent: int | None = None) -> str:
        """As JSON; of a file name that is not UTF-8, the escapes that JSON has for it."""
        text = json.dumps(self.document(), indent=indent, ensure_ascii=False)
        return text.encode(errors="backslashreplace").decode()

    def write(self, run_dir: Path) -> None:
        """Write status.json by rename. Raises OSError."""
        replace_file(run_dir / STATUS, f"{self.text(indent=1)}\n".encode(), durable=False)


def shown(digest: str) -> str:
    """A digest as people see it: enough of it to tell generations apart."""
    return digest[:_SHOWN]


def rejected_before(run_dir: Path) -> tuple[str, ...]:
    """`rejected` of the status that a former sidecar left, so that ours does not try those again."""
    try:
        return tuple(map(str, json.loads((run_dir / STATUS).read_bytes())["rejected"]))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
