"""Everything outside that a rotation needs, behind seams that a test can take."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import uniform
from typing import Protocol

from entrypoint.backends import Backend
from entrypoint.secret import Secret
from sidecar.events import Events
from sidecar.login import Attempt
from sidecar.metrics import Metrics
from sidecar.options import Options


class Database(Protocol):
    """PostgreSQL's primary, asked directly."""

    def attempt(self, role: str, password: Secret) -> Attempt:
        """Whether it lets the role in with this password."""


class Pgpool(Protocol):
    """The running pgpool, as its administrator and as a client. Its administrator's calls raise PcpError."""

    def reload(self) -> None:
        """Have it read its files again."""

    def arrived(self, marker: str) -> bool:
        """Whether it has read the pgpool.conf with this marker to its end."""

    def login(self, role: str, password: Secret) -> Attempt:
        """One fresh login as a client."""

    def retire(self) -> None:
        """Retire, without ending a session, the children that did not see a reload, and cached connections."""

    def renew_checks(self, nodes: int) -> tuple[int, ...]:
        """While failover of these nodes is held, have their health checks begin anew; the nodes where none did."""

    def stop(self) -> None:
        """Stop it at once, so that the container is restarted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """The world of one sidecar."""

    run_dir: Path
    env: Mapping[str, str]
    database: Callable[[Sequence[Backend], str], Database]
    """From the backends and the database to log in to."""
    pgpool: Pgpool
    dry_run: Callable[[bytes], None]
    """pgpool's own parser; raises RejectedError."""
    options: Options
    host_name: str
    events: Events
    metrics: Metrics
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    draw: Callable[[float, float], float] = uniform
    """A random number between two: how long to wait."""
    write_status: bool = True
    """Whether status.json is ours to write: a single pass leaves it to the sidecar that runs."""
    beat: Callable[[], None] = lambda: None
    """Called whenever there is progress, so that a long step is not taken for a dead one."""

    def ms_since(self, begin: float | None) -> float | None:
        """Milliseconds since that time of `clock`, as events show them."""
        return None if begin is None else round((self.clock() - begin) * 1000, 1)
