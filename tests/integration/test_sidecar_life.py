"""The sidecar's process from its start to its end, whatever pgpool and PostgreSQL do meanwhile."""

import ctypes
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import CHECK_FORMER, FORMER, Scene, StartScene
from support import proc
from support.deadline import wait_until
from support.pgpool_process import REPOSITORY, complete_environment
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod, sidecar_command
from support.ports import free_port
from support.postgres import NewServer
from support.sidecar_process import Sidecar

ENDS = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
SOON = 4.0
"""Seconds within which the sidecar ends when it is told to; half of one, when nothing else is going on."""
QUICKLY = {"PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT": "2", "PGPOOL_PARAMS_NUM_INIT_CHILDREN": "6"}


def stop_soon(sidecar: Sidecar, number: signal.Signals) -> None:
    begin = time.monotonic()
    code = sidecar.stop(number)
    took = time.monotonic() - begin
    assert (code, took < SOON) == (0, True), f"{code} after {took:.2f} s\n{sidecar.log}"
    assert sidecar.names()[-1] == "sidecar.ended"
    assert "Traceback" not in sidecar.log


@contextmanager
def black_hole() -> Iterator[int]:
    """The port of a server that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def errors(sidecar: Sidecar) -> list[dict[str, str]]:
    return [event for event in sidecar.events if event["level"] != "info"]


def run_to_end(
    *arguments: str, environment: Mapping[str, str], cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*sidecar_command(), *arguments],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


# --- ends -----------------------------------------------------------------------------------------------------------


@ENDS
def test_it_ends_cleanly_before_any_boot(pod: Pod, number: signal.Signals) -> None:
    with Sidecar(pod) as sidecar:
        sidecar.wait_until_logged("sidecar.started")
        stop_soon(sidecar, number)


@ENDS
def test_it_ends_cleanly_while_all_is_well(scene: Scene, number: signal.Signals) -> None:
    stop_soon(scene.sidecar, number)
    assert scene.sidecar.status()["state"] == "in_sync"


@ENDS
def test_it_ends_cleanly_whichever_of_its_threads_gets_the_signal(scene: Scene, number: signal.Signals) -> None:
    pid = scene.sidecar.pid
    *_, last = sorted(int(task.name) for task in Path(f"/proc/{pid}/task").iterdir())
    assert last != pid
    assert ctypes.CDLL(None).tgkill(pid, last, number) == 0
    assert scene.sidecar.wait_until_exit() == 0
    assert scene.sidecar.names()[-1] == "sidecar.ended"


@ENDS
def test_it_ends_cleanly_while_postgresql_does_not_answer_a_trial(new_pod: NewPod, number: signal.Signals) -> None:
    with black_hole() as port:
        pod = new_pod()
        pod.environment |= {"PGPOOL_BACKENDS": f"node-1=127.0.0.1:{port}", **QUICKLY}
        with pod.pgpool() as pgpool, Sidecar(pod) as sidecar:
            pgpool.wait_until_logged("find_primary_node")
            sidecar.wait_until("applying")
            pod.write_user(APP_ROLE, "a new % password")
            sidecar.wait_until_logged("rotation.detected")
            stop_soon(sidecar, number)
            pgpool.kill_group()  # it waits for the server, too


@ENDS
def test_it_ends_cleanly_while_pcp_hangs(scene: Scene, number: signal.Signals) -> None:
    with proc.frozen(*scene.pgpool.pids):
        scene.rotate("a new % password")
        scene.sidecar.wait_until_logged("rotation.published")
        stop_soon(scene.sidecar, number)


@contextmanager
def unread_pipe() -> Iterator[int]:
    """The writing end of a pipe that is full and stays so."""
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        with suppress(BlockingIOError):
            while True:
                os.write(writer, b"x" * 4096)
        os.set_blocking(writer, True)
        yield writer
    finally:
        os.close(writer)
        os.close(reader)


@ENDS
def test_it_works_and_ends_although_nobody_reads_its_log(scene: Scene, number: signal.Signals) -> None:
    assert scene.sidecar.stop() == 0
    own = {"PGPOOL_RUN_DIR": str(scene.pod.run_dir), "PGPOOL_SIDECAR_HTTP": f"127.0.0.1:{scene.sidecar.port}"}
    with unread_pipe() as full:
        process = subprocess.Popen(
            sidecar_command(), env=complete_environment(own, scene.pod.pgpool_bin), cwd=REPOSITORY, stderr=full
        )
        try:
            scene.alter("a new % password")
            scene.publish("a new % password")
            wait_until(
                lambda: scene.knows("a new % password") and scene.sidecar.status()["state"] == "in_sync",
                timeout=30,
                failure=lambda: str(scene.sidecar.status()),
            )
            assert scene.sidecar.get("/livez")[0] == 200
            process.send_signal(number)
            assert process.wait(SOON) == 0
        finally:
            process.kill()
            process.wait()


# --- pgpool comes and goes ------------------------------------------------------------------------------------------


def test_it_starts_before_pgpool_and_becomes_ready_by_itself(pod: Pod) -> None:
    with Sidecar(pod) as sidecar:
        sidecar.wait_until_logged("sidecar.started")
        sidecar.wait_until("starting")
        assert sidecar.get("/livez")[0] == 200
        assert sidecar.get("/readyz") == (503, "pgpool-entrypoint has not booted here\n")
        for page in ("/pgpool/livez", "/pgpool/readyz"):
            assert sidecar.get(page) == (503, f"pgpool-entrypoint has not booted in {pod.run_dir}\n")
        with pod.pgpool() as pgpool:
            pgpool.wait_until_login(CHECK_ROLE, CHECK_PASSWORD)
            begin = time.monotonic()
            wait_until(lambda: sidecar.get("/readyz")[0] == 200, timeout=10, failure=lambda: sidecar.log)
            assert time.monotonic() - begin < 2
            assert sidecar.get("/readyz") == (200, "in_sync\n")
            assert errors(sidecar) == []


def test_it_outlives_pgpool_and_postgresql(new_server: NewServer, new_pod: NewPod) -> None:
    server = new_server()
    server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
    server.create_role(APP_ROLE, APP_PASSWORD)
    pod = new_pod(server)
    checks = {"PERIOD": "1", "MAX_RETRIES": "1", "RETRY_DELAY": "1"}
    pod.environment |= QUICKLY | {f"PGPOOL_PARAMS_HEALTH_CHECK_{name}": value for name, value in checks.items()}
    with Sidecar(pod, PGPOOL_SIDECAR_REREAD="200ms") as sidecar:
        with pod.pgpool() as pgpool:
            sidecar.wait_until("in_sync")
            server.stop("immediate")
            wait_for(sidecar, "/pgpool/readyz", 503)
            assert sidecar.get("/pgpool/livez")[0] == 200
            assert sidecar.get("/readyz")[0] == 200
            pgpool.kill_group()
        wait_for(sidecar, "/pgpool/livez", 503)
        pod.write_user(APP_ROLE, "a new % password")
        sidecar.wait_until("pending")
        server.start()
        server.alter_password(APP_ROLE, "a new % password")
        with pod.pgpool() as pgpool:
            sidecar.wait_until("in_sync", timeout=90)
            wait_for(sidecar, "/pgpool/readyz", 200)
            assert pgpool.can_log_in(APP_ROLE, "a new % password")
        assert "rotation.failed" not in sidecar.names()


def wait_for(sidecar: Sidecar, page: str, status: int) -> None:
    def there() -> bool:
        sidecar.assert_running()
        begin = time.monotonic()
        seen = sidecar.get(page)[0]
        assert time.monotonic() - begin < 1.5
        return seen == status

    wait_until(there, timeout=60, failure=lambda: f"{page} says {sidecar.get(page)}\n{sidecar.log}")


# --- where it logs in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_database", [False, True])
def test_roles_that_may_not_connect_to_postgres_are_rotated(
    start_scene: StartScene, new_server: NewServer, *, own_database: bool
) -> None:
    server = new_server()
    server.sql("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC")
    server.sql("GRANT CONNECT ON DATABASE postgres TO pg_monitor")
    scene = start_scene(server)
    if own_database:
        server.create_database(scene.role)
    for password in ("a second % password", "a third % password"):
        scene.rotate(password)
        scene.wait_in_sync()
        assert scene.knows(password)
        assert not scene.knows(FORMER)


def test_a_wrong_password_is_known_for_one_while_another_server_is_away(
    start_scene: StartScene, new_server: NewServer
) -> None:
    server = new_server()
    scene = start_scene(
        server,
        PGPOOL_BACKENDS=f"away=127.0.0.1:{free_port()}, here=127.0.0.1:{server.port}",
        PGPOOL_PARAMS_FAILOVER_ON_BACKEND_ERROR="on",
    )
    scene.publish("a % password that PostgreSQL never had")
    tried = scene.sidecar.wait_until_logged("rotation.tried")
    assert (tried["new"], tried["old"]) == ("rejected", "accepted")
    assert "away: no answer" in tried["reason"]


# --- HTTP -----------------------------------------------------------------------------------------------------------


def test_the_pages_of_the_contract_answer_and_follow_pgpools_life(scene: Scene) -> None:
    sidecar, pgpool = scene.sidecar, scene.pgpool
    wait_for(sidecar, "/pgpool/readyz", 200)
    assert sidecar.get("/livez")[0] == sidecar.get("/pgpool/livez")[0] == 200
    assert sidecar.get("/readyz") == (200, "in_sync\n")
    page = json.loads(sidecar.get("/status")[1])
    nodes = page.pop("nodes")
    assert page.pop("exporter") == {"error": None}
    assert page == sidecar.status()
    assert {each["postgresql"]["reach"] for each in nodes["nodes"]} == {"answered"}
    status, paths = sidecar.get("/")
    assert (status, paths.split()) == (
        404,
        ["/livez", "/readyz", "/pgpool/livez", "/pgpool/readyz", "/status", "/metrics"],
    )
    with proc.frozen(*pgpool.pids):
        wait_for(sidecar, "/pgpool/livez", 503)
        assert sidecar.get("/livez")[0] == sidecar.get("/readyz")[0] == 200
        begin = time.monotonic()
        status, text = sidecar.get("/metrics")
        assert (status, time.monotonic() - begin < 6) == (200, True)
        assert "pgpool_reloader_build_info" in text
        begin = time.monotonic()
        assert "pgpool2_up 0.0" in sidecar.get("/metrics")[1]
        assert time.monotonic() - begin < 1
        exporter = json.loads(sidecar.get("/status")[1])["exporter"]
        assert exporter == {"error": "pcp_proc_info: no answer within 3 s"}
    wait_for(sidecar, "/pgpool/livez", 200)
    wait_for(sidecar, "/pgpool/readyz", 200)
    pgpool.kill_group()
    for page in ("/pgpool/livez", "/pgpool/readyz"):
        wait_for(sidecar, page, 503)


def test_a_bad_secret_leaves_the_sidecar_ready(scene: Scene) -> None:
    scene.mount({scene.role: "two %\nlines"})
    reason = scene.sidecar.wait_until("invalid")["reason"]
    assert scene.sidecar.get("/readyz") == (200, f"{reason}\n")
    assert scene.sidecar.get("/livez")[0] == 200
    assert "two %" not in reason
    assert scene.logins(FORMER) == {True}


def test_neither_pages_nor_log_nor_process_tell_a_secret(start_scene: StartScene) -> None:
    scene = start_scene(prepare=Pod.encrypt)
    seen = ""

    def look() -> None:
        nonlocal seen
        pages = [scene.sidecar.get(page)[1] for page in ("/status", "/metrics", "/readyz", "/pgpool/readyz", "/nope")]
        status = (scene.pod.run_dir / "status.json").read_text()
        process = proc.cmdline(scene.sidecar.pid) + proc.environ(scene.sidecar.pid)
        seen += "".join([*pages, status, process.decode(errors="replace"), scene.sidecar.log])

    look()
    scene.rotate("the rotated % password")
    scene.wait_in_sync()
    look()
    scene.publish("a % password that PostgreSQL never had")
    scene.sidecar.wait_until("pending")
    look()
    scene.publish("two %\nlines")
    scene.sidecar.wait_until("invalid")
    look()
    assert "rotation.verified" in seen
    secrets = ["rotated %", "never had", "two %", FORMER, CHECK_FORMER, "a pool % key"]
    secrets.append((scene.pod.run_dir / "pcp_password").read_text())
    assert [secret for secret in secrets if secret in seen] == []


# --- what SQL tells -------------------------------------------------------------------------------------------------


def stats(scene: Scene, name: str) -> float | None:
    node = f'hostname="127.0.0.1",node_id="0",port="{scene.server.port}"'
    return scene.sidecar.metric(f"pgpool2_pool_backend_stats_{name}_cnt_total{{{node}}}")


def wait_for_stats(scene: Scene, condition: Callable[[], object]) -> None:
    wait_until(
        lambda: bool(condition()),
        timeout=15,
        failure=lambda: f"{scene.sidecar.get('/metrics')[1]}\n{scene.sidecar.log}",
    )


@pytest.mark.parametrize("encrypted", [False, True])
def test_statements_are_counted_before_and_after_the_check_roles_rotation(
    start_scene: StartScene, new_server: NewServer, *, encrypted: bool
) -> None:
    scene = start_scene(new_server(), prepare=Pod.encrypt if encrypted else lambda _: None)
    wait_for_stats(scene, lambda: stats(scene, "insert") == 0)
    with scene.pgpool.connect(scene.role, FORMER) as client:
        client.execute("CREATE TEMPORARY TABLE t (n int)")
        for number in range(5):
            client.execute("INSERT INTO t VALUES (%s)", [number])
    wait_for_stats(scene, lambda: stats(scene, "insert") == 5)
    assert stats(scene, "ddl") == 1
    scene.server.alter_password(scene.check, "a new check % password")
    scene.mount({scene.check: "a new check % password"})
    scene.wait_in_sync(timeout=60)
    with scene.pgpool.connect(scene.role, FORMER) as client:
        client.execute("CREATE TEMPORARY TABLE t AS SELECT 1 AS n")
        client.execute("DELETE FROM t")
    wait_for_stats(scene, lambda: stats(scene, "delete") == 1)
    assert scene.sidecar.metric("pgpool2_last_scrape_error") == 0


def test_with_every_child_busy_nobody_logs_in_and_the_rest_is_told(start_scene: StartScene) -> None:
    scene = start_scene(PGPOOL_PARAMS_NUM_INIT_CHILDREN="3", PGPOOL_PARAMS_LOG_CONNECTIONS="on")
    wait_for_stats(scene, lambda: stats(scene, "select") is not None)
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(scene.pgpool.connect(scene.role, FORMER))
        wait_for_stats(scene, lambda: scene.sidecar.metric("pgpool2_frontend_free") == 0)
        begin = time.monotonic()
        assert scene.sidecar.metric("pgpool2_frontend_total") == 3
        assert time.monotonic() - begin < 3
        assert stats(scene, "select") is None
        assert scene.sidecar.metric("pgpool2_last_scrape_error") == 0
    wait_for_stats(scene, lambda: stats(scene, "select") is not None)


# --- its own configuration ------------------------------------------------------------------------------------------


def test_every_problem_of_its_own_configuration_is_told(pod: Pod) -> None:
    own = {
        "PGPOOL_RUN_DIR": str(pod.run_dir),
        "PGPOOL_SIDECAR_HTTP": "nowhere",
        "PGPOOL_SIDECAR_RESTRAT": "auto",
        "PGPOOL_SIDECAR_REREAD": "soon",
    }
    result = run_to_end(environment=complete_environment(own, pod.pgpool_bin))
    assert result.returncode == 78
    for words in (
        "3 problems",
        "PGPOOL_SIDECAR_HTTP (",
        "PGPOOL_SIDECAR_REREAD (",
        "did you mean PGPOOL_SIDECAR_RESTART?",
    ):
        assert words in result.stderr
    assert result.stdout == ""


def test_a_port_that_is_taken_is_told(pod: Pod) -> None:
    with black_hole() as port:
        own = {"PGPOOL_RUN_DIR": str(pod.run_dir), "PGPOOL_SIDECAR_HTTP": f"127.0.0.1:{port}"}
        result = run_to_end(environment=complete_environment(own, pod.pgpool_bin))
    assert result.returncode == 78
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in result.stderr
    assert "PGPOOL_SIDECAR_HTTP (environment)" in result.stderr
    assert "→ free the port, or choose another" in result.stderr


@pytest.mark.parametrize(
    ("address", "what"),
    [
        ("192.0.2.1:9719", "Cannot assign requested address"),
        ("[2001:db8::1]:9719", ""),  # without IPv6, it cannot even be written so
        ("no.such.host.invalid:9719", ""),  # in the resolver's words
    ],
)
def test_an_address_that_this_machine_does_not_have_is_told(pod: Pod, address: str, what: str) -> None:
    file = pod.write("address", address)
    own = {"PGPOOL_RUN_DIR": str(pod.run_dir), "PGPOOL_SIDECAR_HTTP_FILE": str(file)}
    result = run_to_end(environment=complete_environment(own, pod.pgpool_bin))
    assert result.returncode == 78
    assert f"PGPOOL_SIDECAR_HTTP ({file})\n      cannot listen on {address}: {what}" in result.stderr
    assert "→ give an address of this machine, or write :9719 for all that it has" in result.stderr


def test_without_pgpools_programs_it_says_so(pod: Pod, tmp_path: Path) -> None:
    only_pgpool = tmp_path / "bin"
    only_pgpool.mkdir()
    (only_pgpool / "pgpool").symlink_to(pod.pgpool_bin / "pgpool")
    for directory, missing in ((tmp_path, "pgpool"), (only_pgpool, "pcp_reload_config")):
        for arguments in ((), ("--once",)):
            own = {"PGPOOL_RUN_DIR": str(pod.run_dir), "PATH": str(directory)}
            result = run_to_end(*arguments, environment=own)
            assert result.returncode == 127
            assert missing in result.stderr
            assert "\n  → " in result.stderr or "; install it" in result.stderr


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_with_a_libpq_that_tells_passwords_in_clear_text_it_does_not_start(
    pod: Pod, arguments: tuple[str, ...]
) -> None:
    old = "from psycopg import pq; pq.version = lambda: 150018; from sidecar.__main__ import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", old, *arguments],
        env=complete_environment({"PGPOOL_RUN_DIR": str(pod.run_dir)}, pod.pgpool_bin),
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stdout) == (126, "")
    assert "libpq 15 would tell a server the password in clear text" in result.stderr
    assert "→ install psycopg[binary]" in result.stderr


def test_wrong_usage_ends_with_64() -> None:
    for arguments in (("walk",), ("--dry-run",), ("status", "--once"), ("--nope",)):
        result = run_to_end(*arguments, environment=complete_environment({}, None))
        assert (result.returncode, result.stdout) == (64, "")
        assert result.stderr.endswith("see pgpool-sidecar --help\n")


def test_the_help_tells_every_exit_status_verb_and_flag() -> None:
    result = run_to_end("--help", environment=complete_environment({}, None))
    assert result.returncode == 0
    told = result.stdout.partition("exit status:")[2].partition("settings:")[0]
    assert sorted(map(int, re.findall(r"\b\d+\b", told))) == [0, 1, 64, 73, 78, 126, 127, 130]
    for word in ("{run,status}", "--once", "--dry-run", "--version", "SIGTERM", "status.json", "PGPOOL_SIDECAR_HTTP"):
        assert word in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 120


def test_status_prints_what_the_sidecar_wrote_and_ends_with_73_without(pod: Pod) -> None:
    own = complete_environment({"PGPOOL_RUN_DIR": str(pod.run_dir)}, None)
    result = run_to_end("status", environment=own)
    assert (result.returncode, result.stdout) == (73, "")
    assert f"no status: {pod.run_dir}/status.json does not exist\n  → " in result.stderr
    with Sidecar(pod) as sidecar:
        sidecar.wait_until("starting")
        result = run_to_end("status", environment=own)
        assert result.returncode == 0
        assert json.loads(result.stdout) == sidecar.status()


def test_its_log_can_be_json(scene: Scene) -> None:
    with Sidecar(scene.pod, PGPOOL_SIDECAR_LOG="json") as sidecar:
        sidecar.wait_until("in_sync")
        wait_until(lambda: sidecar.log.count("\n") >= 2, timeout=10, failure=lambda: sidecar.log)
        stop = sidecar.stop()
    assert stop == 0
    lines: list[dict[str, Any]] = [json.loads(line) for line in sidecar.log.splitlines()]
    assert lines[0]["event"] == "sidecar.started"
    assert lines[-1]["event"] == "sidecar.ended"
    assert all({"ts", "level", "event"} <= line.keys() for line in lines)


# --- what it needs --------------------------------------------------------------------------------------------------


def test_it_needs_no_more_than_path_run_directory_and_its_port(scene: Scene, tmp_path: Path) -> None:
    """As with a read-only root: it writes nothing outside the run directory, and needs no home and no temporary one."""
    bare = tmp_path / "bare"
    bare.mkdir(mode=0o555)
    path = f"{scene.pod.pgpool_bin}:/usr/bin:/bin"
    least = {"PATH": path, "PGPOOL_RUN_DIR": str(scene.pod.run_dir)}
    assert scene.sidecar.stop() == 0
    result = run_to_end("--once", environment=least, cwd=bare)
    assert result.returncode == 0, result.stderr

    port = free_port()
    surroundings = {"HOME": str(bare), "TMPDIR": str(bare), "PGPOOL_SIDECAR_HTTP": f"127.0.0.1:{port}"}
    before = {each.name: each.stat().st_mtime_ns for each in scene.pod.directory.iterdir() if each != scene.pod.run_dir}
    log = scene.pod.directory / "run" / "log of the test"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            sidecar_command(), env={**least, **surroundings}, cwd=bare, stdout=stream, stderr=stream
        )
        try:
            scene.sidecar.port = port
            scene.alter("the rotated % password")
            scene.publish("the rotated % password")
            wait_until(
                lambda: scene.knows("the rotated % password") and scene.sidecar.status()["state"] == "in_sync",
                timeout=30,
                failure=log.read_text,
            )
            scene.sidecar.get("/metrics")
        finally:
            process.terminate()
            assert process.wait(5) == 0
    assert list(bare.iterdir()) == []
    after = {each.name: each.stat().st_mtime_ns for each in scene.pod.directory.iterdir() if each != scene.pod.run_dir}
    assert {name for name in after.keys() | before.keys() if after.get(name) != before.get(name)} <= {"users", "log-1"}
    assert all(each.lstat().st_uid == os.geteuid() for each in scene.pod.run_dir.iterdir())


def test_its_memory_with_all_passwords_is_never_dumped(pod: Pod) -> None:
    with Sidecar(pod) as sidecar:
        sidecar.wait_until_logged("sidecar.started")
        limits = Path(f"/proc/{sidecar.pid}/limits").read_text()
    assert re.search(r"^Max core file size +0 +0 ", limits, re.MULTILINE), limits


def test_settings_that_only_the_pgpool_container_has_are_warned_of(pod: Pod) -> None:
    pod.environment["PGPOOL_SIDECAR_RESTART"] = "never"
    with pod.pgpool(), Sidecar(pod) as sidecar:
        warning = sidecar.wait_until_logged("settings.unheeded")
        assert (warning["level"], warning["setting"]) == ("warning", "PGPOOL_SIDECAR_RESTART")
        sidecar.wait_until("in_sync")
        assert sidecar.names().count("settings.unheeded") == 1
