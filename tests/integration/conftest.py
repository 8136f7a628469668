"""Real servers for the integration tests."""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Protocol

import pytest

from entrypoint.render import render
from entrypoint.secret import Secret
from sidecar.desired import read_desired
from sidecar.login import Outcome
from sidecar.through_pgpool import through_pgpool
from support.cluster import Cluster
from support.deadline import wait_until
from support.network import Network
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE, NewPod, Pod
from support.postgres import NewServer, PostgresServer, initialise
from support.secret_volume import SecretVolume
from support.sidecar_process import Sidecar


class Role(NamedTuple):
    """A role that can log in."""

    name: str
    password: str


class CreateRole(Protocol):
    """Creates a role that lives as long as the test; what is not given is made up."""

    def __call__(self, name: str | None = None, password: str | None = None, *, monitor: bool = False) -> Role: ...


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


@pytest.fixture(scope="session")
def shared_cluster(patroni_bin: Path, postgres_bin: Path) -> Iterator[Cluster]:
    """Started once; its addresses are fixed, so that there can be no second one."""
    if not Network.is_ours():
        pytest.skip("needs a network of its own: make integration, or python tests/isolated.py python -m pytest …")
    with Cluster(patroni_bin=patroni_bin, postgres_bin=postgres_bin) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared_cluster: Cluster) -> Cluster:
    """A Patroni cluster of three nodes, healthy whatever the test before has done to it."""
    shared_cluster.restore()
    return shared_cluster


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


Layout = Literal["one Secret", "Secret each", "files"]


class Scene:
    """pgpool and its sidecar at work on mounted Secrets with the check role and one that a test rotates."""

    def __init__(self, pod: Pod, server: PostgresServer, role: Role, check: Role, layout: Layout) -> None:
        """Prepare the pod; nothing is mounted or started yet."""
        self.pod, self.server, self.role, self.check = pod, server, role.name, check.name
        self.secret: dict[str, str | None] = {}
        for file in pod.users.iterdir():
            file.unlink()
        self.volumes: dict[str, SecretVolume] = {}
        if layout == "one Secret":
            self.volumes = {"": SecretVolume(pod.users)}
        elif layout == "Secret each":
            self.volumes = {each.name: SecretVolume(pod.users / f"of-{each.name}") for each in (role, check)}
        pod.environment["PGPOOL_CHECK_USER"] = check.name
        pod.environment.setdefault("PGPOOL_PARAMS_NUM_INIT_CHILDREN", "6")

    def begin(self, stack: ExitStack, **sidecar: str) -> None:
        """Start both, and wait until they are in sync."""
        self.pgpool = stack.enter_context(self.pod.pgpool())
        self.sidecar = stack.enter_context(Sidecar(self.pod, **sidecar))
        self.sidecar.wait_until("in_sync")

    def mount(self, changes: Mapping[str, str | None]) -> None:
        """Change the Secrets, roles with their passwords; None removes a role."""
        self.secret |= changes
        if "" in self.volumes:
            self.volumes[""].write({role: each.encode() for role, each in self.secret.items() if each is not None})
            return
        for role, password in changes.items():
            assert password is not None, "that is for one Secret with all of them"
            if role in self.volumes:
                self.volumes[role].write({"username": role.encode(), "password": password.encode()})
            else:
                self.pod.write_user(role, password)

    def publish(self, password: str) -> None:
        """The role's new password in the Secret."""
        self.mount({self.role: password})

    def alter(self, password: str) -> None:
        """The role's new password in PostgreSQL."""
        self.server.alter_password(self.role, password)

    def rotate(self, password: str) -> None:
        """PostgreSQL first, then the Secret, as an operator should."""
        self.alter(password)
        self.publish(password)

    def wanted(self) -> str:
        """The digest of what a boot at this moment would publish."""
        return render(read_desired(self.pod.run_dir, self.sidecar.environment, datetime.now(UTC)).resolved.model).digest

    def wait_in_sync(self, *, timeout: float = 30.0) -> dict[str, Any]:
        """Wait until pgpool serves the Secret of this moment, and return the sidecar's status.

        What is wanted is asked again and again: a boot may make up a PCP password.
        """

        def there() -> dict[str, Any] | None:
            self.sidecar.assert_running()
            status = self.sidecar.status()
            right = status.get("state") == "in_sync" and status["desired"] == self.wanted()[:12]
            return status if right else None

        return wait_until(
            there,
            timeout=timeout,
            failure=lambda: (
                f"{self.wanted()[:12]} awaited: {self.sidecar.status()}\n{self.sidecar.log}\n"
                f"pgpool's log:\n{self.pgpool.log}"
            ),
        )

    def knows(self, password: str) -> bool:
        """Whether a child of pgpool takes this for the role's password, whatever PostgreSQL says to it."""
        said = through_pgpool(self.pod.run_dir, self.pod.port, self.role, Secret(password))
        return said.outcome is Outcome.ACCEPTED or said.reason == "PostgreSQL refuses the password that pgpool has"

    def refused(self) -> int:
        """How many logins of the role PostgreSQL has refused for their password."""
        return self.server.log.count(f'password authentication failed for user "{self.role}"')

    def alarms(self) -> list[dict[str, str]]:
        """The sidecar's events at level `error`."""
        return [event for event in self.sidecar.events if event["level"] == "error"]

    def logins(self, password: str, count: int = 12) -> set[bool]:
        """Whether fresh logins of the role succeed: each of so many."""
        return {self.pgpool.can_log_in(self.role, password) for _ in range(count)}


class StartScene(Protocol):
    """Starts pgpool and its sidecar, and waits until they are in sync; both end with the test.

    `prepare` may change the pod before; `roles` are further ones of the Secret, by password; `sidecar` and
    `environment` are settings of the sidecar and of pgpool.
    """

    def __call__(
        self,
        server: PostgresServer | None = None,
        *,
        layout: Layout = "one Secret",
        prepare: Callable[[Pod], object] = ...,
        roles: Mapping[str, str] = ...,
        sidecar: Mapping[str, str] = ...,
        **environment: str,
    ) -> Scene: ...


FORMER, CHECK_FORMER = "the former % password", "the former % password of the check role"


@pytest.fixture
def start_scene(new_pod: NewPod, postgres: PostgresServer, create_role: CreateRole) -> Iterator[StartScene]:
    with ExitStack() as stack:

        def start(
            server: PostgresServer | None = None,
            *,
            layout: Layout = "one Secret",
            prepare: Callable[[Pod], object] = lambda _: None,
            roles: Mapping[str, str] = MappingProxyType({}),
            sidecar: Mapping[str, str] = MappingProxyType({}),
            **environment: str,
        ) -> Scene:
            pod = new_pod(server)
            pod.environment |= environment
            prepare(pod)
            if server is None:
                role, check = create_role(password=FORMER), create_role(password=CHECK_FORMER, monitor=True)
            else:
                role, check = Role("an app", FORMER), Role("a check", CHECK_FORMER)
                server.create_role(*role)
                server.create_role(*check, monitor=True)
            scene = Scene(pod, server or postgres, role, check, layout)
            scene.mount({role.name: FORMER, check.name: CHECK_FORMER, **roles})
            scene.begin(stack, **sidecar)
            return scene

        yield start


@pytest.fixture
def scene(start_scene: StartScene) -> Scene:
    return start_scene()
