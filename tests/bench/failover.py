"""`make bench-failover`: what clients of pgpool see of each fault, beside clients that need no pgpool.

Runs in namespaces of its own (tests/isolated.py). The report goes to standard output, progress to standard error; all
of it takes an hour and a half, `--short` a quarter of one. Exits with 1 if a goal was missed.
"""

import argparse
import os
import platform
import shlex
import shutil
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.failover_arena import Arena, Event, opened, patches
from bench.failover_scenarios import LOOP_WAIT, RETRY_TIMEOUT, TTL, Lived, Scenario, live, scenarios
from bench.measure import Times
from bench.report import paragraph, progress
from bench.run import processor
from support import programs
from support.cluster import Cluster
from support.patroni import Options
from support.probe_report import Report


def main() -> int:
    options = arguments()
    patroni = Options(ttl=TTL, loop_wait=LOOP_WAIT, retry_timeout=RETRY_TIMEOUT)
    chosen = [each for each in scenarios(short=options.short, times=options.times) if is_chosen(each, options)]
    missed = 0
    with (
        Cluster(patroni_bin=options.patroni_bin, postgres_bin=options.postgres_bin, options=patroni) as cluster,
        opened(
            cluster,
            options.pgpool_bin,
            pgpools=options.pgpools,
            sidecar=not options.without_sidecar,
            seed=options.seed,
            haproxy=options.haproxy,
        ) as arena,
    ):
        for line in head(options):
            print(line)
        for number, scenario in enumerate(chosen, 1):
            progress(f"{scenario.name} ({number} of {len(chosen)})")
            try:
                lived = live_and_tell(arena, scenario)
            except Exception as error:  # noqa: BLE001  # what the others measure is not to be lost
                traceback.print_exc()
                words = str(error).partition("\n")[0]
                print(f"| {scenario.words} {'| ' * 9}| **not measured: {type(error).__name__}: {words}** |", flush=True)
                missed += 1
                cluster.restore()
            else:
                print(*rows(lived), sep="\n", flush=True)
                missed += bool(lived.misses)
            if options.logs:
                keep(cluster.directory, options.logs)
    return 1 if missed else 0


def keep(directory: Path, logs: Path) -> None:
    """Copy what programs have logged and probers have seen so far."""
    for pattern in ("**/*.log", "**/log-*", "*.journal"):
        for file in directory.glob(pattern):
            copy = logs / file.relative_to(directory)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def is_chosen(scenario: Scenario, options: argparse.Namespace) -> bool:
    if scenario.needs_sidecar and options.without_sidecar:
        return False
    return not options.only or any(fnmatch(scenario.name, pattern) for pattern in options.only)


def live_and_tell(arena: Arena, scenario: Scenario) -> Lived:
    """Live through a scenario, with words for whoever waits."""
    begin = time.monotonic()

    def tell(number: int, event: Event) -> None:
        progress(f"{scenario.name} {number}/{scenario.times}: {'; '.join(told(event))}")

    lived = live(arena, scenario, tell)
    for ack in lived.through.lost[:3]:
        event = max((each for each in lived.events if each.floor.since <= ack.at), key=lambda each: each.floor.since)
        after, late = ack.at - event.floor.since, ack.at - event.moment
        progress(f"lost: {ack}, {after:.2f} s after the event began, {late:.2f} s after clients could be served")
    progress(f"{scenario.name}: {time.monotonic() - begin:.0f} s. {'; '.join(lived.misses) or 'All goals met.'}")
    return lived


def told(event: Event) -> Iterator[str]:
    """For whoever waits."""
    yield f"gap {', '.join(f'{seen.gap:.2f}' for seen in event.through)} s (floor {event.floor.gap:.2f} s)"
    yield f"back after {max(event.resumed):.2f} s"
    for seen in event.through:
        yield f"errors {dict(seen.errors)}, {seen.busy_errors} of sessions, {seen.new_errors} of new connections"
        yield from (f"{count} × {words}" for words, count in Counter(seen.words).most_common(3))
    yield from event.stuck
    yield from event.misses


def rows(lived: Lived) -> Iterator[str]:
    """pgpool's, and one for each that was measured beside it."""
    seen = [report for event in lived.events for report in event.through]
    yield cells(
        lived.scenario.words,
        str(len(lived.events)),
        spread([report.gap for report in seen]),
        spread([event.floor.gap for event in lived.events]),
        spread([seconds for event in lived.events for seconds in event.resumed]),
        *errors(seen, crashes(lived)),
        f"{len(lived.through.lost)} ({len(lived.floor.lost)})",
        f"**MISSED**: {'; '.join(lived.misses)}" if lived.misses else "met",
    )
    for other in lived.events[0].beside:
        beside = [event.beside[other] for event in lived.events]
        seen = [each.seen for each in beside]
        yield cells(
            f"the same through {other}",
            str(len(seen)),
            spread([report.gap for report in seen]),
            "",
            spread([seconds for each in beside for seconds in each.resumed]),
            *errors(seen, []),
            "",
            "",
        )


