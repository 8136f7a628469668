"""What can happen to a cluster, and what its clients are to see of it: the table of numbers to reach."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from psycopg import sql

from bench.failover_arena import Act, Arena, Event, Loss
from bench.measure import Times
from support.network import How
from support.pod import CHECK_ROLE
from support.probe_client import Crew
from support.probe_log import LOGIN, Ack, kind_of
from support.probe_report import Report

TTL = 30
"""Patroni's default: the longest that a lost leader keeps its lock."""
LOOP_WAIT = 2
RETRY_TIMEOUT = 10
"""Patroni's default as well: an election of etcd's may take seconds on a busy machine, and must not end the primary."""
DETECTION = 2.0
"""Seconds after which a black hole is to be no obstacle any more, and that a login may take then."""

BLACK_HOLE = 12.0

Goal = Callable[["Lived"], Iterator[str]]
"""Says what was missed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One row of the table."""

    name: str
    words: str
    times: int
    act: Act
    goals: Sequence[Goal]
    crew: Crew = field(default_factory=Crew)
    needs_sidecar: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lived:
    """One scenario, after all its events."""

    scenario: Scenario
    events: Sequence[Event]
    through: Loss
    floor: Loss

    @property
    def misses(self) -> list[str]:
        """Goals that were not reached, those of the scenario and those that it shares with all."""
        own = [words for event in self.events for words in (*event.stuck, *event.misses)]
        goals = [nothing_strange, *self.scenario.goals]
        return list(dict.fromkeys([*own, *(words for goal in goals for words in goal(self))]))


def live(arena: Arena, scenario: Scenario, tell: Callable[[int, Event], None] = lambda *_: None) -> Lived:
    """All events of one scenario, with clients of its own; `tell` gets each, numbered from 1, when it is over."""
    events: list[Event] = []
    with arena.probing(scenario.name.replace("-", "_"), scenario.crew):
        for number in range(1, scenario.times + 1):
            events.append(arena.live_through(scenario.act))
            tell(number, events[-1])
        return Lived(
            scenario=scenario,
            events=events,
            through=arena.losses(arena.through),
            floor=arena.losses([arena.floor]),
        )


# Goals.


def nothing_strange(lived: Lived) -> Iterator[str]:
    if lived.through.phantom or lived.through.duplicate:
        yield f"{lived.through.phantom} rows that nobody sent, {lived.through.duplicate} twice"


def nothing_lost(lived: Lived) -> Iterator[str]:
    if lost := len(lived.through.lost):
        yield f"{lost} acknowledged rows lost"


def nothing_lost_after_promotion(lived: Lived) -> Iterator[str]:
    late = [ack for ack in lived.through.lost for event in lived.events if event.moment < ack.at <= event.floor.until]
    if late:
        yield f"{len(late)} rows lost that were acknowledged after the promotion"


def errors_at_most(count: int, lived: Lived) -> Iterator[str]:
    """Beyond the floor's sessions that broke: a primary that Patroni itself gave up ends everybody's."""
    worst = max(
        seen.busy_errors + seen.new_errors - event.floor.busy_errors for event in lived.events for seen in event.through
    )
    if worst > count:
        yield f"{worst} errors instead of {count}"


def client_errors_at_most(count: int, lived: Lived) -> Iterator[str]:
    """Of one that keeps its session, and connects anew when it has lost it."""
    worst = max(seen.worst_worker for seen in _seen(lived))
    if worst > count:
        yield f"a client that keeps its session had {worst} errors"


def refused_at_most(count: int, lived: Lived) -> Iterator[str]:
    worst = max(seen.refusals for seen in _seen(lived))
    if worst > count:
        yield f"{worst} new clients were refused instead of held for 30 s"


def never_read_only(lived: Lived) -> Iterator[str]:
    if count := sum(seen.read_only_errors for seen in _seen(lived)):
        yield f"{count} writes went to a read-only server"


def beyond_the_floor(p95: float, always: float, lived: Lived) -> Iterator[str]:
    beyond = Times([seen.gap - event.floor.gap for event in lived.events for seen in event.through])
    if beyond.percentile(95) > p95:
        yield f"floor + {beyond.percentile(95):.2f} s at p95, {p95:g} s allowed"
    if beyond.worst > always:
        yield f"floor + {beyond.worst:.2f} s, {always:g} s allowed"


def resumes_within(seconds: float, lived: Lived) -> Iterator[str]:
    worst = max(seconds for event in lived.events for seconds in event.resumed)
    if worst > seconds:
        yield f"served again {worst:.2f} s after it was possible, {seconds:g} s allowed"


def leaves_the_former_within(seconds: float, lived: Lived) -> Iterator[str]:
    worst = max(event.former for event in lived.events)
    if worst > seconds:
        yield f"wrote to the former primary for {worst:.1f} s, {seconds:g} s allowed"


def _seen(lived: Lived) -> list[Report]:
    return [seen for event in lived.events for seen in event.through]


# Acts.


def switchover(arena: Arena) -> None:
    arena.cluster.switchover()


