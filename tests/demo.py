"""`make demo`: a real PostgreSQL, a real pgpool booted by the entrypoint, and proof that both keep their secrets.

Everything lives in temporary directories and on free ports of the loopback interface; nothing stays behind, unless
--keep asks for it.
"""

import argparse
import os
import re
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import NoReturn

import psycopg

from support import proc, programs
from support.deadline import wait_until
from support.demo_scene import APP, CHECK, DemoError, Scene, environment, found_programs, write_passfile
from support.load import Load
from support.pgpool_process import Pgpool, run_entrypoint
from support.postgres import PostgresServer
from support.secret_volume import SecretVolume
from support.sidecar_process import Sidecar

MEMORY = Path("/dev/shm")
LOG_LINES = 40
LOGINS_BEFORE = 20
TIMELINE = {
    "rotation.detected": "→ detected",
    "rotation.tried": "→ tried at PostgreSQL",
    "rotation.published": "→ published",
    "rotation.reloaded": "→ reloaded",
    "rotation.proved": "→ proved by 3 logins",
    "rotation.verified": "→ former children gone",
}


class Report:
    """Prints the steps as they happen, and remembers what they proved."""

    def __init__(self) -> None:
        self.proved: list[str] = []
        self.step_title = "the preparations"
        self._number = 0
        self._begin = time.monotonic()

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        self._number += 1
        self.step_title = f"step {self._number}, {title}"
        begin = time.monotonic()
        self.line(f"\n{self._number}. {title}\n")
        yield
        self.line(f"   ({time.monotonic() - begin:.1f} s)")

    def say(self, text: str) -> None:
        self.line(textwrap.fill(text, 100, initial_indent="   ", subsequent_indent="   "))

    def show(self, text: str) -> None:
        """Something that a program printed, or that is to be typed: not to be folded."""
        self.line(textwrap.indent(text.rstrip("\n"), "       "))

    def prove(self, truth: object, claim: str, evidence: str = "") -> None:
        """Note the claim as proved, or end the demo with the evidence against it."""
        if not truth:
            raise DemoError(f"this is not true: {claim}" + (f"\n{evidence}" if evidence else ""))
        self.proved.append(claim)
        self.line(f"   ✓ {claim}")

    def summary(self) -> None:
        self.line(f"\nProved in {time.monotonic() - self._begin:.1f} s:\n")
        for claim in self.proved:
            self.line(f"   ✓ {claim}")

    @staticmethod
    def line(text: str) -> None:
        print(text, flush=True)


def main() -> None:
    options = arguments()
    if os.geteuid() == 0:
        sys.exit("demo: PostgreSQL refuses to run as root; run this as an ordinary user")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    report = Report()
    with ExitStack() as stack:
        scene = Scene(
            new_directory(stack, Path(tempfile.gettempdir())),
            new_directory(stack, memory_or(Path(tempfile.gettempdir()))),
            options.pgpool_bin,
            options.postgres_bin,
        )
        server = PostgresServer(scene.home / "postgres", scene.postgres_bin, settings={"unix_socket_directories": ""})
        pgpool = Pgpool(environment(scene, server), pgpool_bin=scene.pgpool_bin, log_path=scene.home / "pgpool.log")
        try:
            play(scene, server, pgpool, report, stack)
        except KeyboardInterrupt:
            fail(stack, 130, "\nInterrupted. Nothing is left running.")
        except Exception as error:  # noqa: BLE001  # whatever it is, the logs explain it
            report.line(f"\nFAILED in {report.step_title}: {error}")
            for name, log in (("pgpool", pgpool.log), ("PostgreSQL", server.log)):
                if log:
                    report.line(f"\nThe last lines of {name}'s log:\n")
                    report.show("\n".join(log.splitlines()[-LOG_LINES:]))
            fail(stack, 1, "\nNothing is left running.")
        report.summary()
        if options.keep:
            stack.pop_all()
            explain(scene, server, pgpool, report)
        else:
            end(stack)
            report.line("\nEverything was stopped and removed. `make demo KEEP=1` leaves it running to look around.")


