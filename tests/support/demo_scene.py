"""Directories, programs and secrets of `make demo`."""

import secrets
import subprocess
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path

from support.ports import free_port
from support.postgres import PostgresServer

APP, CHECK = "n8n", "sr_check"


class DemoError(Exception):
    """Something that was to be proved turned out to be false."""


@dataclass(frozen=True)
class Scene:
    """The directories and programs of one demo, and the secrets in it."""

    home: Path
    run_dir: Path
    pgpool_bin: Path
    postgres_bin: Path
    passwords: dict[str, str] = field(
        default_factory=lambda: {role: secrets.token_urlsafe(18) for role in (APP, CHECK)}
    )
    replaced: list[str] = field(default_factory=list)
    """Former passwords of the application."""
    key: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    @property
    def directory(self) -> Path:
        return self.home

    @property
    def users(self) -> Path:
        return self.home / "secrets/users"

    @property
    def key_file(self) -> Path:
        return self.home / "secrets/key/aes.key"

    @property
    def passfile(self) -> Path:
        return self.home / "pgpass"

    def needles(self) -> dict[str, bytes]:
        """What must not be seen anywhere, as it is and in the usual disguise."""
        values = {f"the password of {role}": password for role, password in self.passwords.items()}
        values |= {f"a former password of {APP}, number {n}": each for n, each in enumerate(self.replaced)}
        values["the AES key"] = self.key
        plain = {name: value.encode() for name, value in values.items()}
        return plain | {f"{name} in base64": b64encode(value) for name, value in plain.items()}

    def psql(self, port: int, query: str, *, passfile: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run psql through pgpool as the application does; its password comes from a file."""
        return subprocess.run(
            [*self.psql_command(port), "-c", query],
            env={"PATH": "/usr/bin:/bin", "PGPASSFILE": str(passfile or self.passfile)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def psql_command(self, port: int) -> list[str]:
        psql = self.postgres_bin / "psql"
        program = str(psql) if psql.exists() else "psql"
        return [program, "-X", "-w", "-v", "ON_ERROR_STOP=1", f"host=127.0.0.1 port={port} user={APP} dbname={APP}"]


def environment(scene: Scene, server: PostgresServer) -> dict[str, str]:
    """The settings a container would be given; ports and addresses only because this is no container."""
    return {
        "PGPOOL_BACKENDS": f"postgres-1=127.0.0.1:{server.port}",
        "PGPOOL_USERS_DIR": str(scene.users),
        "PGPOOLKEYFILE": str(scene.key_file),
        "PGPOOL_RUN_DIR": str(scene.run_dir),
        "PGPOOL_PARAMS_LISTEN_ADDRESSES": "127.0.0.1",
        "PGPOOL_PARAMS_PORT": str(free_port()),
        "PGPOOL_PARAMS_PCP_PORT": str(free_port()),
    }


def found_programs(scene: Scene) -> dict[str, Path]:
    paths = {"pgpool": scene.pgpool_bin / "pgpool", "postgres": scene.postgres_bin / "postgres"}
    for option, path in paths.items():
        if not path.is_file():
            raise DemoError(f"there is no {path}; name its directory with --{option}-bin")
    return paths


def write_passfile(path: Path, password: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f"*:*:*:{APP}:{password}\n")
