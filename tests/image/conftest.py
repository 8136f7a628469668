"""The image under test, what is in it, and pods of containers made from it."""

import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

import pytest

from support.container_pod import POD, ContainerPod, NewContainerPod
from support.containers import podman
from support.deployed import POD as DEPLOYED_POD
from support.deployed import SETTINGS as DEPLOYED_SETTINGS
from support.manifest import Specification
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_PASSWORD, CHECK_ROLE
from support.postgres import PostgresServer


@pytest.fixture(scope="session")
def image(pytestconfig: pytest.Config) -> str:
    """The name of the image under test."""
    name: str | None = pytestconfig.getoption("--image")
    if not name:
        pytest.fail("name the image with --image; `make image-test` builds it first", pytrace=False)
    return name


@pytest.fixture(scope="session")
def root(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tarfile.TarFile]:
    """The image's root file system."""
    exported = tmp_path_factory.mktemp("image") / "root.tar"
    container = podman("create", image).stdout.strip()
    podman("export", "--output", exported, container)
    podman("rm", container)
    with tarfile.open(exported) as archive:
        yield archive


@pytest.fixture(scope="session")
def postgres(postgres_bin: Path) -> Iterator[PostgresServer]:
    """A real server on this machine's loopback, which the containers share."""
    with (
        tempfile.TemporaryDirectory(prefix="pg-") as directory,
        PostgresServer(Path(directory), postgres_bin, settings={"max_connections": "300"}) as server,
    ):
        server.create_role(CHECK_ROLE, CHECK_PASSWORD, monitor=True)
        server.create_role(APP_ROLE, APP_PASSWORD)
        yield server


@pytest.fixture
def new_pod(image: str, postgres: PostgresServer) -> Iterator[NewContainerPod]:
    with ExitStack() as stack:

        def make(
            specification: Specification = POD, settings: Mapping[str, str] = MappingProxyType({})
        ) -> ContainerPod:
            return stack.enter_context(ContainerPod(image, postgres.port, specification, settings))

        yield make


@pytest.fixture
def pod(new_pod: NewContainerPod) -> ContainerPod:
    """A pod with both containers started."""
    pod = new_pod()
    pod.start()
    return pod


@pytest.fixture
def deployed(new_pod: NewContainerPod) -> ContainerPod:
    """The pod of deploy/base with its settings, but for addresses: here they are this machine's."""
    pod = new_pod(DEPLOYED_POD, DEPLOYED_SETTINGS)
    pod.start()
    pod.wait_in_sync()
    return pod


@pytest.fixture(params=[(POD, {}), (DEPLOYED_POD, DEPLOYED_SETTINGS)], ids=["pod", "deployed"])
def stopped_pod(request: pytest.FixtureRequest, new_pod: NewContainerPod) -> ContainerPod:
    """The least pod, and the one of deploy/base, before anything is started."""
    return new_pod(*request.param)


@pytest.fixture(params=["pod", "deployed"])
def either_pod(request: pytest.FixtureRequest) -> ContainerPod:
    """The least pod, and the one of deploy/base."""
    pod: ContainerPod = request.getfixturevalue(request.param)
    return pod
