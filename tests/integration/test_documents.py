"""What the documents tell people to type does what they say: the recipes as they stand, before real servers."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from entrypoint.errors import ExitCode
from support import kubectl
from support.deadline import wait_until
from support.documents import PROJECT, Command, block, blocks, commands, spans
from support.kustomize import Document, build
from support.pgpool_process import entrypoint_command
from support.pod import NewPod, Pod
from support.postgres import SUPERUSER, SUPERUSER_PASSWORD, NewServer, PostgresServer
from support.secret_volume import SecretVolume
from support.shell import type_in
from support.sidecar_process import Sidecar

RUNBOOK = "docs/operations.md"
FORMER, NEW = "the former % password", "the new % password"
CHECK = "the check role's password"
FETCH = [sys.executable, "-c", "import sys, urllib.request as r; print(r.urlopen(sys.argv[1]).read().decode())"]
ITEMS = {"sr_check_password": "sr_check", "n8n_password": "n8n"}
"""As deploy/base mounts them; tests/deploy/test_documents.py compares the keys of the recipes with it."""


class Desk:
    """Where somebody sits who follows the runbook: a directory with files, a shell, psql and kubectl."""

    def __init__(self, directory: Path, server: PostgresServer, environment: Mapping[str, str]) -> None:
        self.directory = directory
        self._environment = {
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            "PGUSER": SUPERUSER,
            "PGPASSWORD": SUPERUSER_PASSWORD,
            "PGDATABASE": "postgres",
            "LC_ALL": "C.UTF-8",
            "PATH": os.defpath,
            **environment,
        }

    def type(self, script: str, *, answers: str = "", cwd: Path | None = None) -> str:
        """Run a script; `answers` is what psql asks for (it takes them from standard input where no terminal is)."""
        return type_in(script, cwd=cwd or self.directory, environment=self._environment, answers=answers)


class World:
    """The pod of the manifests on this machine, with its application `n8n`."""

    def __init__(self, server: PostgresServer, pod: Pod, sidecar: Sidecar, desk: Desk) -> None:
        self.server, self.pod, self.sidecar, self.desk = server, pod, sidecar, desk


def one_pod() -> list[Document]:
    """The example, with as many pods as run here."""
    example = build(PROJECT / "deploy/example")
    for each in example:
        if each["kind"] == "Deployment":
            each["spec"]["replicas"] = 1
    return example


@pytest.fixture
def world(new_server: NewServer, new_pod: NewPod, tmp_path: Path) -> Iterator[World]:
    server = new_server()
    server.create_role("n8n", FORMER)
    server.create_role("sr_check", CHECK, monitor=True)
    pod = new_pod(server)
    for file in pod.users.iterdir():
        file.unlink()
    SecretVolume(pod.users).write({"sr_check": CHECK.encode(), "n8n": FORMER.encode()})
    key = SecretVolume(pod.directory / "key")
    key.write({"aes.key": b"the first key\n"})
    pod.environment |= {"PGPOOLKEYFILE": str(key.path / "aes.key"), "PGPOOL_PARAMS_NUM_INIT_CHILDREN": "4"}
    with ExitStack() as stack:
        pgpool = stack.enter_context(pod.pgpool())
        sidecar = stack.enter_context(Sidecar(pod, PGPOOL_SIDECAR_RESTART="never"))
        sidecar.wait_until("in_sync")
        programs = str(Path(entrypoint_command()[0]).parent)
        inside = {"sidecar": sidecar.environment, "pgpool": pgpool.environment}
        variables = kubectl.install(
            tmp_path,
            objects=one_pod(),
            environments={
                name: {**environment, "PATH": f"{programs}:{environment['PATH']}", "PYTHONPATH": str(PROJECT)}
                for name, environment in inside.items()
            },
            logs={"sidecar": sidecar.log_path, "pgpool": pgpool.log_path},
            ports={9719: sidecar.port},
            secrets={"pgpool-secrets": (pod.users, ITEMS), "pgpool-key": (key.path, {"aes.key": "aes.key"})},
        )
        yield World(server, pod, sidecar, Desk(tmp_path, server, variables))


def log_in(world: World, role: str, password: str, dbname: str = "postgres") -> psycopg.Connection:
    """Through pgpool."""
    return psycopg.connect(
        host="127.0.0.1", port=world.pod.port, user=role, password=password, dbname=dbname, autocommit=True
    )


def can_log_in(world: World, role: str, password: str) -> bool:
    with ExitStack() as stack:
        try:
            stack.enter_context(log_in(world, role, password))
        except psycopg.OperationalError:
            return False
    return True


def test_three_commands_answer_most_questions(world: World) -> None:
    status, log, check = block(RUNBOOK, "Operations", "sh").splitlines()
    assert json.loads(world.desk.type(status))["state"] == "in_sync"
    assert "event=rotation.verified" in world.desk.type(log)
    assert "PGPOOLKEYFILE" in world.desk.type(check)


def test_the_page_that_is_forwarded_says_what_the_exporter_could_not_ask(world: World) -> None:
    (words,) = {each.words for each in spans("kubectl") if "port-forward" in each.words}
    url = "http://localhost:9719/status"
    assert f"`{shlex.join(words)}`, then {url}" in (PROJECT / RUNBOOK).read_text()
    wait = "until [ -s forwarding ]; do sleep 0.1; done"
    script = f"{shlex.join(words)} >forwarding & trap 'kill $!' EXIT; {wait}; {shlex.join(FETCH)} {url}"
    assert json.loads(world.desk.type(script))["exporter"] == {"error": None}


def test_the_last_words_of_a_container_list_every_problem(new_pod: NewPod, tmp_path: Path) -> None:
    pod = new_pod()
    ended = pod.run(PGPOOL_BACKNEDS="a=b", PGPOOLKEYFILE="/nowhere")
    assert ended.returncode == ExitCode.CONFIGURATION
    (tmp_path / "log").write_text(ended.stderr)
    variables = kubectl.install(tmp_path, objects=one_pod(), logs={"pgpool": tmp_path / "log"})
    (words,) = {each.words for each in spans("kubectl") if "pgpool" in each.words and "--previous" in each.words}
    told = type_in(shlex.join(words), cwd=tmp_path, environment=variables)
    assert "PGPOOL_BACKNEDS" in told
    assert "PGPOOLKEYFILE" in told


def test_psql_finds_the_socket_with_its_port(world: World) -> None:
    """As it stands; only directory and port are the test's."""
    (words,) = {each.words for each in spans("psql") if "--host" in each.words}
    assert words[1:] == ("--host", "/run/pgpool", "--port", "9999")
    here = ["psql", "--host", str(world.pod.run_dir), "--port", str(world.pod.port)]
    script = f"PGUSER=n8n PGPASSWORD={shlex.quote(FORMER)} {shlex.join(here)} <<<'SELECT current_user'"
    assert "n8n" in world.desk.type(script)


