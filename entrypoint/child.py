"""What the programs that we start get of the environment: only what makes them run."""

from collections.abc import Mapping

_NAMES = frozenset({"PATH", "LANG"})
_PREFIXES = ("LC_", "LD_")


def minimal_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The variables by which a program is found, loaded and speaks; no setting, and nobody's password."""
    return {name: value for name, value in env.items() if name in _NAMES or name.startswith(_PREFIXES)}
