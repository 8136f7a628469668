"""What a step of the rotation begins with: what the Secrets say, what is live, and what PostgreSQL says to both."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509

from entrypoint.errors import ConfigurationError
from entrypoint.publish import BOOTED, VERIFIED, SupersededError
from entrypoint.secret import Secret
from entrypoint.tls import FILES
from sidecar.desired import Desired, Roles, read_desired
from sidecar.generation import Generation, read_generation
from sidecar.heartbeat import SILENT
from sidecar.login import Outcome
from sidecar.plan import Held, Trial, to_try
from sidecar.proof import Proof
from sidecar.surroundings import Database, Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What one step found."""

    desired: Desired
    database: Database
    live: Generation
    verified: Generation | None
    booted: Generation
    key: Secret | None
    """The running pgpool's: no other one may encrypt what is published."""
    served: Roles
    """What pgpool was last seen to work with."""


class Look:
    """Sees the scene; remembers the running pgpool's key, and since when files have been gone."""

    def __init__(self, around: Surroundings, proof: Proof) -> None:
        self._around = around
        self._proof = proof
        self._keys: tuple[Secret | None, ...] = ()
        """The running pgpool's key of pool_passwd, once it is known."""
        self._gone_since: dict[str, float] = {}
        self.removals: list[float] = []
        """When a role is next to be removed."""
        self.desired: Desired | None = None
        """The last good reading."""

    @property
    def key(self) -> Secret | None:
        """The running pgpool's key of pool_passwd; None, too, while it is not known."""
        return self._keys[0] if self._keys else None

    def read(self, live: Generation) -> Desired:
        """What the Secrets say now. A certificate that expired while pgpool serves it stops no rotation."""
        self.desired = self._read(live)
        return self.desired

    def _read(self, live: Generation) -> Desired:
        run_dir, env = self._around.run_dir, self._around.env
        try:
            return read_desired(run_dir, env, self._around.now())
        except ConfigurationError as error:
            try:
                then = read_desired(run_dir, env, self._when_it_was_good(live))
            except ConfigurationError:
                raise error from None
            if any(then.resolved.model.tls.get(name) != live.tree.files.get(name) for name in FILES):
                raise
            return then

    def _when_it_was_good(self, live: Generation) -> datetime:
        """A time at which the certificate was valid that is live, whenever it was issued and published."""
        certificate = live.tree.files.get("tls.crt")
        if certificate is None:
            return self._around.now()
        return x509.load_pem_x509_certificates(certificate)[0].not_valid_before_utc

    def scene(self, desired: Desired, live: Generation, unproven: Mapping[str, Held]) -> Scene | None:
        """The scene; None when the running pgpool's key is not known. Raises SupersededError in the midst of a boot.

        A role that PostgreSQL has never let in (`unproven`) has nothing to lose: what pgpool has of it counts for
        nothing.
        """
        run_dir = self._around.run_dir
        verified, booted = read_generation(run_dir, VERIFIED), read_generation(run_dir, BOOTED) or live
        known = [key for key in (desired.resolved.model.key, *self._keys) if booted.roles(key) is not None]
        if not known:
            return None
        key = known[0]
        self._keys = (key,)
        served = live.roles(key)
        if served is None:  # a boot has published with another key, and has not said so yet
            raise SupersededError
        served = (verified and verified.roles(key)) or served
        passwords = {
            role: password
            for role, password in served.passwords.items()
            if role not in unproven or desired.roles.passwords.get(role) == password
        }
        return Scene(
            desired=desired,
            database=self.database(desired),
            live=live,
            verified=verified,
            booted=booted,
            key=key,
            served=Roles(passwords, served.check_user),
        )

    def database(self, desired: Desired) -> Database:
        """The PostgreSQL to ask."""
        return self._around.database(desired.resolved.settings.backends, self._around.options.database)

    def trials(self, scene: Scene) -> dict[str, Trial]:
        """What PostgreSQL says to each password that differs."""
        served, wanted = scene.served, scene.desired.roles
        trials: dict[str, Trial] = {}
        silent = 0
        for role in to_try(served, wanted):
            if silent >= SILENT:
                trials[role] = Trial(None, Outcome.UNKNOWN, "PostgreSQL gave no answer about others")
                continue
            begin = self._around.clock()
            new = self._proof.ask(scene.database, role, wanted.passwords[role])
            former, old = served.passwords.get(role), None
            # The old one matters only where the new one is refused, and each failed login stands in somebody's log.
            if new.outcome is Outcome.REJECTED and former is not None:
                old = self._proof.ask(scene.database, role, former).outcome
                if old is Outcome.REJECTED:  # it may have been changed between the two questions
                    new = self._proof.ask(scene.database, role, wanted.passwords[role])
            trials[role] = Trial(old, new.outcome, new.reason)
            silent = silent + 1 if new.outcome is Outcome.UNKNOWN else 0
            self._around.events.info(
                "rotation.tried",
                role=role,
                new=new.outcome.name.lower(),
                old=old and old.name.lower(),
                reason=new.reason or None,
                ms=self._around.ms_since(begin),
            )
        return trials

    def leaving(self, scene: Scene) -> frozenset[str]:
        """Roles whose files have been gone for the whole grace period."""
        now, grace = self._around.clock(), self._around.options.removal_grace
        gone = scene.served.passwords.keys() - scene.desired.roles.passwords.keys()
        self._gone_since = {role: self._gone_since.get(role, now) for role in gone}
        leaving = frozenset(role for role, since in self._gone_since.items() if now - since >= grace)
        self.removals = [since + grace for role, since in self._gone_since.items() if role not in leaving]
        return leaving
