"""What a rotation costs: how long until pgpool works with a new password, and what clients notice of it."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import psycopg

from bench.measure import Times
from bench.report import ms, paragraph, progress, verdict
from bench.scene import PATIENCE, STAGES, Scene, at_work, each_alone, pause
from bench.stage import Stage
from support.deadline import wait_until
from support.load import Load
from support.pod import CHECK_PASSWORD, CHECK_ROLE

GOAL_P50, GOAL_P99 = 0.35, 0.8
PROVED = "proved"
WORDS = {
    "detected": "detected, all Secrets read",
    "tried": "tried: one login at PostgreSQL",
    "published": "published",
    "reloaded": "reloaded, as pgpool confirms",
    PROVED: "**proved: 3 logins through pgpool**",
    "retired": "children that knew the former one replaced",
    "verified": "verified: the next rotation may come",
}
SESSIONS, LOGIN_LOOPS = 4, 2
LOGINS_A_ROTATION = 4
QUIET_SECONDS = 20.0


def to_the_proof(stage: Stage, count: int) -> Iterator[str]:
    """One role's new password, with nothing else going on."""
    yield "\n## From a new Secret to the proof\n"
    role, passwords = "app", [f"number {number} % of app" for number in range(count + 1)]
    roles = {CHECK_ROLE: CHECK_PASSWORD, role: passwords[0]}
    rotations: list[dict[str, float]] = []
    direct, through = [], []
    with at_work(stage, "one", roles, roles) as scene:
        first = scene.rotate(role, "the first % of all", {**roles, role: "the first % of all"})[PROVED]
        for number, password in enumerate(passwords[1:], 1):
            rotations.append(scene.rotate(role, password, {**roles, role: password}))
            direct.append(login_seconds(scene.server.connect, role, password))
            through.append(login_seconds(scene.pgpool.connect, role, password))
            pause()
            if number % 10 == 0:
                progress(f"{number} of {count} rotations")
    yield paragraph(
        f"{count} rotations of one role, nothing else going on: ALTER ROLE, at once the Secret, written as the kubelet "
        "does. Times are from the renaming of `..data` to the sidecar's own events, each stage when it was over. Since "
        "the proof, a new login with the new password gets in, but for one that meets a child which was in a session "
        "during the reload; the last stages replace those. Not counted is one before all the others, right after the "
        f"sidecar's start, when its watch may not stand yet: it was proved after {ms(first)}."
    )
    yield "\n| stage | p50 | p90 | p99 | max | alone, p50 | goal |\n|---|---|---|---|---|---|---|"
    alone = [each_alone(rotation) for rotation in rotations]
    for name in STAGES:
        times = Times([rotation[name] for rotation in rotations])
        goal = goals(times) if name == PROVED else ""
        yield f"| {WORDS[name]} | {spread(times)} | {ms(Times([each[name] for each in alone]).median)} | {goal} |"
    yield "| *beside it: a login at PostgreSQL* | " + f"{spread(Times(direct))} | | |"
    yield "| *beside it: a login through pgpool* | " + f"{spread(Times(through))} | | |"
    proved = Times([rotation[PROVED] for rotation in rotations]).median
    yield "\n" + paragraph(
        "After each rotation, one client logged in either way, for scale: the proof is there after "
        f"{proved / Times(through).median:.1f} × a login through pgpool. It contains three of them, one at PostgreSQL, "
        "and at least 75 ms in which the sidecar waits for the writer to finish."
    )


def login_seconds(connect: Callable[[str, str], psycopg.Connection], role: str, password: str) -> float:
    """One client's session with one query, which must succeed."""
    begin = time.perf_counter()
    with closing(connect(role, password)) as connection:
        connection.execute("SELECT 1")
    return time.perf_counter() - begin


def spread(times: Times) -> str:
    return " | ".join(ms(each) for each in (times.median, times.p90, times.percentile(99), times.worst))


