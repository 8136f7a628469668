"""Writes a tree so that pgpool sees all of it or nothing: a directory per generation, one symlink to it.

pgpool must never meet a missing or half-written pool_passwd, not for a millisecond: it then spins, and can
hang until it is restarted (pool_reopen_passwd_file and its callers). Nothing here is written in place.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entrypoint.errors import PublishError
from entrypoint.model import CURRENT
from entrypoint.tree import Tree

GENERATIONS = "generations"
BOOTED = "booted"
"""The symlink to the generation that the running pgpool was started with: what only a start applies is as in there."""
VERIFIED = "verified"
"""The symlink to the generation that the sidecar last saw at work: what it goes back to."""
_TEMPORARY = ".new-"
_MODE = 0o600
_ABANDONED_SECONDS = 60.0
TURN_SECONDS = 20.0
"""How long to wait for one's turn; a holder needs milliseconds."""
_TURN_PAUSE = 0.02


class SupersededError(Exception):
    """Somebody else has published meanwhile: look again."""


def publish(tree: Tree, run_dir: Path, *, replacing: str | None = None, booting: bool = False) -> Path:
    """Make `tree` the live generation, with `booting` the one that pgpool is started with, and return its directory.

    Publishing what is live already changes nothing. Whoever dies half-way leaves `current` as it was. Boot and sidecar
    take turns.

    Raises PublishError; SupersededError when the live generation is not the one `replacing` names.
    """
    try:
        generations = run_dir / GENERATIONS
        generations.mkdir(mode=0o700, exist_ok=True)
        with turn(generations):
            if replacing is not None and replacing != marked(run_dir, CURRENT):
                raise SupersededError
            generation = generations / tree.digest
            if generation.is_dir():
                _repair(tree, generation)
            else:
                _write_generation(tree, generation)
            _point(run_dir, CURRENT, tree.digest)
            if booting:
                _point(run_dir, BOOTED, tree.digest, anew=True)
            _collect(run_dir)
    except OSError as error:
        raise unwritable(run_dir, error) from None
    return generation


def mark(run_dir: Path, name: str, digest: str) -> None:
    """Let the symlink BOOTED or VERIFIED point to a generation, which is then kept; `marked_at` tells since when.

    Raises PublishError; SupersededError when others have published so often meanwhile that it is gone.
    """
    generations = run_dir / GENERATIONS
    try:
        with turn(generations):
            if not (generations / digest).is_dir():
                raise SupersededError
            _point(run_dir, name, digest, anew=True)
    except OSError as error:
        raise unwritable(run_dir, error) from None


def marked(run_dir: Path, name: str) -> str | None:
    """The digest of the generation that CURRENT, BOOTED or VERIFIED points to; None when there is none."""
    try:
        return (run_dir / name).readlink().name
    except OSError:
        return None


def marked_at(run_dir: Path, name: str) -> int:
    """When CURRENT, BOOTED or VERIFIED was last set: nanoseconds of Unix time, 0 when there is none.

    Whatever the clock does, and however coarse it is, a later one of the three has a later time.
    """
    try:
        return (run_dir / name).lstat().st_mtime_ns
    except OSError:
        return 0


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def turn(directory: Path, seconds: float | None = None) -> Iterator[None]:
    """One process at a time, in whatever container: one publisher for `generations`. The lock ends with its holder.

    Raises OSError; PublishError when a holder keeps it for so many seconds (TURN_SECONDS unless given), which is longer
    than any publishing takes: it is stopped, say.
    """
    patience = TURN_SECONDS if seconds is None else seconds
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + patience
        while not _lock(descriptor):
            if time.monotonic() > until:
                raise PublishError(
                    f"another process has kept the lock on {directory} for {patience:.0f} s\n"
                    "  → it hangs, or its container is paused: restart both containers"
                )
            time.sleep(_TURN_PAUSE)
        yield
    finally:
        os.close(descriptor)


