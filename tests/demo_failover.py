"""`make demo-failover`: a switchover, a crash and a cut of a real cluster, as clients see them with pgpool and without.

To be run by tests/isolated.py. The faults, and how they are lived through, are those of tests/bench/failover.py.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator

from bench.failover_arena import Event, opened, patches
from bench.failover_scenarios import LOOP_WAIT, TTL, Lived, live, scenarios
from support import programs
from support.cluster import Cluster
from support.patroni import Options
from support.probe_report import Report

SHOWN = {
    "switchover": "Switchover: Patroni makes another node the primary, as for maintenance.",
    "crash": "Crash: the primary's postmaster is killed (kill -9), and Patroni starts it again in place.",
    "cut-all-8-reject": "Cut: for 8 s, pgpool reaches no node. The clients without pgpool are not cut off.",
}
"""Scenarios by name, and what happens in them."""


def main() -> int:
    options = programs.parse_with_programs(argparse.ArgumentParser(description=__doc__), cluster=True)
    begin = time.monotonic()
    say("Starting three etcd members, three nodes of Patroni, pgpool with its sidecar …")
    known = {scenario.name: scenario for scenario in scenarios(short=True)}
    stuck = 0
    with (
        Cluster(
            patroni_bin=options.patroni_bin,
            postgres_bin=options.postgres_bin,
            options=Options(ttl=TTL, loop_wait=LOOP_WAIT),
        ) as cluster,
        opened(cluster, options.pgpool_bin, pgpools=1, sidecar=True, seed=1) as arena,
    ):
        say(f"All is well after {time.monotonic() - begin:.0f} s. pgpool's own patches: {patches(options.pgpool_bin)}.")
        say(
            "Now, through pgpool and at the same time straight to the nodes (libpq's target_session_attrs=read-write),"
            "\n"
            "four sessions write 20 rows a second, and somebody logs in to write one row five times a second."
        )
        for number, (name, words) in enumerate(SHOWN.items(), 1):
            say(f"\n{number}. {words}")
            lived = live(arena, known[name])
            stuck += sum(len(event.stuck) for event in lived.events)
            for line in table(lived):
                say(line)
    say(f"\nEverything was ended and removed, after {time.monotonic() - begin:.0f} s in all.")
    return 1 if stuck else 0


def table(lived: Lived) -> Iterator[str]:
    [event] = lived.events
    [seen] = event.through
    lost = [str(len(loss.lost)) for loss in (lived.through, lived.floor)]
    yield ""
    yield line("", "through pgpool", "without")
    yield line("longest time without an answer", *both(event, lambda each: f"{each.gap:.2f} s"))
    yield line("longest login, held or in vain", *both(event, lambda each: f"{each.login_gap:.2f} s"))
    yield line("sessions that ended in an error", *both(event, lambda each: str(each.busy_errors)))
    yield line("new connections that were refused", *both(event, lambda each: str(each.new_errors)))
    yield line("writes sent to a read-only server", *both(event, lambda each: str(each.read_only_errors)))
    yield line("acknowledged rows that were lost", *lost)
    yield from (f"   pgpool {words}, and was started anew" for words in event.stuck)
    if seen.words:
        yield "   What clients of pgpool were told:"
    for words, count in sorted(seen.words.items(), key=lambda each: -each[1]):
        yield f"      {count} × {words[:100]}"


def line(what: str, through: str, without: str) -> str:
    return f"   {what:34} {through:>15} {without:>10}"


def both(event: Event, told: Callable[[Report], str]) -> tuple[str, str]:
    """The same of clients with pgpool, and of those without."""
    return told(event.through[0]), told(event.floor)


def say(words: str) -> None:
    print(words, flush=True)


if __name__ == "__main__":
    sys.exit(main())
