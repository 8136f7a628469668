"""`make cluster`: a real Patroni cluster to play with, until Ctrl-C; with --pgpool also pgpool and its sidecar.

To be run by tests/isolated.py.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NoReturn

import psycopg

from support import patroni, programs
from support.cluster import Cluster
from support.network import Network
from support.patroni import Options
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, Pod
from support.sidecar_process import Sidecar


def main() -> None:
    options = arguments()
    if not Network.is_ours():
        sys.exit(f"cluster: this needs a network of its own: run it by {Path(__file__).with_name('isolated.py')}")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    cluster = Cluster(
        patroni_bin=options.patroni_bin,
        postgres_bin=options.postgres_bin,
        options=Options(
            ttl=options.ttl,
            loop_wait=options.loop_wait,
            failsafe_mode=options.failsafe,
            primary_start_timeout=options.primary_start_timeout,
            synchronous_mode=options.synchronous,
            fsync=options.fsync,
        ),
    )
    try:
        with ExitStack() as stack:
            begin = time.monotonic()
            say("Starting three etcd members and three nodes …")
            stack.enter_context(cluster)
            say(f"The cluster is healthy after {time.monotonic() - begin:.1f} s; {cluster.leader()} leads.")
            explain(cluster, options)
            if options.pgpool:
                front(cluster, options.pgpool_bin, stack)
            obey(cluster)
    except KeyboardInterrupt:
        say("\nEverything was ended and removed.")


def front(cluster: Cluster, pgpool_bin: Path, stack: ExitStack) -> None:
    """Start pgpool and its sidecar, as they are in a pod."""
    pod = Pod(cluster.directory, pgpool_bin=pgpool_bin, postgres_port=patroni.PORT)
    pod.write_user(CHECK_ROLE, CHECK_PASSWORD)
    pod.write_user(APP_ROLE, APP_PASSWORD)
    pod.environment |= cluster.environment
    pgpool = stack.enter_context(pod.pgpool())
    pgpool.wait_until_login(APP_ROLE, APP_PASSWORD, APP_ROLE)
    sidecar = stack.enter_context(Sidecar(pod))
    explain_front(pod, pgpool, sidecar)


def obey(cluster: Cluster) -> None:
    """Read verbs from the terminal, until its end; without one, wait for a signal."""
    verbs: dict[str, Callable[..., object]] = {
        "list": lambda: "\n".join(f"{name}: {cluster.member(name)}" for name in cluster.nodes),
        "switchover": cluster.switchover,
        "kill_postmaster": cluster.kill_postmaster,
        "kill_patroni": cluster.kill_patroni,
        "lose": cluster.lose,
        "start": cluster.start,
        "freeze": cluster.freeze,
        "thaw": cluster.thaw,
        "restart_postgres": cluster.restart_postgres,
        "drop": lambda *nodes: cluster.cut(nodes, "drop"),
        "reject": lambda *nodes: cluster.cut(nodes, "reject"),
        "mend": cluster.mend,
        "stop_etcd": lambda number: cluster.stop_etcd(int(number)),
        "start_etcd": lambda number: cluster.start_etcd(int(number)),
        "restore": cluster.restore,
    }
    say("\nCtrl-C ends and removes everything.")
    while not sys.stdin.isatty():
        signal.pause()
    say(f"\nWhat shall happen? {', '.join(verbs)}; for example `lose postgres-1`, `drop postgres-1 postgres-2`.\n")
    with suppress(EOFError):
        while True:
            match input("cluster> ").split():
                case [verb, *words] if verb in verbs:
                    attempt(verbs[verb], words)
                case [verb, *_]:
                    say(f"There is no verb {verb}.")


def attempt(verb: Callable[..., object], words: list[str]) -> None:
    try:
        answer = verb(*words)
    except (AssertionError, KeyError, TypeError, ValueError, OSError, psycopg.Error) as error:
        answer = f"{type(error).__name__}: {error}"
    if answer is not None:
        say(str(answer))


def explain(cluster: Cluster, options: argparse.Namespace) -> None:
    """How to use it, ready to be copied."""
    directory = cluster.directory
    passfile = directory / "pgpass"
    passfile.touch(mode=0o600)
    passwords = {APP_ROLE: APP_PASSWORD, CHECK_ROLE: CHECK_PASSWORD, patroni.SUPERUSER: patroni.SUPERUSER_PASSWORD}
    passfile.write_text("".join(f"*:*:*:{role}:{passfile_word(word)}\n" for role, word in passwords.items()))
    node = cluster.nodes["postgres-1"]
    path = f"{options.patroni_bin}:{options.postgres_bin}:$PATH:/usr/sbin"
    enter = f"nsenter --target {os.environ['ISOLATED_BY']} --net"
    shell = f'env PATH="{path}" PGPASSFILE={passfile} bash'
    say("\nIt has a network of its own. Inside is this shell of root's, or that of the user who runs this:\n")
    show(f"{enter} {shell}")
    show(f"{enter} --user --preserve-credentials {shell}")
    say("\nThere:\n")
    show(f"patronictl -c {node.config} list")
    show(f"patronictl -c {node.config} switchover --force")
    addresses = ",".join(each.address for each in cluster.nodes.values())
    show(f'psql "host={addresses} user={APP_ROLE} dbname={APP_ROLE} target_session_attrs=read-write"')
    show(f'psql "host={node.address} user={patroni.SUPERUSER} dbname=postgres"')
    show(f"curl http://{node.address}:{patroni.REST_PORT}/cluster")
    say("\nFiles:\n")
    show(f"{directory}/postgres-N/      the data")
    show(f"{directory}/postgres-N.yml   Patroni's configuration")
    show(f"{directory}/postgres-N.log   the log of Patroni and PostgreSQL; etcd-N.log etcd's")


def explain_front(pod: Pod, pgpool: Pgpool, sidecar: Sidecar) -> None:
    say("\npgpool and its sidecar, inside as well:\n")
    show(f'psql "host={pgpool.host} port={pgpool.port} user={APP_ROLE} dbname={APP_ROLE}"')
    show(f"curl http://127.0.0.1:{sidecar.port}/status")
    show(f"{pod.run_dir}/current/   what the entrypoint rendered")
    show(f"{pgpool.log_path}   the log of entrypoint and pgpool")
    show(f"{sidecar.log_path}   the sidecar's")


def passfile_word(word: str) -> str:
    r"""As ~/.pgpass wants it: `\` and `:` escaped."""
    return word.replace("\\", "\\\\").replace(":", "\\:")


def say(text: str) -> None:
    print(text, flush=True)


def show(command: str) -> None:
    print(f"    {command}", flush=True)


def interrupt(number: int, frame: object) -> NoReturn:
    """The same clean end for every signal that asks for one."""
    raise KeyboardInterrupt


def arguments() -> argparse.Namespace:
    default = Options()
    parser = argparse.ArgumentParser(description="A Patroni cluster of three nodes, until Ctrl-C.")
    parser.add_argument("--pgpool", action="store_true", help="pgpool and its sidecar in front of it")
    parser.add_argument("--ttl", type=int, default=default.ttl, help="Patroni's, at least 20 (default: %(default)s)")
    parser.add_argument("--loop-wait", type=int, default=default.loop_wait, help="Patroni's (default: %(default)s)")
    parser.add_argument(
        "--primary-start-timeout",
        type=int,
        default=default.primary_start_timeout,
        help="Patroni's: 0 fails over instead of restarting a crashed primary (default: %(default)s)",
    )
    parser.add_argument("--failsafe", action="store_true", help="Patroni's failsafe_mode")
    parser.add_argument("--synchronous", action="store_true", help="Patroni's synchronous_mode")
    parser.add_argument("--fsync", action="store_true", help="let PostgreSQL wait for the disk")
    return programs.parse_with_programs(parser, cluster=True)


if __name__ == "__main__":
    main()