def test_the_recipe_for_one_role(world: World) -> None:
    (world.desk.directory / "sr_check_password").write_text(CHECK)
    (world.desk.directory / "n8n_password").write_text(NEW)
    publish, alter, hasten = (block(RUNBOOK, "One role", "sh", number) for number in range(3))
    world.desk.type(publish)
    world.sidecar.wait_until("pending")
    assert can_log_in(world, "n8n", FORMER)
    world.desk.type(alter, answers=f"{NEW}\n{NEW}\n")
    told = [json.loads(line) for line in world.desk.type(hasten).splitlines()]
    assert [each["state"] for each in told] == ["in_sync"]
    assert can_log_in(world, "n8n", NEW)


def test_the_recipe_for_two_roles_ends_no_session_and_refuses_no_login(world: World) -> None:
    once, in_use = (block(RUNBOOK, "Two roles", "sql", number) for number in range(2))
    world.desk.type(f"psql -v ON_ERROR_STOP=1 <<'END'\n{once}\nEND")
    world.server.alter_password("n8n_a", FORMER)
    mount = {"sr_check": CHECK, "n8n": FORMER, "n8n_a": FORMER, "n8n_b": "of no use"}
    volume = SecretVolume(world.pod.users)
    volume.write({name: password.encode() for name, password in mount.items()})
    wait_until(lambda: can_log_in(world, "n8n_a", FORMER), timeout=30, failure=lambda: world.sidecar.log)
    with log_in(world, "n8n_a", FORMER) as session:
        assert session.execute("SELECT current_user").fetchone() == ("n8n",)
        world.desk.type(block(RUNBOOK, "Two roles", "sh"), answers=f"{NEW}\n{NEW}\n")
        volume.write({name: password.encode() for name, password in {**mount, "n8n_b": NEW}.items()})
        wait_until(lambda: can_log_in(world, "n8n_b", NEW), timeout=30, failure=lambda: world.sidecar.log)
        assert session.execute("SELECT 1").fetchone() == (1,)
        assert can_log_in(world, "n8n_a", FORMER)
    assert "(1 row)" in world.desk.type(f"psql <<'END'\n{in_use}\nEND")