def switchover_without_sidecar(arena: Arena) -> None:
    """All sidecars are killed around it, and come back when it is long over."""
    sidecars = [front.sidecar for front in arena.fronts if front.sidecar]
    for sidecar in sidecars:
        sidecar.stop(signal.SIGKILL)
    try:
        arena.pause(arena.random.uniform(0, 1))
        arena.cluster.switchover()
        arena.pause(10)
    finally:
        for sidecar in sidecars:
            sidecar.start()


def postmaster_killed(arena: Arena) -> None:
    arena.cluster.kill_postmaster(arena.cluster.leader())


def leader_lost(arena: Arena) -> float:
    leader = arena.cluster.leader()
    lost = time.monotonic()
    arena.cluster.lose(leader)
    arena.wait_for_leader(other_than=leader)
    return arena.floor_resumed(lost)


def cut_from_all(seconds: float, how: How, arena: Arena) -> float:
    return _cut(list(arena.cluster.nodes), seconds, how, arena)


def cut_from_primary(seconds: float, how: How, arena: Arena) -> float:
    return _cut([arena.cluster.leader()], seconds, how, arena)


def cut_from_standby(seconds: float, how: How, arena: Arena) -> float:
    return _cut([arena.random.choice(arena.cluster.standbys())], seconds, how, arena)


def _cut(nodes: Sequence[str], seconds: float, how: How, arena: Arena) -> float:
    arena.cluster.cut(nodes, how)
    arena.pause(seconds)
    arena.cluster.mend()
    return time.monotonic()


def standby_black_holed(detection: float, arena: Arena) -> float:
    mark = time.monotonic() + detection
    arena.cluster.cut([arena.random.choice(arena.cluster.standbys())], "drop")
    arena.pause(BLACK_HOLE)
    end = time.monotonic()
    for prober in arena.through:
        logins = [ack for ack in prober.records if isinstance(ack, Ack) and kind_of(ack.worker) == LOGIN]
        waits = [ack.at - max(ack.due, mark) for ack in logins if ack.at >= mark]
        if max(waits, default=end - mark) > detection or logins[-1].at < end - detection:
            arena.miss(f"a login of more than {detection:g} s, {detection:g} s after the cut")
    arena.cluster.mend()
    return time.monotonic()


def check_password_changed(seconds: float, arena: Arena) -> float:
    password = f"the check role's % password number {arena.random.random()}"
    query = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(CHECK_ROLE), sql.Literal(password))
    arena.cluster.nodes[arena.cluster.leader()].sql(query)
    until = time.monotonic() + seconds
    down: set[str] = set()
    while time.monotonic() < until:
        down |= {row.host for front in arena.fronts for row in front.table() if row.status == "down"}
        arena.pause(0.5)
    for front in arena.fronts:
        assert front.sidecar
        verified = front.sidecar.names().count("rotation.verified")
        front.pod.write_user(CHECK_ROLE, password)
        front.sidecar.wait_until_logged("rotation.verified", count=verified + 1)
    if down:
        arena.miss(f"detached: {', '.join(sorted(down))}")
    return time.monotonic()


def standby_restarted(arena: Arena) -> float:
    arena.cluster.restart_postgres(arena.random.choice(arena.cluster.standbys()))
    return time.monotonic()


def backend_terminated(arena: Arena) -> float:
    """One session of one pgpool's clients, directly in PostgreSQL."""
    query = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND "
        "backend_start < now() - interval '1 s' ORDER BY random() LIMIT 1"
    )
    leader = arena.cluster.nodes[arena.cluster.leader()]
    for prober in arena.through:
        assert leader.sql(query, [prober.name]) == [(True,)]
    arena.pause(5)
    if any(row.status == "down" for front in arena.fronts for row in front.table()):
        arena.miss("a node was marked down")
    return time.monotonic()


def etcd_member_down(seconds: float, arena: Arena) -> float:
    number = arena.random.choice(list(arena.cluster.etcd))
    arena.cluster.stop_etcd(number)
    arena.pause(seconds)
    arena.cluster.start_etcd(number)
    return time.monotonic()


def etcd_quorum_lost(seconds: float, arena: Arena) -> None:
    numbers = arena.random.sample(list(arena.cluster.etcd), 2)
    for number in numbers:
        arena.cluster.stop_etcd(number)
    arena.pause(seconds)
    for number in numbers:
        arena.cluster.start_etcd(number)


def etcd_quorum_lost_with_failsafe(seconds: float, arena: Arena) -> float:
    arena.cluster.configure({"failsafe_mode": True})
    arena.pause(4 * arena.cluster.options.loop_wait)  # until all members know, and the leader has told them
    etcd_quorum_lost(seconds, arena)
    arena.pause(2 * arena.cluster.options.loop_wait)
    return time.monotonic()


def patroni_killed(arena: Arena) -> float:
    """Returns when another primary was there; the former one still takes writes."""
    leader = arena.cluster.leader()
    arena.cluster.kill_patroni(leader)
    arena.wait_for_leader(other_than=leader)
    return time.monotonic()


