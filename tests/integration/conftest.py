"""Real servers for the integration tests."""

import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import NewServer, PostgresServer, initialise


class Role(NamedTuple):
    """A role that can log in."""

    name: str
    password: str


class CreateRole(Protocol):
    """Creates a role that lives as long as the test; what is not given is made up."""

    def __call__(self, name: str | None = None, password: str | None = None, *, monitor: bool = False) -> Role: ...


class StartPgpool(Protocol):
    """Starts the entrypoint with exactly this environment, and stops it after the test."""

    def __call__(self, environment: Mapping[str, str], *args: str) -> Pgpool: ...


@pytest.fixture(scope="session")
def postgres_template(postgres_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory to copy: initdb takes a second, a copy a fraction of it."""
    data = tmp_path_factory.mktemp("template") / "data"
    initialise(data, postgres_bin)
    return data


@pytest.fixture(scope="session")
def postgres(postgres_bin: Path, postgres_template: Path) -> Iterator[PostgresServer]:
    """The server that most tests share: leave nothing in it, and never stop it."""
    with (
        tempfile.TemporaryDirectory(prefix="pg-") as directory,
        PostgresServer(
            Path(directory),
            postgres_bin,
            template=postgres_template,
            settings={"max_connections": "300"},  # each pgpool's children keep theirs
        ) as server,
    ):
        server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
        server.create_role(APP_ROLE, APP_PASSWORD)
        yield server


@pytest.fixture
def new_server(postgres_bin: Path, postgres_template: Path) -> Iterator[NewServer]:
    """Servers that a test may stop, crash and restart."""
    with ExitStack() as stack:

        def start(settings: Mapping[str, str] | None = None, *, host: str = "127.0.0.1") -> PostgresServer:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pg-")))
            server = PostgresServer(directory, postgres_bin, template=postgres_template, host=host, settings=settings)
            return stack.enter_context(server)

        yield start


@pytest.fixture
def create_role(postgres: PostgresServer) -> Iterator[CreateRole]:
    """Roles of the shared server, dropped after the test."""
    created: list[str] = []

    def create(name: str | None = None, password: str | None = None, *, monitor: bool = False) -> Role:
        role = Role(name or f"role_{secrets.token_hex(4)}", password or secrets.token_urlsafe())
        postgres.create_role(*role, monitor=monitor)
        created.append(role.name)
        return role

    yield create
    for name in created:
        postgres.drop_role(name)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory short enough for the path of a socket in it (tmp_path often is not)."""
    with tempfile.TemporaryDirectory(prefix="t-") as directory:
        yield Path(directory)


@pytest.fixture
def start_pgpool(pgpool_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPgpool]:
    with ExitStack() as stack:

        def start(environment: Mapping[str, str], *args: str) -> Pgpool:
            log_path = tmp_path_factory.mktemp("pgpool") / "log"
            pgpool = Pgpool(environment, pgpool_bin=pgpool_bin, log_path=log_path, args=args)
            return stack.enter_context(pgpool)

        yield start


@pytest.fixture(scope="module")
def new_pod(pgpool_bin: Path, postgres: PostgresServer) -> Iterator[NewPod]:
    with ExitStack() as stack:

        def make(server: PostgresServer | None = None) -> Pod:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pod-")))
            pod = Pod(directory, pgpool_bin=pgpool_bin, postgres_port=(server or postgres).port)
            pod.write_user(CHECK_ROLE, CHECK_PASSWORD)
            pod.write_user(APP_ROLE, APP_PASSWORD)
            return pod

        yield make


@pytest.fixture
def pod(new_pod: NewPod) -> Pod:
    return new_pod()
