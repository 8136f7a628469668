"""Which of the Secrets' roles and passwords pgpool is to be given now. Pure: what was tried comes in, a plan goes out.

A password may change in PostgreSQL first or in the Secret first, and a Secret may be wrong. pgpool knows one password
per role; so for each role it gets the one with which PostgreSQL lets it in.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from entrypoint.secret import Secret
from sidecar.desired import Roles
from sidecar.login import Outcome


@dataclass(frozen=True, slots=True)
class Trial:
    """What PostgreSQL's primary said to a role's password in use (None: there is none) and to the Secret's."""

    old: Outcome | None
    new: Outcome
    reason: str = ""
    """Why the new one was not accepted."""


@dataclass(frozen=True, slots=True)
class Held:
    """Why a role keeps what pgpool has."""

    reason: str
    alarm: bool = False
    """Whether somebody must act: time alone will not help."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The roles that pgpool is to have, and what is held back."""

    roles: Roles
    held: Mapping[str, Held] = field(default_factory=dict)
    unproven: Mapping[str, Held] = field(default_factory=dict)
    """Roles that are new, given to pgpool, and not accepted by PostgreSQL yet."""

    def changed(self, served: Roles) -> list[str]:
        """The roles that get a new password, as far as PostgreSQL lets them in: the check role first."""
        changed = [
            role
            for role, password in self.roles.passwords.items()
            if served.passwords.get(role) != password and role not in self.unproven
        ]
        return sorted(changed, key=lambda role: role != self.roles.check_user)


def to_try(served: Roles, wanted: Roles) -> tuple[str, ...]:
    """The roles to try before anything is decided: new ones, changed ones, and another check role."""
    return tuple(
        sorted(
            role
            for role, password in wanted.passwords.items()
            if served.passwords.get(role) != password
            or (role == wanted.check_user and wanted.check_user != served.check_user)
        )
    )


def decide(served: Roles, wanted: Roles, trials: Mapping[str, Trial], leaving: frozenset[str]) -> Plan:
    """The plan for this moment.

    Args:
        served: what pgpool was last seen to work with.
        wanted: what the Secrets say.
        trials: for each role of `to_try`.
        leaving: roles whose files have been gone for longer than the grace period.
    """
    passwords: dict[str, Secret] = {}
    held: dict[str, Held] = {}
    unproven: dict[str, Held] = {}
    for role, password in wanted.passwords.items():
        old = served.passwords.get(role)
        if old is None:
            passwords[role] = password
            if trials[role].new is not Outcome.ACCEPTED:
                unproven[role] = Held(f"PostgreSQL does not let it in yet: {trials[role].reason}")
        elif old == password:
            passwords[role] = password
        else:
            verdict = judge(trials[role])
            passwords[role] = password if verdict is None else old
            if verdict is not None:
                held[role] = verdict
    check_user = wanted.check_user
    if check_user != served.check_user and trials[check_user].new is not Outcome.ACCEPTED:
        # pgpool finds the primary, and judges the nodes, by logging in as this role.
        check_user = served.check_user
        held[wanted.check_user] = Held(f"as the check role, not accepted yet: {trials[wanted.check_user].reason}")
    passwords |= {
        role: password
        for role, password in served.passwords.items()
        if role not in wanted.passwords and (role not in leaving or role == check_user)
    }
    return Plan(Roles(dict(sorted(passwords.items())), check_user), held, unproven)


def judge(trial: Trial) -> Held | None:
    """Whether a changed password must wait; None: it is to be applied."""
    if trial.new is Outcome.ACCEPTED:
        return None
    if trial.new is Outcome.UNKNOWN:
        return Held(f"PostgreSQL could not be asked: {trial.reason}")
    if trial.old is Outcome.REJECTED:
        return Held(f"PostgreSQL accepts neither the Secret's password nor the one in use: {trial.reason}", alarm=True)
    if trial.old is Outcome.UNKNOWN:
        return Held("PostgreSQL does not accept the Secret's password, and could not be asked about the one in use")
    return Held("PostgreSQL does not accept the Secret's password yet, and does accept the one in use")
