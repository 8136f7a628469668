"""The sidecar's own settings, from its own environment: all the rest it takes from inputs.json, as boot left it.

They cannot come from there: the sidecar starts, and answers its probes, before pgpool boots.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from entrypoint import settings as table
from entrypoint.catalogue import DEFAULT_VERSION, load_catalogue
from entrypoint.environment import SIDECAR_PREFIX, find_settings, parse_setting
from entrypoint.errors import Problems
from entrypoint.settings import RUN_DIR, Setting
from entrypoint.sources import Reader

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Durations are in seconds."""

    run_dir: Path
    http: tuple[str, int]
    http_origin: str = "default"
    restart: str
    restart_spread: float
    reread: float
    removal_grace: float
    database: str
    nodes: str
    log: str


def load_options(env: Mapping[str, str]) -> Options:
    """Read them. Raises ConfigurationError with every problem."""
    problems = Problems()
    ours = {name: value for name, value in env.items() if name.startswith((SIDECAR_PREFIX, RUN_DIR.name))}
    found = dict(find_settings(ours, load_catalogue(DEFAULT_VERSION), Reader(), problems))

    def value(setting: Setting[T], fallback: T) -> T:
        parsed = parse_setting(setting, found, problems)
        return fallback if parsed is None else parsed

    options = Options(
        run_dir=value(table.RUN_DIR, table.REFUSED),
        http=value(table.SIDECAR_HTTP, ("", 0)),
        http_origin=table.SIDECAR_HTTP.origin(found),
        restart=value(table.SIDECAR_RESTART, ""),
        restart_spread=value(table.SIDECAR_RESTART_SPREAD, 0.0),
        reread=value(table.SIDECAR_REREAD, 0.0),
        removal_grace=value(table.SIDECAR_REMOVAL_GRACE, 0.0),
        database=value(table.SIDECAR_DATABASE, ""),
        nodes=value(table.SIDECAR_NODES, ""),
        log=value(table.SIDECAR_LOG, ""),
    )
    problems.raise_if_any()
    return options