def goals(times: Times) -> str:
    measured = {"p50": (times.median, GOAL_P50), "p99": (times.percentile(99), GOAL_P99)}
    return ", ".join(
        f"{name} ≤ {goal:g} s: {'met' if value <= goal else 'MISSED'}" for name, (value, goal) in measured.items()
    )


@dataclass(frozen=True)
class Clients:
    """What a load did in so many seconds."""

    load: Load
    seconds: float

    def rows(self, meanwhile: str) -> Iterator[str]:
        for kind, tally in (("statements in sessions", self.load.statements), ("logins", self.load.logins)):
            operations = tally.done + len(tally.errors)
            yield (
                f"| {kind}, {meanwhile} | {operations:,} | {operations / self.seconds:.0f} | {len(tally.errors)} "
                f"| {ms(tally.longest)} |"
            )


def under_load(stage: Stage, count: int) -> Iterator[str]:
    """Two roles that take turns, while clients work with the one that is in use."""
    yield "\n## Rotations under load\n"
    active, inactive = ("app one", "first % of one"), ("app two", "first % of two")
    roles = {CHECK_ROLE: CHECK_PASSWORD, **dict((active, inactive))}
    in_use = [active]
    took = []
    with at_work(stage, "two", roles, secret_of(active)) as scene:
        with clients(scene, in_use) as load:
            begin = time.monotonic()
            time.sleep(min(QUIET_SECONDS, count))
            quiet = Clients(load, time.monotonic() - begin)
        with clients(scene, in_use) as load:
            wait_for_logins(load, LOGINS_A_ROTATION)  # by then the sessions are in, and no login of theirs is held
            begin = time.monotonic()
            for number in range(1, count + 1):
                active, inactive = (inactive[0], f"number {number} % of {inactive[0]}"), active
                took.append(scene.rotate(*active, secret_of(active)))
                in_use.append(active)
                wait_for_logins(load, LOGINS_A_ROTATION)
                load.wait_for_turnover(PATIENCE)  # the other role's password is next to change
                pause()
                if number % 10 == 0:
                    progress(f"{number} of {count} rotations under load")
            busy = Clients(load, time.monotonic() - begin)
    yield paragraph(
        f"{count} rotations of a Secret whose `username` and `password` alternate between two roles, both of them "
        f"valid in PostgreSQL; clients take the new one once the sidecar has verified it. {SESSIONS} sessions run one "
        f"statement after the other and stay; {LOGIN_LOOPS} loops log in, run one and leave, with a pause of 10 ms. "
        "Once in each rotation, when pgpool replaces its children, statements and logins alike are held for a "
        "moment: the longest ones show it."
    )
    yield "\n| clients | operations | a second | failed | longest |\n|---|---|---|---|---|"
    yield from busy.rows("rotating")
    yield from quiet.rows("nothing rotates")
    verified = Times([each["verified"] for each in took])
    yield ""
    yield f"- from the Secret to verified: {ms(verified.median)} (p50), {ms(verified.worst)} at most"
    yield f"- failed: {verdict(len(load.errors), 0, 'operations', 0)}"
    for words, times in Counter(words for _, words in load.errors).most_common(3):
        yield f"    - {times} ×: {words}"


def secret_of(role: tuple[str, str]) -> Mapping[str, str]:
    return {"username": role[0], "password": role[1]}


def clients(scene: Scene, in_use: list[tuple[str, str]]) -> Load:
    return Load(scene.pgpool, lambda: in_use[-1], "postgres", sessions=SESSIONS, logins=LOGIN_LOOPS)


def wait_for_logins(load: Load, count: int) -> None:
    """Have the clients use what they got; failures count as well, and are in the report."""

    def logins() -> int:
        return load.logins.done + len(load.logins.errors)

    until = logins() + count
    wait_until(lambda: logins() >= until, timeout=PATIENCE, failure=lambda: f"{load.logins}")
