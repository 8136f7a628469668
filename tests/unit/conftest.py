"""A configuration that works, for tests to break in one place."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from entrypoint.catalogue import Catalogue, load_catalogue
from entrypoint.errors import ConfigurationError, Problem
from entrypoint.model import MadeUp
from entrypoint.pipeline import Resolved, resolve
from entrypoint.render import render
from entrypoint.secret import Secret
from entrypoint.tree import Tree

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MADE_UP = "made up 100%"
CHECK_KEY = "made-up key 100%"


@dataclass
class Site:
    """Three nodes, two roles, and the environment that says so."""

    root: Path
    catalogue: Catalogue
    env: dict[str, str] = field(default_factory=dict)
    now: datetime = NOW
    check_key: str | None = CHECK_KEY
    """None: as it is when nothing is to run."""

    @property
    def users(self) -> Path:
        return self.root / "users"

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def user(self, role: str, password: str | bytes) -> Path:
        return self.file(f"users/{role}", password)

    def resolve(self, **more: str) -> Resolved:
        made_up = MadeUp(Secret(MADE_UP), None if self.check_key is None else Secret(self.check_key))
        return resolve({**self.env, **more}, self.catalogue, made_up=made_up, now=self.now)

    def tree(self, **more: str) -> Tree:
        return render(self.resolve(**more).model)

    def conf(self, **more: str) -> dict[str, str]:
        """pgpool.conf as name → encoded value."""
        lines = self.tree(**more).files["pgpool.conf"].decode().splitlines()
        return dict(line.split(" = ", 1) for line in lines if line and not line.startswith("#"))

    def problems(self, **more: str) -> list[Problem]:
        """Every problem of the configuration with these changes; none at all is a failure."""
        with pytest.raises(ConfigurationError) as raised:
            self.resolve(**more)
        return list(raised.value.problems)

    def problem(self, **more: str) -> Problem:
        """The only problem."""
        (problem,) = self.problems(**more)
        return problem


@pytest.fixture(scope="session")
def catalogue() -> Catalogue:
    return load_catalogue("4.6")


@pytest.fixture
def site(tmp_path: Path, catalogue: Catalogue) -> Site:
    site = Site(tmp_path, catalogue)
    site.run_dir.mkdir()
    site.user("sr_check", "check pass 100%\n")
    site.user("n8n", "n8n pass 50 %\n")
    site.env = {
        "PGPOOL_BACKENDS": "postgres-1=10.100.2.5,postgres-2=10.100.2.6,postgres-3=10.100.2.7",
        "PGPOOL_USERS_DIR": str(site.users),
        "PGPOOL_RUN_DIR": str(site.run_dir),
    }
    return site
