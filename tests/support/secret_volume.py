"""A mounted Kubernetes Secret, laid out and updated as the kubelet does it.

Follows `pkg/volume/util/atomic_writer.go`: the files live in a time-stamped directory, `..data` points to it,
and the names users see are links through `..data`. The moment of change is the renaming of a new `..data`.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Literal

Step = Literal["files written", "..data renamed", "links created", "links removed", "old files removed"]

DATA = "..data"
NEW_DATA = "..data_tmp"


class SecretVolume:
    """One volume's writer; `a/b` as a key is the item path of a projected volume."""

    def __init__(self, path: Path, *, mode: int = 0o644, links_first: bool = False) -> None:
        """Mount an empty volume; `links_first` is the order of older kubelets and of the CSI driver."""
        self.path = path
        self.mode = mode
        self.links_first = links_first
        path.mkdir(parents=True, exist_ok=True)

    def write(self, payload: Mapping[str, bytes], *, modes: Mapping[str, int] | None = None) -> bool:
        """Make the volume hold exactly `payload`; false, and nothing touched, if it does already."""
        return bool(list(self.steps(payload, modes=modes)))

    def steps(self, payload: Mapping[str, bytes], *, modes: Mapping[str, int] | None = None) -> Iterator[Step]:
        """The same, pausing after each step so that a test can look at (or abandon) a half-done update."""
        for key in payload:
            _check(key)
        old = self._generation()
        removed = self._removed(old, payload)
        if old and not removed and not _differs(old, payload):
            return

        new = self._write_files(payload, modes or {})
        yield "files written"
        if self.links_first:
            self._create_links(payload)
            yield "links created"
        (self.path / NEW_DATA).symlink_to(new.name)
        (self.path / NEW_DATA).rename(self.path / DATA)
        yield "..data renamed"
        if not self.links_first:
            self._create_links(payload)
            yield "links created"
        for name in removed:
            if len(PurePosixPath(name).parts) == 1:
                (self.path / name).unlink(missing_ok=True)
        yield "links removed"
        if old:
            shutil.rmtree(old)
        yield "old files removed"

    def _generation(self) -> Path | None:
        """The time-stamped directory that is served now."""
        data = self.path / DATA
        return self.path / data.readlink() if data.is_symlink() else None

    @staticmethod
    def _removed(old: Path | None, payload: Mapping[str, bytes]) -> set[str]:
        """Files and directories that the old generation has and the payload does not need."""
        if not old:
            return set()
        present = {str(path.relative_to(old)) for path in old.rglob("*")}
        needed = {str(path) for key in payload for path in (PurePosixPath(key), *PurePosixPath(key).parents)}
        return present - needed

    def _write_files(self, payload: Mapping[str, bytes], modes: Mapping[str, int]) -> Path:
        stamp = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
        directory = Path(tempfile.mkdtemp(prefix=stamp, dir=self.path))
        directory.chmod(0o755)
        for key, content in payload.items():
            file = directory / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(modes.get(key, self.mode))
        return directory

    def _create_links(self, payload: Mapping[str, bytes]) -> None:
        for name in {PurePosixPath(key).parts[0] for key in payload}:
            link = self.path / name
            if not link.is_symlink():
                link.symlink_to(f"{DATA}/{name}")


def _check(key: str) -> None:
    path = PurePosixPath(key)
    if not path.parts or path.is_absolute() or ".." in path.parts or key.startswith("..") or str(path) != key:
        raise ValueError(f"the kubelet would refuse the path {key!r}")


def _differs(directory: Path, payload: Mapping[str, bytes]) -> bool:
    """Whether contents differ: modes alone are no reason to write."""
    files = ((directory / key, content) for key, content in payload.items())
    return any(not file.is_file() or file.read_bytes() != content for file, content in files)
