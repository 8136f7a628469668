"""Does PostgreSQL still agree with what pgpool has? Asked now and then, of a few roles, whatever else goes on."""

from collections.abc import Collection, Mapping

from entrypoint.model import CURRENT
from entrypoint.publish import VERIFIED, marked
from sidecar.desired import Roles
from sidecar.login import Outcome
from sidecar.plan import Held
from sidecar.proof import Proof
from sidecar.surroundings import Database, Surroundings

HEARTBEAT_SECONDS = 300.0
ROLES = 16
"""So many roles are asked about at a time: each failed login stands in somebody's log."""
SILENT = 3
"""After so many passwords that PostgreSQL could not be asked about, it is not asked about the rest."""


class Heartbeat:
    """Remembers who is refused, and which new roles PostgreSQL has not let in yet."""

    def __init__(self, around: Surroundings, proof: Proof) -> None:
        self._around = around
        self._proof = proof
        self.refused: tuple[str, ...] = ()
        """Roles whose password PostgreSQL refuses though Secret and pgpool agree."""
        self.unproven: Mapping[str, Held] = {}
        """New roles that pgpool has, but that PostgreSQL did not let in yet."""
        self._served: tuple[str | None, Database, Roles] | None = None
        """The generation that was live at the last beat, whom to ask, and what pgpool has by it."""
        self._turn = 0
        self._next = 0.0

    def take(self, unproven: Mapping[str, Held]) -> None:
        """Remember new roles; the next beat is due at once if somebody is refused, who may be no longer."""
        self.unproven = {**self.unproven, **unproven}
        if self.refused:
            self._next = 0.0

    def beat(self, database: Database, having: Roles, held: Collection[str] = ()) -> None:
        """Ask, when it is time to; but not about those held, who are asked about anyway, and judged by that."""
        self._served = (marked(self._around.run_dir, CURRENT), database, having)
        others = Roles({role: each for role, each in having.passwords.items() if role not in held}, having.check_user)
        if self._around.clock() >= self._next:
            self._next = self._around.clock() + HEARTBEAT_SECONDS
            self.refused = self._ask(database, others)
        self.refused = tuple(role for role in self.refused if role in others.passwords)

    def go_on(self) -> None:
        """Ask about what pgpool serves though the Secrets cannot be used, as far as it is known and proved."""
        run_dir = self._around.run_dir
        if self._served is None:
            return
        live, database, having = self._served
        if live == marked(run_dir, CURRENT) == marked(run_dir, VERIFIED):
            self.beat(database, having)

    def ask_about_new_roles(self, database: Database, having: Roles) -> None:
        """Log in with the roles that PostgreSQL did not know when pgpool was given them."""
        waiting = {role: why for role, why in self.unproven.items() if role in having.passwords}
        for role in list(waiting)[:ROLES]:
            password, why = having.passwords[role], waiting.pop(role)
            direct = self._proof.ask(database, role, password).outcome
            if direct is Outcome.ACCEPTED and self._proof.login(role, password).outcome is Outcome.ACCEPTED:
                self._around.events.info("rotation.new_role_proved", role=role)
                continue
            waiting[role] = why  # behind the others, whose turn is next
            if direct is Outcome.UNKNOWN:
                break
        self.unproven = waiting

    def _ask(self, database: Database, having: Roles) -> tuple[str, ...]:
        first = {role: None for role in (having.check_user, *self.refused) if role in having.passwords}
        others = sorted(having.passwords.keys() - self.unproven.keys() - first.keys())
        turn = [others[(self._turn + n) % len(others)] for n in range(min(len(others), ROLES))]
        self._turn += ROLES
        outcomes: dict[str, Outcome] = {}
        for role in (*first, *turn):
            silence = list(outcomes.values())[-SILENT:] == [Outcome.UNKNOWN] * SILENT
            ask = not silence and self._proof.ask(database, role, having.passwords[role])
            outcomes[role] = ask.outcome if ask else Outcome.UNKNOWN
        # Who could not be asked this time is as bad as before.
        return tuple(
            role
            for role, outcome in outcomes.items()
            if outcome is Outcome.REJECTED or (outcome is Outcome.UNKNOWN and role in self.refused)
        )