def play(scene: Scene, server: PostgresServer, pgpool: Pgpool, report: Report, stack: ExitStack) -> None:
    """All steps, each on what the one before has made."""
    versions = {name: programs.version(path) for name, path in found_programs(scene).items()}
    report.say(
        f"pgpool {versions['pgpool']} in front of PostgreSQL {versions['postgres']}, both on this machine, both "
        "thrown away at the end. Every password below is random and made for this run."
    )
    with report.step("A PostgreSQL server that knows SCRAM only"):
        start_postgres(scene, server, report, stack)
    with report.step("Secrets, laid out as the kubelet mounts them"):
        mount_secrets(scene, report)
    with report.step("The configuration: environment variables, and nothing else"):
        check_settings(scene, pgpool, report)
    with report.step("The container boots: pgpool-entrypoint checks, renders, publishes and becomes pgpool"):
        boot(scene, pgpool, report, stack)
    with report.step(f"The application logs in with psql, as {APP}, through pgpool"):
        log_in(scene, server, pgpool, report)
    with report.step("A wrong password"):
        refuse(scene, pgpool, report)
    with report.step(f"The password of {APP} is rotated while clients are at work"):
        rotate(scene, server, pgpool, report)
    with report.step("Where the secrets are, and where they are not"):
        search_secrets(scene, server, pgpool, report)
    with report.step("A start with three mistakes: misspelt variable, impossible port, no key"):
        misconfigure(scene, server, report)


def start_postgres(scene: Scene, server: PostgresServer, report: Report, stack: ExitStack) -> None:
    stack.enter_context(server)
    server.create_role(APP, scene.passwords[APP])
    server.create_role(CHECK, scene.passwords[CHECK], monitor=True)
    server.create_database(APP, owner=APP)
    report.say(
        f"It listens on 127.0.0.1:{server.port}. It has a role {APP} with a database of its own, as an application "
        f"has, and a role {CHECK} (pg_monitor) for pgpool's own checks."
    )
    [(encryption,)] = server.sql("SHOW password_encryption")
    stored = server.sql(
        "SELECT rolname, left(rolpassword, 18) FROM pg_authid WHERE rolpassword IS NOT NULL ORDER BY rolname"
    )
    methods = server.sql("SELECT type, array_to_string(database, ','), auth_method FROM pg_hba_file_rules")
    report.show("\n".join(f"pg_authid    {role:10} {verifier}…" for role, verifier in stored))
    report.show("\n".join(f"pg_hba.conf  {kind:10} {database:12} {method}" for kind, database, method in methods))
    report.prove(
        encryption == "scram-sha-256" and all(verifier == "SCRAM-SHA-256$4096" for _, verifier in stored),
        "PostgreSQL stores SCRAM verifiers, for every role",
    )
    report.prove(
        methods and {method for *_, method in methods} == {"scram-sha-256"},
        "PostgreSQL's pg_hba.conf lets nobody in without SCRAM",
    )


def mount_secrets(scene: Scene, report: Report) -> None:
    contents = {role: password.encode() for role, password in scene.passwords.items()}
    SecretVolume(scene.users, mode=0o400).write(contents)
    SecretVolume(scene.key_file.parent, mode=0o400).write({scene.key_file.name: scene.key.encode()})
    for path in sorted((scene.home / "secrets").rglob("*")):
        if path.is_symlink():
            report.show(f"{path.relative_to(scene.home)} → {path.readlink()}")
    write_passfile(scene.passfile, scene.passwords[APP])
    report.say(
        "One file per role, holding its password, and a file with the AES key. `..data` is swapped by one rename when "
        "a Secret changes, so that all of a Secret changes at one moment."
    )


