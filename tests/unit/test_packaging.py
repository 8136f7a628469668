"""The wheel: what is in it, and that it works where nothing else is."""

import os
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from entrypoint import __version__, reference

PROJECT = Path(__file__).parents[2]
PACKAGES = ("entrypoint", "sidecar")
SIDECARS_OWN = ("prometheus-client", "psycopg", "watchfiles")


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": str(cwd), "PYTHONDONTWRITEBYTECODE": "1", **env}
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", directory, cwd=PROJECT)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    run(*pip, "--no-deps", "--no-index", "--no-compile", "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_both_packages_whole_and_nothing_else(wheel: Path) -> None:
    names = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(PROJECT))
        for package in PACKAGES
        for path in (PROJECT / package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert names == expected
    assert {"entrypoint/py.typed", "sidecar/py.typed", "entrypoint/catalogues/pgpool-4.6.json"} <= names


def test_the_wheel_is_named_so_that_it_replaces_nobody_elses(wheel: Path) -> None:
    assert wheel.name == f"pgpool_entrypoint-{__version__}-py3-none-any.whl"
    metadata = ZipFile(wheel).read(f"pgpool_entrypoint-{__version__}.dist-info/METADATA").decode()
    assert "\nClassifier: Private :: Do Not Upload\n" in metadata
    requirements = [line.split()[1] for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    names = [name.split(">")[0] for name in requirements]
    assert names == ["cryptography", "prometheus-client", "psycopg[binary]", "pyyaml", "watchfiles"]


def test_booting_loads_nothing_that_only_the_sidecar_needs(tmp_path: Path) -> None:
    modules = [f"entrypoint.{path.stem}" for path in (PROJECT / "entrypoint").glob("*.py") if path.stem != "__init__"]
    assert "entrypoint.boot" in modules
    load = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    loaded = run(sys.executable, "-c", load, *modules, cwd=tmp_path, PYTHONPATH=str(PROJECT)).split()
    assert set(modules) <= set(loaded)
    assert not {name.replace("-", "_") for name in SIDECARS_OWN} & set(loaded)
    found = "import prometheus_client, psycopg, watchfiles"
    assert run(sys.executable, "-c", found, cwd=tmp_path) == ""


def test_both_programs_are_installed(wheel: Path) -> None:
    scripts = ZipFile(wheel).read(f"pgpool_entrypoint-{__version__}.dist-info/entry_points.txt").decode()
    assert scripts.splitlines() == [
        "[console_scripts]",
        "pgpool-entrypoint = entrypoint.__main__:main",
        "pgpool-sidecar = sidecar.__main__:main",
    ]


def test_what_is_installed_runs(installed: Path, tmp_path: Path) -> None:
    where = "import entrypoint, sidecar; print(entrypoint.__file__); print(sidecar.__file__)"
    found = run(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(installed)).splitlines()
    assert found == [str(installed / package / "__init__.py") for package in PACKAGES]
    shown = run(sys.executable, "-m", "entrypoint", "settings", cwd=tmp_path, PYTHONPATH=str(installed))
    assert shown == reference.markdown()
    assert "usage: pgpool-sidecar" in run(
        sys.executable, "-m", "sidecar", "-h", cwd=tmp_path, PYTHONPATH=str(installed)
    )


def test_what_is_installed_renders(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "sr_check").write_text("check pass 100%")
    env = {"PYTHONPATH": str(installed), "PGPOOL_BACKENDS": "a=h", "PGPOOL_USERS_DIR": str(tmp_path), "PATH": "/none"}
    run(sys.executable, "-m", "entrypoint", "render", "--to", "out", cwd=tmp_path, **env)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "pcp.conf",
        "pgpool.conf",
        "pool_hba.conf",
        "pool_passwd",
    ]