def scenarios(*, short: bool, times: int | None = None, slack: float = 1.0, spare: int = 0) -> list[Scenario]:
    """All of them.

    Args:
        short: each once, and briefly.
        times: so many events of each.
        slack: the times that the goals allow are multiplied with this.
        spare: so many more errors are allowed in each event than by the goals.
    """

    def often(count: int) -> int:
        return times or (1 if short else count)

    def lasting(seconds: float, brief: float) -> float:
        return brief if short else seconds

    hows: tuple[How, How] = ("reject", "drop")
    cuts = [(length, how) for length in (8, *(() if short else (40,))) for how in hows]
    long_sessions = Crew(steady=2, transactions=2, prepared=2, copies=2)
    seconds = lasting(60, 15)
    return [
        Scenario(
            name="switchover",
            words="switchover",
            times=often(100),
            act=switchover,
            goals=[
                partial(client_errors_at_most, 1 + spare),
                partial(beyond_the_floor, 0.3 * slack, 1.0 * slack),
                nothing_lost,
            ],
        ),
        Scenario(
            name="crash",
            words="postmaster killed, restarted in place",
            times=often(10),
            act=postmaster_killed,
            goals=[partial(resumes_within, 0.8 * slack), partial(refused_at_most, spare), never_read_only],
        ),
        Scenario(
            name="leader-lost",
            words="leader node lost",
            times=often(5),
            act=leader_lost,
            goals=[partial(resumes_within, 0.8 * slack), partial(refused_at_most, spare)],
        ),
        *(
            Scenario(
                name=f"cut-all-{length:g}-{how}",
                words=f"cut to all nodes, {length:g} s, {how}",
                times=often(5),
                act=partial(cut_from_all, length, how),
                goals=[partial(resumes_within, 1.5 * slack), nothing_lost],
            )
            for length, how in cuts
        ),
        Scenario(
            name="black-hole",
            words="one standby black-holed",
            times=often(5),
            act=partial(standby_black_holed, min(DETECTION * slack, BLACK_HOLE / 2)),
            goals=[partial(errors_at_most, spare)],
        ),
        Scenario(
            name="check-password",
            words=f"check role's password changed, the Secret {lasting(90, 12):g} s later",
            times=often(2),
            act=partial(check_password_changed, lasting(90, 12)),
            goals=[partial(errors_at_most, spare), nothing_lost],
            needs_sidecar=True,
        ),
        Scenario(
            name="long-sessions",
            words="switchover with transactions, COPY and named prepared statements",
            times=often(10),
            act=switchover,
            goals=[partial(client_errors_at_most, 1 + spare), nothing_lost],
            crew=long_sessions,
        ),
        *(
            Scenario(
                name=f"cut-primary-{length:g}-{how}",
                words=f"cut to the primary only, {length:g} s, {how}",
                times=often(3),
                act=partial(cut_from_primary, length, how),
                goals=[partial(resumes_within, 1.5 * slack), nothing_lost],
            )
            for length, how in cuts
        ),
        Scenario(
            name="standby-restart",
            words="standby restarted",
            times=often(5),
            act=standby_restarted,
            goals=[partial(errors_at_most, spare), nothing_lost],
        ),
        *(
            Scenario(
                name=f"cut-standby-{how}",
                words=f"cut to a standby, 8 s, {how}",
                times=often(3),
                act=partial(cut_from_standby, 8, how),
                goals=[partial(errors_at_most, spare), nothing_lost],
            )
            for how in hows
        ),
        Scenario(
            name="terminate",
            words="backend terminated by an administrator",
            times=often(5),
            act=backend_terminated,
            goals=[partial(errors_at_most, 1 + spare), nothing_lost],
        ),
        Scenario(
            name="etcd-member",
            words=f"one etcd member down, {seconds:g} s",
            times=often(2),
            act=partial(etcd_member_down, seconds),
            goals=[partial(errors_at_most, spare), partial(beyond_the_floor, 0.3 * slack, 0.3 * slack), nothing_lost],
        ),
        Scenario(
            name="etcd-quorum-failsafe",
            words=f"etcd quorum lost, {seconds:g} s, `failsafe_mode` on",
            times=often(2),
            act=partial(etcd_quorum_lost_with_failsafe, seconds),
            goals=[partial(errors_at_most, spare), nothing_lost],
        ),
        Scenario(
            name="etcd-quorum",
            words=f"etcd quorum lost, {lasting(60, 40):g} s, `failsafe_mode` off",
            times=often(2),
            act=partial(etcd_quorum_lost, lasting(60, 40)),
            goals=[partial(resumes_within, 1.5 * slack), nothing_lost],
        ),
        Scenario(
            name="patroni-killed",
            words="Patroni killed, PostgreSQL alive",
            times=often(3),
            act=patroni_killed,
            goals=[partial(leaves_the_former_within, TTL), nothing_lost_after_promotion],
        ),
        Scenario(
            name="sidecar-killed",
            words="switchover while the sidecar is dead",
            times=often(5),
            act=switchover_without_sidecar,
            goals=[
                partial(client_errors_at_most, 1 + spare),
                partial(beyond_the_floor, 2.0 * slack, 2.5 * slack),
                nothing_lost,
            ],
            needs_sidecar=True,
        ),
    ]
