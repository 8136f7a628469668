"""How often the pod ends up with the newest Secrets, whatever fails on the way."""

import time
from collections.abc import Iterator

from bench.measure import Times
from bench.report import paragraph, progress
from bench.stage import Stage
from support.schedules import PERIOD, run_schedules

FIRST = 1_000
"""Not the seeds of the unit tests."""
SHOWN = 5


def schedules(_: Stage, count: int) -> Iterator[str]:
    """Random faults in fake time, against the real rotation and real files."""
    yield "\n## Random misfortune\n"
    begin = time.monotonic()
    outcomes = []
    for outcome in run_schedules(count, FIRST):
        outcomes.append(outcome)
        if len(outcomes) % 100 == 0:
            progress(f"{len(outcomes)} of {count} schedules")
    seconds = time.monotonic() - begin
    wrong = [outcome for outcome in outcomes if outcome.faults]
    times = Times([outcome.seconds for outcome in outcomes])
    yield paragraph(
        f"{count:,} random schedules (seeds {FIRST:,} to {FIRST + count - 1:,}): rotations by every kind of writer "
        f"within {PERIOD:.0f} s, while the sidecar is killed, pgpool restarts or does not answer, reloads get lost, or "
        "PostgreSQL is away. The rotation and its files are real; time, pgpool and PostgreSQL are not. After the last "
        "event, pgpool must come to serve what the newest Secrets say."
    )
    yield "\n| schedules | converged | kills | fake time to converge, p50 | p99 | max | taken | each |"
    yield "|---|---|---|---|---|---|---|---|"
    kills = sum(outcome.deaths for outcome in outcomes)
    fake = " | ".join(f"{each:.1f} s" for each in (times.median, times.percentile(99), times.worst))
    right = count - len(wrong)
    yield f"| {count:,} | {right:,} | {kills:,} | {fake} | {seconds:.0f} s | {seconds / count * 1000:.0f} ms |"
    yield f"\n- converged: {right:,} of {count:,}; the goal of all is {'MISSED' if wrong else 'met'}"
    for outcome in wrong[:SHOWN]:
        yield f"    - seed {outcome.seed}: {'; '.join(outcome.faults)}"
