"""What deploy/compose/compose.yaml describes, started: its secrets, mounts and limits.

PostgreSQL is this machine's, and so are addresses and ports.
"""

import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

import psycopg
import pytest
import yaml

from support.compose import describe
from support.containers import Container, Description, Mount, podman, run_to_end
from support.deadline import wait_until
from support.documents import PROJECT
from support.ports import free_port
from support.postgres import SUPERUSER, SUPERUSER_PASSWORD, PostgresServer

START_TIMEOUT = 30.0
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT / "deploy/compose/compose.yaml").read_text())
SERVICES = COMPOSE["services"]


@dataclass
class Example:
    """The directory of the file, and what was started."""

    directory: Path
    postgres: PostgresServer
    pgpool: Container
    sidecar: Container
    port: int
    http_port: int

    @property
    def password(self) -> Path:
        return self.directory / "secrets/users/n8n"

    def login(self) -> bool:
        """As the head of the file says, apart from the port."""
        try:
            with psycopg.connect(
                host="127.0.0.1", port=self.port, dbname="n8n", user="n8n", password=self.password.read_text().strip()
            ) as session:
                return session.execute("SELECT current_database()").fetchone() == ("n8n",)
        except psycopg.OperationalError:
            return False

    def in_sync(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/status", timeout=10) as answer:
                return b'"in_sync"' in answer.read()
        except URLError:
            return False

    def wait(self) -> None:
        wait_until(
            lambda: self.login() and self.in_sync(),
            timeout=START_TIMEOUT,
            failure=lambda: f"{self.pgpool.log}\n{self.sidecar.log}",
        )


@pytest.fixture
def example(image: str, postgres_bin: Path, tmp_path: Path) -> Iterator[Example]:
    directory = shutil.copytree(PROJECT / "deploy/compose", tmp_path / "compose")
    subprocess.run([directory / "make-secrets"], check=True)
    tmp_path.chmod(0o755)
    options = COMPOSE["volumes"]["run"]["driver_opts"]
    with ExitStack() as stack:
        place = stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-"))
        postgres = stack.enter_context(PostgresServer(Path(place), postgres_bin))
        _initialise(postgres, directory, image)
        words = [f"--opt={name}={value}" for name, value in options.items()]
        volume = podman("volume", "create", *words).stdout.strip()
        stack.callback(podman, "volume", "rm", "--force", volume)
        port, http_port = free_port(), free_port()
        here = {
            "pgpool": {
                "PGPOOL_BACKENDS": f"postgres=127.0.0.1:{postgres.port}",
                "PGPOOL_PARAMS_LISTEN_ADDRESSES": "127.0.0.1",
                "PGPOOL_PARAMS_PORT": str(port),
            },
            "sidecar": {"PGPOOL_SIDECAR_HTTP": f"127.0.0.1:{http_port}"},
        }
        pgpool, sidecar = (
            stack.enter_context(
                Container(
                    describe(SERVICES[name], directory=directory, image=image, volumes={"run": volume}, env=here[name])
                )
            )
            for name in ("pgpool", "sidecar")
        )
        yield Example(directory, postgres, pgpool, sidecar, port, http_port)


def _initialise(postgres: PostgresServer, directory: Path, image: str) -> None:
    """Run roles.sql, as PostgreSQL's image does, with the same mounts."""
    mounts = [each.split(":") for each in SERVICES["postgres"]["volumes"] if each.startswith("./")]
    script = next(target for source, target, _ in mounts if source.endswith("roles.sql"))
    command = ["psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={script}", "--dbname=postgres"]
    ended = run_to_end(
        Description(
            image=image,
            command=[*command, "--host=127.0.0.1", f"--port={postgres.port}", f"--username={SUPERUSER}"],
            env={"PGPASSWORD": SUPERUSER_PASSWORD},
            mounts=[Mount(source=directory / source, target=target, read_only=True) for source, target, _ in mounts],
        )
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_it_serves_its_role_and_follows_what_is_written_to_the_secret(example: Example) -> None:
    example.wait()
    example.postgres.alter_password("n8n", "the next % one")
    example.password.write_text("the next % one\n")
    example.wait()


def test_it_runs_as_the_file_says(example: Example) -> None:
    example.wait()
    for container in (example.pgpool, example.sidecar):
        assert container.run("sh", "-c", "echo >/etc/written").returncode != 0
        assert container.run("sh", "-c", "echo >/etc/pgpool/users/n8n").returncode != 0
        assert container.output("stat", "-f", "-c", "%T", "/run/pgpool") == "tmpfs\n"
        assert container.output("stat", "-c", "%a %u", "/run/pgpool") == "700 10001\n"
    assert example.pgpool.output("cat", "/proc/sys/kernel/shm_rmid_forced") == "1\n"
    assert "warning" not in example.pgpool.log
