"""Where everything is that a benchmark runs."""

import subprocess
import sys
import venv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distribution
from pathlib import Path

from support.pgpool_process import REPOSITORY

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True)
class Stage:
    """The programs, a directory for what is large, and one in memory, as in a pod."""

    home: Path
    memory: Path
    pgpool_bin: Path
    postgres_bin: Path

    @cached_property
    def wheel(self) -> Path:
        """The `bin` of a virtual environment with the wheel of this checkout, made when it is first needed."""
        return install_wheel(self.home) / "bin"

    @property
    def path(self) -> dict[str, str]:
        return {"PATH": f"{self.pgpool_bin}:{SYSTEM_PATH}"}


def install_wheel(home: Path) -> Path:
    """A virtual environment with the wheel of this checkout, which sees the dependencies of the running one."""
    wheels, environment = home / "wheels", home / "venv"
    run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", wheels], cwd=REPOSITORY)
    venv.create(environment, symlinks=True)
    # A .pth file found by way of another one is not read: the checkout's editable install stays out of sight.
    [packages] = (environment / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{distribution('cryptography').locate_file('')}\n")
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--python",
        environment / "bin/python",
    ]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", "--no-cache-dir", *wheels.glob("*.whl")], cwd=home)
    return environment


def run(command: Sequence[str | Path], *, cwd: Path) -> None:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{result.stdout}{result.stderr}")