def check_settings(scene: Scene, pgpool: Pgpool, report: Report) -> None:
    given = {name: value for name, value in pgpool.environment.items() if name != "PATH"}
    report.show("\n".join(f"{name}={value}" for name, value in given.items()))
    result = run_entrypoint(["check"], pgpool.environment, pgpool_bin=scene.pgpool_bin)
    report.say("`pgpool-entrypoint check` says, before anything is started:")
    report.show(result.stdout + result.stderr)
    report.prove(
        result.returncode == 0 and "pgpool" in result.stdout,
        "the configuration is checked by us, and by pgpool's parser",
    )
    seen = (result.stdout + result.stderr).encode()
    report.prove(not any(needle in seen for needle in scene.needles().values()), "check prints no secret")


def boot(scene: Scene, pgpool: Pgpool, report: Report, stack: ExitStack) -> None:
    begin = time.monotonic()
    stack.enter_context(pgpool)
    pgpool.wait_until_login(APP, scene.passwords[APP], APP)
    took = time.monotonic() - begin
    report.show("\n".join(line for line in pgpool.log.splitlines() if line.startswith("pgpool-entrypoint:")))
    command = proc.cmdline(pgpool.pid).replace(b"\0", b" ").decode()
    report.say(f"Process {pgpool.pid}, which was started as pgpool-entrypoint, now is:")
    report.show(command)
    report.prove(
        " -n " in command and "pgpool" in command,
        f"the entrypoint became pgpool: a login works {took:.1f} s after start",
    )


def log_in(scene: Scene, server: PostgresServer, pgpool: Pgpool, report: Report) -> None:
    who = ask(scene, pgpool, "SELECT current_user, current_database(), inet_server_port() AS postgres_port", report)
    report.prove(
        re.search(rf"\b{APP} +\| {APP} +\| +{server.port}\b", who),
        f"a client logs in through pgpool and is {APP} on the server behind it",
    )
    version = ask(scene, pgpool, "SHOW pool_version", report)
    report.prove(programs.version(scene.pgpool_bin / "pgpool") in version, "the client talks to this pgpool")
    written = ask(
        scene,
        pgpool,
        "CREATE TABLE visit (id int GENERATED ALWAYS AS IDENTITY, note text);\n"
        "INSERT INTO visit (note) VALUES ('written through pgpool');\n"
        "SELECT * FROM visit",
        report,
    )
    found = server.sql("SELECT note FROM visit", dbname=APP)
    report.prove(
        "written through pgpool" in written and found == [("written through pgpool",)],
        "writes arrive: a table created and filled through pgpool is there when PostgreSQL is asked directly",
    )
    scram = set(re.findall(r'connection authenticated: identity="([^"]+)" method=scram-sha-256', server.log))
    report.prove({APP, CHECK} <= scram, f"PostgreSQL logged SCRAM logins of {APP} and {CHECK}, by pgpool")
    if psycopg.pq.version() >= 160000:  # the first libpq that can insist
        insisted = pgpool.can_log_in(APP, scene.passwords[APP], APP, require_auth="scram-sha-256")
        report.prove(insisted, "pgpool asks its client for SCRAM: a client that accepts nothing else is let in")


def refuse(scene: Scene, pgpool: Pgpool, report: Report) -> None:
    passfile = scene.home / "wrong-pgpass"
    write_passfile(passfile, f"not-{scene.passwords[APP]}")
    result = scene.psql(pgpool.port, "SELECT 1", passfile=passfile)
    passfile.unlink()
    report.show(result.stderr)
    report.prove(
        result.returncode == 2 and "authentication failed" in result.stderr,
        "a wrong password is refused",
        result.stdout,
    )


