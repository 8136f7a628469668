"""The files that the image is built from say the same things."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
WORKFLOW = PROJECT / ".github/workflows/image.yml"


def releases() -> list[str]:
    return re.findall(r"^(\d\S+)\t", (PROJECT / "image/releases.tsv").read_text(), re.MULTILINE)


def test_the_dockerfile_builds_a_known_release() -> None:
    (version,) = re.findall(r"^ARG PGPOOL_VERSION=(\S+)$", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)
    assert version in releases()


def test_every_release_is_published() -> None:
    lists = re.findall(r"pgpool: \[(.*?)\]", WORKFLOW.read_text())
    assert len(lists) == 2
    for versions in lists:
        assert sorted(re.findall(r'"(\S+?)"', versions)) == releases()


def test_every_action_is_pinned_by_its_commit() -> None:
    for workflow in WORKFLOW.parent.glob("*.yml"):
        uses = re.findall(r"uses: (\S+)", workflow.read_text())
        assert uses
        assert [action for action in uses if not re.search(r"@[0-9a-f]{40}$", action)] == []


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What lock_requirements.py looks at, to be changed."""
    (tmp_path / "image").mkdir()
    for name in ("lock_requirements.py", "requirements.txt", "build-requirements.txt"):
        shutil.copy(PROJECT / "image" / name, tmp_path / "image")
    shutil.copy(PROJECT / "pyproject.toml", tmp_path)
    return tmp_path


def check(copy: Path) -> tuple[int, str]:
    answer = subprocess.run(
        [sys.executable, copy / "image/lock_requirements.py", "--check"], capture_output=True, text=True, check=False
    )
    return answer.returncode, answer.stderr


def test_the_pins_of_the_image_fit_what_the_project_requires(copy: Path) -> None:
    assert check(copy) == (0, "")


@pytest.mark.parametrize(
    ("file", "pattern", "becomes", "complaint"),
    [
        ("pyproject.toml", r'"cryptography>=42"', '"cryptography>=999"', "pyproject.toml requires cryptography>=999"),
        ("pyproject.toml", r'"watchfiles>=1.0"', '"another"', "pyproject.toml requires another, pinned is None"),
        ("image/requirements.txt", r"(psycopg==\S+) \\\n( +--hash\S+ ?\\?\n)+", r"\1\n", "has no checksum"),
        ("image/requirements.txt", r"psycopg==\S+", "psycopg>=3.2", "has no exact version"),
    ],
)
def test_a_pin_that_does_not_fit_is_named(copy: Path, file: str, pattern: str, becomes: str, complaint: str) -> None:
    text, count = re.subn(pattern, becomes, (copy / file).read_text())
    assert count == 1
    (copy / file).write_text(text)
    status, said = check(copy)
    assert status == 1
    assert complaint in said