def unwritable(run_dir: Path, error: OSError) -> PublishError:
    """The error that says why something below the run directory cannot be written, and what to do."""
    place = f" ({error.filename})" if error.filename else ""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        remedy = "give the volume more room (sizeLimit of the emptyDir, and the memory limit it counts against)"
    else:
        remedy = f"mount a writable volume there (an emptyDir with medium: Memory) for user id {os.geteuid()}"
    return PublishError(f"cannot write below PGPOOL_RUN_DIR {run_dir}: {error.strerror}{place}\n  → {remedy}")


def write_files(tree: Tree, directory: Path) -> None:
    """Write the files into a directory, each by rename and with mode 0600. Raises PublishError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in tree.files.items():
            replace_file(directory / name, content, durable=False)
    except OSError as error:
        raise PublishError(
            f"cannot write into {directory}: {error.strerror} ({error.filename})\n"
            f"  → name a directory that user id {os.geteuid()} may write to"
        ) from None


def replace_file(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Replace a file by rename, with mode 0600, so that no reader sees half of it. Raises OSError.

    `durable` waits until it would survive a power failure, too.
    """
    temporary = _temporary(path)
    try:
        _write_file(temporary, content, durable=durable)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(path.parent)


def _repair(tree: Tree, generation: Path) -> None:
    """Make a generation that may be live hold `tree`, without taking away a file that it needs."""
    for name, content in tree.files.items():
        if not _holds(generation / name, content):
            replace_file(generation / name, content)
    for entry in generation.iterdir():
        if entry.name not in tree.files:
            entry.unlink()


def _holds(file: Path, content: bytes) -> bool:
    try:
        return file.read_bytes() == content and stat.S_IMODE(file.stat().st_mode) == _MODE
    except OSError:
        return False


def _write_generation(tree: Tree, generation: Path) -> None:
    temporary = _temporary(generation)
    temporary.mkdir(mode=0o700)
    try:
        for name, content in tree.files.items():
            _write_file(temporary / name, content, durable=True)
        _sync_directory(temporary)
        temporary.rename(generation)
    except BaseException:
        _remove(temporary)
        raise
    _sync_directory(generation.parent)


def _write_file(path: Path, content: bytes, *, durable: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        if durable:
            file.flush()
            os.fsync(descriptor)


def _point(run_dir: Path, name: str, digest: str, *, anew: bool = False) -> None:
    """Let a symlink point to a generation, relative, so that it holds wherever the volume is mounted.

    One that points there already is left alone, unless it is to be set `anew`, with the time of now.
    """
    link = run_dir / name
    if not anew and marked(run_dir, name) == digest:
        return
    newest = max(marked_at(run_dir, each) for each in (CURRENT, BOOTED, VERIFIED))
    at = max(time.time_ns(), newest + 1)
    temporary = _temporary(link)
    temporary.symlink_to(Path(GENERATIONS) / digest)
    try:
        os.utime(temporary, ns=(at, at), follow_symlinks=False)
        temporary.replace(link)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(link.parent)


def _collect(run_dir: Path) -> None:
    """Remove what no longer matters: all but the marked generations and the newest other, and what was abandoned."""
    generations = run_dir / GENERATIONS
    needed = {marked(run_dir, name) for name in (CURRENT, BOOTED, VERIFIED)}
    others = sorted(
        (
            entry
            for entry in generations.iterdir()
            if entry.name not in needed and not entry.name.startswith(_TEMPORARY)
        ),
        key=lambda entry: entry.stat().st_mtime_ns,
        reverse=True,
    )
    for entry in others[1:]:
        # Renamed first: half removed, it would be the newest, and be kept in place of a whole one.
        entry.rename(_temporary(entry))
    # Beside the generations, others may be at work: their files are left alone until they are old.
    old = [entry for entry in run_dir.glob(f"{_TEMPORARY}*") if _age_seconds(entry) > _ABANDONED_SECONDS]
    for entry in [*generations.glob(f"{_TEMPORARY}*"), *old]:
        _remove(entry)


def _age_seconds(entry: Path) -> float:
    try:
        return time.time() - entry.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(beside: Path) -> Path:
    return beside.with_name(f"{_TEMPORARY}{os.urandom(8).hex()}")


def _remove(path: Path) -> None:
    from shutil import rmtree  # noqa: PLC0415  # seldom needed, and slow to import (it loads compressors)

    if path.is_dir() and not path.is_symlink():
        rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
