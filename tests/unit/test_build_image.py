"""What image/build-image hands to a builder; here, one that only notes its arguments."""

import itertools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
CONTEXT = ("Dockerfile", ".dockerignore", "entrypoint", "sidecar", "image", "pyproject.toml", "README.md", "LICENSE")
EPOCH = 1_700_000_000
DIGEST = f"sha256:{'0a' * 32}"
GIT = ("git", "-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "init.defaultBranch=main")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with an origin, and beside it builders that write down what they are told."""
    tree = tmp_path / "tree"
    for name in CONTEXT:
        source = PROJECT / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy(source, tree)
    for arguments in (
        ("init", "--quiet"),
        ("add", "."),
        ("commit", "--quiet", "--message", "all", "--date", f"@{EPOCH} +0000"),
        ("remote", "add", "origin", "https://git.example.org/pgpool"),
    ):
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "GIT_COMMITTER_DATE": f"@{EPOCH} +0000", "HOME": str(tmp_path)}
        subprocess.run([*GIT, *arguments], cwd=tree, env=env, check=True)
    for builder in ("docker", "buildah"):
        file = tmp_path / builder
        file.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/told\n'
            f'for last; do :; done\n(cd "$last" && find . -type f) >{tmp_path}/context\n'
        )
        file.chmod(0o755)
    return tree


def told(tree: Path, builder: str, *arguments: str) -> list[str]:
    """The builder's arguments."""
    command = [str(tree / "image/build-image"), "--tag", "name:tag", "--builder", builder, *arguments]
    env = {"PATH": f"{tree.parent}:/usr/local/bin:/usr/bin:/bin", "HOME": str(tree.parent)}
    subprocess.run(command, env=env, check=True, timeout=30)
    return (tree.parent / "told").read_text().splitlines()


def labels(arguments: list[str]) -> dict[str, str]:
    given = [value for option, value in itertools.pairwise(arguments) if option == "--label"]
    prefix = "org.opencontainers.image."
    assert all(label.startswith(prefix) for label in given)
    return dict(label.removeprefix(prefix).split("=", 1) for label in given)


def test_labels_name_version_revision_source_and_base(tree: Path) -> None:
    revision = subprocess.run([*GIT, "rev-parse", "HEAD"], cwd=tree, capture_output=True, text=True, check=True)
    (version,) = re.findall(r'^__version__ = "(.+)"', (tree / "entrypoint/__init__.py").read_text(), re.MULTILINE)
    assert labels(told(tree, "buildah")) == {
        "version": version,
        "revision": revision.stdout.strip(),
        "source": "https://git.example.org/pgpool",
        "created": "2023-11-14T22:13:20Z",
        "base.name": "docker.io/library/debian:trixie-slim",
    }


@pytest.mark.parametrize("builder", ["docker", "buildah"])
def test_the_base_can_be_given_by_its_digest_and_the_release_by_its_version(tree: Path, builder: str) -> None:
    base = f"docker.io/library/debian@{DIGEST}"
    arguments = told(tree, builder, "--base", base, "--version", "4.6.1", "--no-cache")
    assert {f"BASE_IMAGE={base}", "PGPOOL_VERSION=4.6.1", "--no-cache"} <= set(arguments)
    assert labels(arguments)["base.name"] == base
    assert labels(arguments)["base.digest"] == DIGEST


@pytest.mark.parametrize(
    ("builder", "expected"),
    [
        ("docker", ["type=docker,rewrite-timestamp=true"]),
        ("buildah", ["--timestamp", str(EPOCH), "--format", "docker"]),
    ],
)
def test_everything_is_as_old_as_the_commit(tree: Path, builder: str, expected: list[str]) -> None:
    arguments = told(tree, builder)
    assert set(expected) <= set(arguments)
    assert f"SOURCE_DATE_EPOCH={EPOCH}" in arguments


def test_the_context_is_what_the_dockerfile_copies_and_the_tarball_that_was_brought(tree: Path) -> None:
    (tree / "secret").write_text("not in Git")
    (tree / "entrypoint/__pycache__").mkdir()
    (tree / "entrypoint/__pycache__/left.pyc").write_text("")
    brought = tree.parent / "pgpool.tar.gz"
    brought.write_text("a tarball")
    told(tree, "buildah", "--version", "4.6.8", "--tarball", str(brought))
    context = (tree.parent / "context").read_text().split()
    assert "./image/tarballs/pgpool-4.6.8.tar.gz" in context
    assert {path.split("/")[1] for path in context} == set(CONTEXT)
    assert not [path for path in context if "__pycache__" in path]


@pytest.mark.parametrize("name", ["sbom.py", "smoke-test"])
def test_a_change_of_what_is_run_at_the_end_reaches_a_builder_that_knows_the_rest(tree: Path, name: str) -> None:
    before = told(tree, "buildah")
    with (tree / "image" / name).open("a") as file:
        file.write("\n# changed\n")
    (changed,) = {each for each in told(tree, "buildah") if "=" in each} - set(before)
    assert changed.startswith("MOUNTED=")
    assert f"ARG {changed.partition('=')[0]}\nRUN --mount" in (tree / "Dockerfile").read_text()
