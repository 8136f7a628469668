"""Two builds of the image from the same sources, the second without a cache: `make image-twice`."""

import pytest

from support.containers import inspect


def test_both_builds_give_the_same_layers(pytestconfig: pytest.Config) -> None:
    first, second = (inspect(pytestconfig.getoption(option), "image") for option in ("--image", "--rebuilt-image"))
    assert first["RootFS"]["Layers"] == second["RootFS"]["Layers"]