def rotate(scene: Scene, server: PostgresServer, pgpool: Pgpool, report: Report) -> None:
    sidecar = Sidecar(scene)
    with sidecar, Load(pgpool, lambda: (APP, scene.passwords[APP]), APP, sessions=4, logins=2) as load:
        sidecar.wait_until("in_sync")
        wait_until(lambda: load.logins.done > LOGINS_BEFORE, timeout=30, failure=lambda: str(load.logins.errors[-3:]))
        former, rotated = scene.passwords[APP], secrets.token_urlsafe(18)
        report.say(
            f"pgpool-sidecar runs beside pgpool. 4 sessions of {APP} run statements, 2 clients log in again and again. "
            "Now PostgreSQL gets the new password (ALTER ROLE), and at once the Secret:"
        )
        scene.replaced.append(former)
        server.alter_password(APP, rotated)
        scene.passwords[APP] = rotated
        swapped = time.time()
        SecretVolume(scene.users, mode=0o400).write({role: each.encode() for role, each in scene.passwords.items()})
        sidecar.wait_until_logged("rotation.verified", count=2)
        wait_until(
            lambda: load.logins.done > 2 * LOGINS_BEFORE, timeout=30, failure=lambda: str(load.logins.errors[-3:])
        )
    last = {event["event"]: datetime.fromisoformat(event["ts"]).timestamp() for event in sidecar.events}
    report.show(f"{'Secret swapped':22} {0:5} ms")
    for event, words in TIMELINE.items():
        report.show(f"{words:22} {(last[event] - swapped) * 1000:5.0f} ms")
    proved = last["rotation.proved"]
    late = [words for when, words in load.errors if when > proved]
    report.say(
        f"Clients meanwhile: {load.statements.done} statements in sessions, {len(load.statements.errors)} errors; "
        f"{load.logins.done} logins, {len(load.logins.errors)} refused, all of them before the proof. The longest took "
        f"{max(load.statements.longest, load.logins.longest):.1f} s."
    )
    write_passfile(scene.passfile, rotated)
    report.prove(
        not load.statements.errors, "no session was disturbed by the rotation", str(load.statements.errors[:3])
    )
    report.prove(not late, "since the proof, every login with the new password works", str(late[:3]))
    report.prove(pgpool.can_log_in(APP, rotated, APP), "pgpool serves the new password, and was not restarted")
    report.prove(not pgpool.can_log_in(APP, former, APP), "pgpool refuses the former password")


