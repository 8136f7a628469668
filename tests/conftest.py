"""Options and reports that all tests share."""

import os
import platform
from pathlib import Path

import hypothesis
import pytest

from support import programs

# The repository may belong to somebody else, so nothing is kept in it; a failure prints how to repeat it.
hypothesis.settings.register_profile("pgpool-entrypoint", database=None, deadline=None, print_blob=True)
hypothesis.settings.load_profile("pgpool-entrypoint")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pgpool-entrypoint")
    group.addoption(
        "--pgpool-bin",
        type=Path,
        default=programs.find_pgpool(),
        metavar="DIR",
        help="directory of pgpool and the pcp commands (default: where PATH has pgpool)",
    )
    group.addoption(
        "--postgres-bin",
        type=Path,
        default=programs.find_postgres(),
        metavar="DIR",
        help="directory of postgres and initdb (default: newest in /usr/lib/postgresql, else pg_config's)",
    )
    group.addoption(
        "--patroni-bin",
        type=Path,
        default=programs.find_patroni(),
        metavar="DIR",
        help="directory of patroni and patronictl (default: where PATH has patroni)",
    )
    group.addoption("--image", metavar="NAME", help="the container image that tests/image is about, as podman knows it")
    group.addoption("--rebuilt-image", metavar="NAME", help="the same, built once more without a cache")


def pytest_configure(config: pytest.Config) -> None:
    if os.geteuid() == 0:
        pytest.exit("The tests start servers that refuse to run as root: run them as an ordinary user.", 4)


def pytest_report_header(config: pytest.Config) -> str:
    reports = [
        _report(config, "--pgpool-bin", "pgpool"),
        _report(config, "--postgres-bin", "postgres"),
        _report(config, "--patroni-bin", "patroni"),
        f"Python {platform.python_version()}",
    ]
    return ", ".join(reports)


@pytest.fixture(scope="session")
def pgpool_bin(pytestconfig: pytest.Config) -> Path:
    """The directory of the pgpool under test."""
    return _required(pytestconfig, "--pgpool-bin", "pgpool")


@pytest.fixture(scope="session")
def postgres_bin(pytestconfig: pytest.Config) -> Path:
    """The directory of PostgreSQL's server programs."""
    return _required(pytestconfig, "--postgres-bin", "postgres")


@pytest.fixture(scope="session")
def patroni_bin(pytestconfig: pytest.Config) -> Path:
    """The directory of Patroni's programs."""
    return _required(pytestconfig, "--patroni-bin", "patroni")


def _directory(config: pytest.Config, option: str) -> Path | None:
    directory: Path | None = config.getoption(option)
    return directory.absolute() if directory else None


def _report(config: pytest.Config, option: str, program: str) -> str:
    directory = _directory(config, option)
    if not directory or not (directory / program).is_file():
        return f"{program} not found (tests that need it will fail)"
    return f"{program} {programs.version(directory / program)} ({directory})"


def _required(config: pytest.Config, option: str, program: str) -> Path:
    directory = _directory(config, option)
    if not directory:
        pytest.fail(f"{program} was not found on this machine: name its directory with {option}", pytrace=False)
    if not (directory / program).is_file():
        pytest.fail(f"there is no {program} in {directory}, named by {option}", pytrace=False)
    return directory
