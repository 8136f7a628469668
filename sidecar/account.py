"""What a rotation says of itself after each step: status.json, the log's line when the state changes, and metrics."""

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cryptography import x509

from entrypoint.model import CURRENT
from entrypoint.publish import BOOTED, VERIFIED, marked, marked_at
from entrypoint.tree import Tree
from sidecar.generation import Generation
from sidecar.plan import Held
from sidecar.status import Restart, State, Status, rejected_before, shown
from sidecar.surroundings import Surroundings

_REMEMBERED = 8


class Account:
    """The status, and what goes into it from one step to the next."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        # A sidecar that was restarted in the midst of a good time need not see another one to be ready.
        self.status = Status(state=State.STARTING, settled=_proved_since_boot(around.run_dir))
        self._wanted: str | None = None
        """The digest of what the Secrets say."""
        self._changed_at: float | None = None
        """Since when a change waits for its proof."""
        self._waiting = False
        self._untold = False
        """Whether status.json is of before, because it could not be written."""
        self._rejected = rejected_before(around.run_dir)

    def want(self, wanted: Tree, live: Generation) -> None:
        """Take note of what the Secrets say now; that it differs from what is live is told once."""
        if wanted.digest == self._wanted:
            return
        self._wanted = wanted.digest
        metrics = self._around.metrics
        if wanted.digest != live.digest:
            self._changed_at = self._around.clock()
            metrics.secret_last_change_timestamp.set(self._around.now().timestamp())
            names = sorted({*wanted.files, *live.tree.files})
            files = [name for name in names if wanted.files.get(name) != live.tree.files.get(name)]
            self._around.events.info("rotation.detected", generation=shown(wanted.digest), files=",".join(files))
        certificate = wanted.files.get("tls.crt")
        if certificate is not None:
            expires = x509.load_pem_x509_certificates(certificate)[0].not_valid_after_utc
            metrics.tls_cert_not_after_timestamp.set(expires.timestamp())

    def is_rejected(self, digest: str) -> bool:
        """Whether this set was put back, and nothing else was served since then as it should be."""
        return shown(digest) in self._rejected

    def reject(self, digest: str, former: str, why: str) -> None:
        """Remember a set that pgpool refuses, for which the former one is put back."""
        others = [each for each in self._rejected if each != shown(digest)]
        self._rejected = (*others, shown(digest))[-_REMEMBERED:]
        self._around.metrics.rollbacks.labels("refused").inc()
        self._around.events.error("rotation.rolled_back", generation=shown(former), rejected=shown(digest), reason=why)

    def forgive(self) -> None:
        """Forget what was put back: it has changed since then, and is worth another try when it comes back."""
        self._rejected = ()

    def logged_in(self) -> None:
        """Logins through pgpool have proved what changed."""
        if self._changed_at is not None:
            self._around.metrics.rotation_duration.observe(self._around.clock() - self._changed_at)

    def verify(self, digest: str) -> None:
        """Remember a set that pgpool works with."""
        self.forgive()
        self._around.metrics.applies.labels("applied").inc()
        self._around.metrics.last_verified_timestamp.set(self._around.now().timestamp())
        ms = self._around.ms_since(self._changed_at)
        self._around.events.info("rotation.verified", generation=shown(digest), ms=ms)
        self._changed_at = None

    def conclude(self, state: State, reason: str, *, held: Mapping[str, Held], unproven: Mapping[str, Held]) -> Status:
        """The account of a step; a change of state is told once."""
        run_dir, metrics, former = self._around.run_dir, self._around.metrics, self.status
        since = former.since
        if (state, reason) != (former.state, former.reason):
            tell = {
                State.PENDING: self._around.events.warning,
                State.INVALID: self._around.events.error,
                State.DEGRADED: self._around.events.error,
            }.get(state, self._around.events.info)
            tell("rotation.state", state=state.value, reason=reason or None)
        if state != former.state or not since:
            since = self._around.now().isoformat(timespec="milliseconds")
        waits = self._waits(state, held)
        if waits != self._waiting:
            metrics.pending_since_timestamp.set(self._around.now().timestamp() if waits else math.nan)
            self._waiting = waits
        metrics.held_credentials.set(len(held))
        return self._keep(
            Status(
                state=state,
                reason=reason,
                since=since,
                desired=self._wanted,
                applied=marked(run_dir, CURRENT),
                verified=marked(run_dir, VERIFIED),
                rejected=self._rejected,
                held={role: each.reason for role, each in held.items()},
                unproven={role: each.reason for role, each in unproven.items()},
                restart=former.restart,
                settled=former.settled or _proved_since_boot(run_dir),
            )
        )

    def _waits(self, state: State, held: Mapping[str, Held]) -> bool:
        """Whether a change waits to be served: a bad password that nobody has changed is none."""
        if state in (State.IN_SYNC, State.STARTING):
            return False
        unserved = self._wanted != marked(self._around.run_dir, VERIFIED)
        return bool(held) or unserved or state is State.INVALID

    def restart(self, restart: Restart | None) -> Status:
        """The same account, with what it says of a restart."""
        return self._keep(replace(self.status, restart=restart))

    def _keep(self, status: Status) -> Status:
        if status != self.status or self._untold:
            self.status = status
            if self._around.write_status:
                self._untold = True
                with suppress(OSError):  # told again at the next step; a full volume stops no rotation
                    status.write(self._around.run_dir)
                    self._untold = False
        return status


def _proved_since_boot(run_dir: Path) -> bool:
    """Whether logins through the pgpool that was started last have proved a set; one bad Secret does not matter."""
    return marked_at(run_dir, VERIFIED) > marked_at(run_dir, BOOTED) > 0
