"""Rotation against real files, with a pgpool and a PostgreSQL at the sidecar's own seams."""

from pathlib import Path

import pytest

from support.settled import BEFORE, settled
from support.simulation import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A pod that has just settled."""
    return settled(World(tmp_path, BEFORE))
