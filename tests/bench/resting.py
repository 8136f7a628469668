"""What a sidecar costs that has nothing to do."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from bench.measure import Command, Times, cpu_seconds, resident_mebibytes
from bench.report import ms, paragraph, progress, verdict
from bench.scene import Scene, at_work, pause
from bench.stage import Stage
from support.pod import CHECK_PASSWORD, CHECK_ROLE

GOAL_PERCENT = 1.0
GOAL_MEBIBYTES = {2: 64.0, 1_000: 80.0}
ROTATIONS = 10
SCRAPED_EVERY = 15.0
LIBRARIES = "import cryptography.hazmat.primitives.ciphers, prometheus_client, psycopg, watchfiles"


@dataclass(frozen=True)
class Rest:
    """One sidecar's minute of rest; CPU in percent of one core, memory in MiB."""

    cpu: float
    pgpool_cpu: float
    memory: float
    peak: float
    verified: Times
    """Seconds from the Secret's swap to the last stage, in the rotations before."""


def resting(stage: Stage, seconds: float) -> Iterator[str]:
    """CPU and memory, with few users and with many."""
    yield "\n## A sidecar at rest\n"
    bare = Command([sys.executable, "-c", LIBRARIES], stage.path).peak_mebibytes()
    yield paragraph(
        f"After a boot and {ROTATIONS} rotations of one role (their times are in the table, but for the first): "
        f"{seconds:.0f} s in which nothing changes, and /metrics is read every {SCRAPED_EVERY:.0f} s. CPU is the "
        "share of one core, with all programs that were started; memory is resident, the most that was seen in that "
        "time, and the peak of the sidecar's life. An interpreter that has only imported the sidecar's libraries has "
        f"{bare:.0f} MiB."
    )
    yield (
        "\n| users | swap to verified, p50 | max | CPU | pgpool's CPU meanwhile | memory | of the libraries | peak |"
        "\n|---|---|---|---|---|---|---|---|"
    )
    found = {}
    for users in GOAL_MEBIBYTES:
        progress(f"a sidecar at rest, {users:,} users")
        found[users] = rest = rest_of(stage, users, seconds)
        yield (
            f"| {users:,} | {ms(rest.verified.median)} | {ms(rest.verified.worst)} | {rest.cpu:.2f} % "
            f"| {rest.pgpool_cpu:.2f} % | {rest.memory:.0f} MiB | {rest.memory / bare:.1f} × | {rest.peak:.0f} MiB |"
        )
    yield ""
    yield f"- CPU with 2 users: {verdict(found[2].cpu, GOAL_PERCENT, '%', 2)}"
    for users, rest in found.items():
        yield f"- memory with {users:,} users: {verdict(rest.memory, GOAL_MEBIBYTES[users], 'MiB', 0)}"


def rest_of(stage: Stage, users: int, seconds: float) -> Rest:
    roles = {CHECK_ROLE: CHECK_PASSWORD} | {f"role {number}": f"first % of {number}" for number in range(1, users)}
    rotated = f"role {users // 2}"
    verified = []  # but for the first, right after the sidecar's start, when its watch may not stand yet
    with at_work(stage, f"rest-{users}", roles, roles) as scene:
        for number in range(ROTATIONS):
            roles[rotated] = f"number {number} % of it"
            verified.append(scene.rotate(rotated, roles[rotated], roles)["verified"])
            pause()
        scene.sidecar.wait_until("in_sync")
        return watch(scene, seconds, Times(verified[1:]))


def watch(scene: Scene, seconds: float, verified: Times) -> Rest:
    """Scrape as Prometheus does, and look at the sidecar after each time."""
    pid = scene.sidecar.pid
    memory = []
    begin = time.monotonic()
    before, pgpool_before = cpu_seconds(pid), pgpool_cpu(scene)
    while (left := begin + seconds - time.monotonic()) > 0:
        code, _ = scene.sidecar.get("/metrics")
        if code != 200:
            raise RuntimeError(f"/metrics answers {code}")
        memory.append(resident_mebibytes(pid)[0])
        time.sleep(min(SCRAPED_EVERY, left))
    share = 100 / (time.monotonic() - begin)
    now, peak = resident_mebibytes(pid)
    return Rest(
        cpu=(cpu_seconds(pid) - before) * share,
        pgpool_cpu=(pgpool_cpu(scene) - pgpool_before) * share,
        memory=max(*memory, now),
        peak=peak,
        verified=verified,
    )


def pgpool_cpu(scene: Scene) -> float:
    return sum(cpu_seconds(pid) for pid in scene.pgpool.pids)