def test_two_roles_are_one_owner_on_lent_connections_too(world: World) -> None:
    """Before pgpool lends a connection again it sends DISCARD ALL, which must not forget the role set at login."""
    world.desk.type(f"psql -v ON_ERROR_STOP=1 <<'END'\n{block(RUNBOOK, 'Two roles', 'sql')}\nEND")
    world.server.alter_password("n8n_a", FORMER)
    world.server.create_database("n8n")  # pgpool keeps no connection to `postgres` (protocol/child.c)
    SecretVolume(world.pod.users).write({"sr_check": CHECK.encode(), "n8n_a": FORMER.encode()})
    wait_until(lambda: can_log_in(world, "n8n_a", FORMER), timeout=30, failure=lambda: world.sidecar.log)
    found = []
    for _ in range(16):
        with log_in(world, "n8n_a", FORMER, "n8n") as session:
            found += session.execute("SELECT current_user, pg_backend_pid()").fetchall()
    assert len(set(found)) < len(found), "none was lent again"
    assert {owner for owner, _ in found} == {"n8n"}


def test_a_key_replaced_as_the_runbook_says_waits_for_a_restart(world: World) -> None:
    world.desk.type(block(RUNBOOK, "Replace certificate and key", "sh", 2))

    def required() -> list[str] | None:
        restart = world.sidecar.status().get("restart")
        return restart and list(restart["required_by"])

    assert wait_until(required, timeout=30, failure=lambda: world.sidecar.log) == ["PGPOOLKEYFILE"]
    assert can_log_in(world, "n8n", FORMER)


@pytest.fixture
def database(new_server: NewServer) -> PostgresServer:
    server = new_server()
    for role in ("n8n", "n8n_b", "sr_check"):
        server.create_role(role, FORMER)
    return server


def test_every_sql_statement_is_taken_by_postgresql(database: PostgresServer, tmp_path: Path) -> None:
    desk = Desk(tmp_path, database, {})
    sql = [each for each in blocks() if each.language == "sql"]
    assert len(sql) >= 4
    database.drop_role("n8n_b")
    for each in sql:
        told = desk.type(f"psql -v ON_ERROR_STOP=1 <<'END'\n{each.text}\nEND")
        assert told.strip(), each.place


PSQL = [each for each in commands() if each.program == "psql"]


@pytest.mark.parametrize("command", PSQL, ids=lambda each: each.place)
def test_every_psql_command_does_what_is_said(database: PostgresServer, tmp_path: Path, command: Command) -> None:
    """With what psql asks for typed: a password, twice."""
    option, argument = command.words[1:]
    Desk(tmp_path, database, {}).type(shlex.join(command.words), answers=f"{NEW}\n{NEW}\n", cwd=PROJECT)
    role = argument.split()[-1] if option == "--command" else "sr_check"
    with database.connect(role, NEW if option == "--command" else FORMER) as session:
        assert session.execute("SELECT current_user").fetchone() == (role,)


def test_every_verb_of_patronictl_is_one(patroni_bin: Path) -> None:
    verbs = {each.words[1] for each in spans("patronictl")}
    assert verbs
    for verb in verbs:
        subprocess.run([patroni_bin / "patronictl", verb, "--help"], check=True, capture_output=True)