def search_secrets(scene: Scene, server: PostgresServer, pgpool: Pgpool, report: Report) -> None:
    live = scene.run_dir / "current"
    entries = (live / "pool_passwd").read_text().splitlines()
    report.say("pool_passwd, shortened:")
    report.show("\n".join(f"{entry[: entry.index(':') + 12]}…" for entry in entries))
    report.prove(
        [entry.partition(":")[0] for entry in entries] == [APP, CHECK]
        and all(re.fullmatch(r"[^:]+:AES[A-Za-z0-9+/]+=*", entry) for entry in entries),
        "pool_passwd holds AES entries only",
    )
    rendered = [path for path in scene.run_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    modes = {path.stat().st_mode & 0o777 for path in live.iterdir()}
    report.prove(modes == {0o600}, "the rendered files are readable by their owner alone")

    processes = [*pgpool.pids, *proc.members(server.pid)]
    logs = [pgpool.log_path, server.log_path, *scene.home.glob("sidecar-*.log")]
    report.say(
        f"Searched for both passwords and the key, plain and in base64: {len(rendered)} files below the run directory, "
        f"{len(logs)} logs, command line and environment of {len(processes)} processes."
    )
    found = [
        f"{what}: {place}"
        for what, needle in scene.needles().items()
        for place in (
            *proc.scan_files(scene.run_dir, needle),
            *(log for log in logs if needle in log.read_bytes()),
            *proc.find_in_processes(processes, needle),
        )
    ]
    control = {path.name for needle in scene.needles().values() for path in proc.scan_files(scene.home, needle)}
    report.prove(
        control == {APP, CHECK, scene.key_file.name, scene.passfile.name},
        "the same search does find them where they belong: in the Secrets, and in the client's password file",
        f"found in {sorted(control)}",
    )
    report.prove(
        rendered and pgpool.pid in processes and not found,
        "no password and no key in clear text: not in a rendered file, a log, a command line or an environment",
        "\n".join(found),
    )


def misconfigure(scene: Scene, server: PostgresServer, report: Report) -> None:
    with tempfile.TemporaryDirectory(prefix="pgd-", dir=scene.run_dir.parent) as run_dir:
        mistaken = {
            "PGPOOL_BACKNEDS": f"postgres-1=127.0.0.1:{server.port}",
            "PGPOOL_BACKENDS": "postgres-1=127.0.0.1:99999",
            "PGPOOL_USERS_DIR": str(scene.users),
            "PGPOOLKEYFILE": f"{scene.key_file}.lost",
            "PGPOOL_RUN_DIR": run_dir,
        }
        result = run_entrypoint([], mistaken, pgpool_bin=scene.pgpool_bin)
        written = list(Path(run_dir).iterdir())
    report.show(result.stderr)
    report.show(f"exit status {result.returncode}")
    named = all(name in result.stderr for name in ("PGPOOL_BACKNEDS", "'99999'", "PGPOOLKEYFILE"))
    report.prove(
        result.returncode == 78 and named and "3 problems" in result.stderr,
        "a misconfigured start ends with 78 and names all three mistakes at once, with what to do",
    )
    report.prove(not written, "a misconfigured start writes nothing")


def ask(scene: Scene, pgpool: Pgpool, query: str, report: Report) -> str:
    """Have psql run a query, show both, and return its answer."""
    report.show("\n".join(f"{APP}> {line}" for line in query.splitlines()))
    result = scene.psql(pgpool.port, query)
    report.show(result.stdout + result.stderr)
    if result.returncode:
        raise DemoError(f"psql ended with status {result.returncode}")
    return result.stdout


def explain(scene: Scene, server: PostgresServer, pgpool: Pgpool, report: Report) -> None:
    """What --keep leaves, how to use it and how to end it."""
    connect = shlex.join(scene.psql_command(pgpool.port))
    directories = shlex.join([str(scene.home), str(scene.run_dir)])
    report.line("\nIt keeps running. To connect as the application does:\n")
    report.show(f"PGPASSFILE={scene.passfile} {connect}")
    report.line("\nFiles:\n")
    report.show(f"{scene.run_dir}/current/   what the entrypoint rendered")
    report.show(f"{scene.home}/secrets/      the Secrets as mounted")
    report.show(f"{pgpool.log_path}   the log of entrypoint and pgpool")
    report.show(f"{server.log_path}   PostgreSQL's log")
    report.line("\nTo stop pgpool and PostgreSQL, wait for their end and remove everything:\n")
    report.show(f"kill -INT {pgpool.pid} {server.pid}")
    report.show(f"tail --pid={pgpool.pid} -f /dev/null; tail --pid={server.pid} -f /dev/null")
    report.show(f"rm -rf {directories}")


def memory_or(otherwise: Path) -> Path:
    """Where a pod's `medium: Memory` would be; sockets live there, so it is good that the path is short."""
    return MEMORY if MEMORY.is_dir() and os.access(MEMORY, os.W_OK | os.X_OK) else otherwise


def new_directory(stack: ExitStack, parent: Path) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="pgd-", dir=parent))
    stack.callback(shutil.rmtree, directory, ignore_errors=True)
    return directory


def interrupt(number: int, frame: object) -> NoReturn:
    """The same clean end for every signal that asks for one."""
    raise KeyboardInterrupt


def end(stack: ExitStack) -> None:
    """Stop and remove everything, whoever is impatient."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        stack.close()
    except AssertionError as error:  # the servers' own words about what they left
        sys.exit(f"demo: {error}")


def fail(stack: ExitStack, status: int, words: str) -> NoReturn:
    end(stack)
    Report.line(words)
    sys.exit(status)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A SCRAM login through pgpool, from nothing, with proof at each step.")
    parser.add_argument("--keep", action="store_true", help="leave it running, and say how to use and to stop it")
    return programs.parse_with_programs(parser)


if __name__ == "__main__":
    main()
