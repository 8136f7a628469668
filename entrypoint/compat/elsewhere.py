"""What a description of a container leaves open, because it is in that container alone."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from entrypoint.catalogue import Catalogue
from entrypoint.compat import bitnami, official
from entrypoint.compat.source import Source
from entrypoint.compat.translate import ROWS
from entrypoint.environment import base_name, is_secret
from entrypoint.errors import Problem
from entrypoint.sources import Reader, SourceError

NOT_HERE = "# not read here"
"""Stands for the content of a file that cannot be read."""
_LISTS = frozenset({"PGPOOL_POSTGRES_CUSTOM_PASSWORDS"})
"""Secrets that must be known to tell how many they are."""


class Elsewhere(Reader):
    """Reads what can be read here; the rest is in the container that is described."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: list[str] = []

    def file(self, path: Path) -> bytes:
        """The content, or what stands for that of a secret or of a file of pgpool's."""
        try:
            return super().file(path)
        except SourceError:
            self.missing.append(str(path))
            return NOT_HERE.encode()


def left_open(source: Source, image: str | None, catalogue: Catalogue) -> Iterator[Problem]:
    """Every setting that is not to be had here."""
    yield from source.problems
    if image is None:
        return
    if image == "official":
        yield from _volume(source)
    for name, path in sorted(source.environment.items()):
        if path.startswith("/") and _is_setting(name, image, source.environment, catalogue):
            try:
                Reader().file(Path(path))
            except SourceError:
                remedy = "run `pgpool-entrypoint migrate` where that file is: in a container with the same mounts"
                yield Problem(name, path, "is not readable here", remedy)


def scripts(source: Source, image: str) -> Iterator[str]:
    """The mounts whose scripts Bitnami's image would run, each with what to do."""
    for mount in source.mounts:
        if image == "bitnami" and _meet(mount, bitnami.INIT_SCRIPTS):
            yield (
                f"scripts mounted at {mount} are not run; set what they change in pgpool.conf as PGPOOL_PARAMS_…, and "
                "do the rest before this container starts"
            )


def _volume(source: Source) -> Iterator[Problem]:
    for mount in source.mounts:
        if _meet(mount, official.volume(source.environment)):
            yield Problem(
                mount,
                "mounted",
                "may have pgpool.conf, pool_hba.conf or a certificate",
                "run `pgpool-entrypoint migrate` in a container with the same mounts, on the list that "
                "`kubectl exec POD -- env` prints",
            )


def _meet(mount: str, place: Path) -> bool:
    """Whether one is at the other, or below."""
    paths = (PurePosixPath(mount), PurePosixPath(place))
    return any(one.is_relative_to(other) for one, other in (paths, paths[::-1]))


def _is_setting(name: str, image: str, env: Mapping[str, str], catalogue: Catalogue) -> bool:
    """Whether the value of a variable is in the file it names, and no secret."""
    base, rows = name.removesuffix("_FILE"), {row.variable: row.secret for row in ROWS[image]}
    if base == name or name in rows:  # as PGPOOL_USER_CONF_FILE, which is itself the path
        return False
    if base in rows:
        return not rows[base] or base in _LISTS
    if image == "official" and official.is_pair(name, env):
        return base.endswith("_USERNAME")
    return base_name(name, catalogue) == base and not is_secret(base, catalogue)
