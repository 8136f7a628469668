"""What image/patches changes in pgpool, on the build under test: a primary, its standby, and only pgpool."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from sidecar.table import TableReader
from support.certificates import Authority
from support.deadline import wait_until
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod
from support.postgres import PostgresServer
from support.two_nodes import Servers, Stage, Start, copy, streams

# 12 and 13 only make pgpool faster: tests/bench.
PROVED = "01 02 03 04 05 06 07 08 09 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29"


@pytest.fixture(scope="module", autouse=True)
def _patched(pgpool_bin: Path) -> None:
    """A pgpool without the patches is one that was asked for."""
    answer = subprocess.run([pgpool_bin / "pgpool", "--version"], capture_output=True, text=True, check=True)
    build_info = pgpool_bin.parent / "BUILD-INFO"
    if build_info.exists() and "patches none" in build_info.read_text().splitlines():
        pytest.skip("built with PGPOOL_PATCHES=none")
    assert f"patches: {PROVED}" in answer.stdout + answer.stderr, "build it with image/build-pgpool"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def both(postgres_bin: Path, postgres_template: Path, authority: Authority) -> Iterator[Servers]:
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")))
        tls = authority.issue().write(directory / "tls")
        settings = {"ssl": "on", "ssl_cert_file": f"{tls}/tls.crt", "ssl_key_file": f"{tls}/tls.key"}
        primary = PostgresServer(directory / "primary", postgres_bin, template=postgres_template, settings=settings)
        stack.enter_context(primary)
        primary.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
        primary.create_role(APP_ROLE, APP_PASSWORD)
        primary.create_database("app", owner=APP_ROLE)
        standby = PostgresServer(directory / "standby", postgres_bin, settings=settings)
        copy(primary, standby)
        stack.enter_context(standby)
        primary.sql("CREATE TABLE written (by int)", dbname="app")
        primary.sql("GRANT ALL ON written TO app", dbname="app")
        yield Servers(standby, primary)


@pytest.fixture
def servers(both: Servers) -> Servers:
    """Both run, whatever the test before has done."""
    for server in both:
        try:
            server.sql("SELECT 1")
        except psycopg.OperationalError:
            server.stop()
            server.start()
    wait_until(lambda: streams(both), timeout=30, failure=lambda: both.standby.log)
    return both


@pytest.fixture
def start(servers: Servers, new_pod: NewPod, authority: Authority) -> Iterator[Start]:
    with ExitStack() as stack:

        def begin(*, tls: bool = False, primary_first: bool = False, **parameters: str) -> Stage:
            pod = new_pod(servers.primary)
            if tls:
                pod.environment["PGPOOL_TLS_DIR"] = str(authority.issue().write(pod.directory / "tls"))
            nodes = zip(("standby", "primary"), servers, strict=True)
            backends = [f"{name}={node.host}:{node.port}" for name, node in nodes]
            pod.environment["PGPOOL_BACKENDS"] = ",".join(reversed(backends) if primary_first else backends)
            parameters = {"num_init_children": "4", **parameters}
            pod.environment |= {f"PGPOOL_PARAMS_{name.upper()}": value for name, value in parameters.items()}
            pgpool = stack.enter_context(pod.pgpool())
            pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
            stage = Stage(pod, pgpool, pod.pcp(), TableReader(pod.pcp_address))
            stack.callback(stage.close)
            return stage

        yield begin