def errors(seen: Sequence[Report], more: Sequence[str]) -> tuple[str, str, str]:
    """Of sessions, of new connections, and by SQLSTATE."""
    reasons = sum((Counter(report.errors) for report in seen), Counter[str]())
    return (
        f"{sum(report.busy_errors for report in seen)} ({max(report.worst_worker for report in seen)})",
        f"{sum(report.new_errors for report in seen)}",
        ", ".join([*(f"{count} × {reason}" for reason, count in reasons.most_common()), *more]),
    )


def cells(*words: str) -> str:
    return f"| {' | '.join(words)} |"


def crashes(lived: Lived) -> list[str]:
    count = sum(event.crashes for event in lived.events)
    return [f"{count} × pgpool's process crashed"] if count else []


def spread(seconds: Sequence[float]) -> str:
    times = Times(seconds)
    if len(seconds) == 1:
        return f"{times.worst:.2f}"
    return f"{times.median:.2f} / {times.percentile(95):.2f} / {times.worst:.2f}"


def head(options: argparse.Namespace) -> list[str]:
    """When, where and with what, how to do it again, and how to read it."""
    machine = f"{len(os.sched_getaffinity(0))} cores, {processor()}, load {os.getloadavg()[0]:.1f} at the beginning"
    named = {
        "pgpool": programs.version(options.pgpool_bin / "pgpool"),
        "PostgreSQL": programs.version(options.postgres_bin / "postgres"),
        "Patroni": programs.version(options.patroni_bin / "patroni"),
        "Python": platform.python_version(),
    }
    if options.haproxy:
        named["HAProxy"] = programs.version(options.haproxy, "-v")
    words = " ".join(given(options))
    pods = "one pgpool" if options.pgpools == 1 else f"{options.pgpools} pgpools"
    return [
        "# Failover",
        "",
        "<!-- Written by `make bench-failover`; edits here are lost. -->",
        "",
        paragraph(
            f"{pods.capitalize()} {'without a sidecar' if options.without_sidecar else 'with a sidecar each'} before "
            f"three nodes of Patroni (ttl {TTL}, loop_wait {LOOP_WAIT}, retry_timeout {RETRY_TIMEOUT}, asynchronous "
            "replication) and three etcd members, all on one machine. Clients of each: four sessions that write 20 "
            "rows a second, and a login with one row five times a second. The floor are the same clients at the same "
            "time with libpq's own `target_session_attrs=read-write` and no pgpool; the cuts are between pgpool and "
            "the nodes, and do not touch it. Times are seconds: p50 / p95 / max. A gap is the longest time without an "
            "acknowledgment; *back* counts from when clients could be served again (the network is back, or the floor "
            "is) to the next one. "
            "Errors of sessions: of those that had worked before, and in brackets the most that one client had that "
            "keeps its session. Of new ones: all errors of clients that log in anew; the goals count only those that "
            "were refused without having been held for 30 s, unless they were on their way in when the crash came, and "
            "were let in by what still lived of the server. Lost are acknowledged rows that the primary does not have "
            "in the end, in brackets the floor's."
        ),
        "",
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine}",
        f"- {', '.join(f'{name} {number}' for name, number in named.items())}",
        f"- pgpool's own patches (image/patches): {patches(options.pgpool_bin)}",
        f"- `make bench-failover{' ARGS=' if words else ''}{shlex.quote(words) if words else ''}`",
        "",
        "| event | times | gap | floor's gap | back | errors of sessions | of new ones | by SQLSTATE | lost | goal |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]


def given(options: argparse.Namespace) -> Iterator[str]:
    """What of the command line says what is measured."""
    for name in ("short", "without_sidecar"):
        if getattr(options, name):
            yield f"--{name.replace('_', '-')}"
    if options.haproxy:
        yield f"--haproxy {options.haproxy}"
    for name in ("times", "pgpools", "seed"):
        if getattr(options, name) is not None:
            yield f"--{name} {getattr(options, name)}"
    yield from (f"--only {pattern}" for pattern in options.only)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what clients see of faults.")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="a scenario, or a pattern of names; several are possible",
    )
    parser.add_argument("--times", type=int, metavar="N", help="so many events of each (default: as the goals say)")
    parser.add_argument("--short", action="store_true", help="one event of each, and shorter ones")
    parser.add_argument("--without-sidecar", action="store_true", help="pgpool alone")
    parser.add_argument("--pgpools", type=int, default=1, metavar="N", help="so many pgpools at once (default: 1)")
    parser.add_argument(
        "--haproxy", type=Path, metavar="FILE", help="the program: measure it beside pgpool, at the same events"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of when faults begin (default: 1)")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep all logs there")
    parser.add_argument("--list", action="store_true", help="show the names of the scenarios, and end")
    options = programs.parse_with_programs(parser, cluster=True)
    if options.list:
        print(
            "\n".join(
                f"{each.name:24} {each.times:4} × {each.words}"
                for each in scenarios(short=options.short, times=options.times)
            )
        )
        sys.exit()
    return options


if __name__ == "__main__":
    sys.exit(main())
