"""Looks at the machine before pgpool starts on it, because pgpool itself looks too little.

It takes a busy port for a warning and goes on without it; a stale pid file for a reason not to start; and
it never cleans up after a predecessor that was killed.
"""

import errno
import os
import re
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath

from entrypoint.errors import Problems, PublishError
from entrypoint.model import PgpoolModel
from entrypoint.mountinfo import read_mounts
from entrypoint.publish import unwritable
from entrypoint.settings import Settings

_IPC_RMID = 0
_PID_FILE = "pgpool.pid"
_MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")


@dataclass(frozen=True, slots=True)
class Segment:
    """A System V shared memory segment, as a line of /proc/sysvipc/shm."""

    key: int
    id: int
    bytes: int
    creator: int
    """Process id in our namespace; 0 when it has none here."""
    attached: int
    uid: int


@dataclass(frozen=True, slots=True)
class Listener:
    """Where pgpool is to listen; each value with the variable and the origin it came from."""

    addresses: str
    port: int
    addresses_from: tuple[str, str]
    port_from: tuple[str, str]


def listeners(settings: Settings, model: PgpoolModel) -> Iterator[Listener]:
    """What is to listen: pgpool itself, and PCP."""
    given = {parameter.assignment.name: (parameter.variable, parameter.origin) for parameter in settings.params}
    for prefix, addresses in (("", model.listen_addresses), ("pcp_", model.pcp_listen_addresses)):
        names = (f"{prefix}listen_addresses", f"{prefix}port")
        sources = [given.get(name, (f"PGPOOL_PARAMS_{name.upper()}", "default")) for name in names]
        yield Listener(addresses, model.numbers[f"{prefix}port"], *sources)


def check_port(listener: Listener, problems: Problems) -> None:
    """Add a problem for each address that is not ours, and one for a port that is taken."""
    busy: list[str] = []
    for address in [each.strip() for each in listener.addresses.split(",") if each.strip()]:
        try:
            busy += _busy(address, listener.port)
        except (OSError, UnicodeError) as error:  # UnicodeError: a label that is empty or too long
            reason = error.strerror if isinstance(error, OSError) else "not a host name"
            problems.add(
                *listener.addresses_from,
                f"{address!r} is no address of this host ({reason})",
                "give addresses or names of this host, or * for all of them",
            )
    if busy:
        problems.add(
            *listener.port_from,
            f"{' and '.join(dict.fromkeys(busy))} port {listener.port}: the port is in use",
            f"stop what listens there, or choose another port with {listener.port_from[0]}",
        )


def _busy(address: str, port: int) -> Iterator[str]:
    """The numeric addresses behind this one whose port is taken. Raises OSError for one that is not ours."""
    host = None if address == "*" else address
    for family, kind, protocol, _, target in socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            _try_to_listen(family, kind, protocol, target)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                yield str(target[0])
            # `*` resolves to an IPv6 address, too, where IPv6 is switched off; pgpool skips it then.
            elif host is not None or error.errno not in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                raise


def check_nobody_lives(run_dir: Path, source: tuple[str, str], problems: Problems) -> None:
    """Add a problem when a pgpool runs in the run directory: its files are not ours to replace.

    Args:
        run_dir: the run directory; one that cannot be looked into is left to `check_run_dir`.
        source: the variable that names it, and the origin of its value.
        problems: collects what is wrong.
    """
    try:
        pid = _pid_in(run_dir / _PID_FILE)
        sockets = sorted(path for path in run_dir.glob(".s.PGSQL.*") if stat.S_ISSOCK(path.lstat().st_mode))
    except OSError:
        return
    if pid is not None and pid != os.getpid() and _is_alive(pid) and _name_of(pid) == "pgpool":
        what = f"a pgpool (process {pid}) runs in this directory already"
    elif answering := next(filter(_is_answered, sockets), None):
        what = f"a pgpool runs in this directory already: something listens on {answering.name}"
    else:
        return
    problems.add(*source, what, "stop that one first, or give this one another directory")


def check_run_dir(path: Path) -> list[str]:
    """Raise PublishError when the run directory cannot be written to; return warnings."""
    fault = None
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        mode = 0
    except OSError as error:
        raise _no_run_dir(path, f"cannot be reached: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        fault = "is no directory"
    elif not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        fault = f"is not writable for user id {os.geteuid()}"
    if fault is not None:
        raise _no_run_dir(path, fault)
    kind = filesystem_of(path, Path("/proc/self/mountinfo").read_text(errors="surrogateescape"))
    if kind not in _MEMORY_FILESYSTEMS:
        return [f"PGPOOL_RUN_DIR {path} is on {kind}, not in memory: passwords may reach a disk"]
    return []


def _no_run_dir(path: Path, fault: str) -> PublishError:
    return PublishError(
        f"PGPOOL_RUN_DIR {path} {fault}\n"
        "  → mount an emptyDir with medium: Memory there; for a user id that is not root, set fsGroup in the pod"
    )


def filesystem_of(path: Path, mountinfo: str) -> str:
    """The type of the file system a path is on, by the text of /proc/self/mountinfo."""
    kinds = {mount.point: mount.kind for mount in read_mounts(mountinfo)}
    real = PurePath(os.path.realpath(path))
    return next((kinds[place] for place in (real, *real.parents) if place in kinds), "an unknown file system")


def remove_stale_files(run_dir: Path, ports: tuple[int, ...]) -> list[str]:
    """Remove pid file and sockets that a killed predecessor left; return their names.

    To be called once nobody is known to live here. In a container the pid in the file always exists (it is 1,
    or so), and pgpool would refuse to start (src/main/main.c). Raises PublishError.
    """
    removed = []
    for name in (_PID_FILE, *(f".s.PGSQL.{port}" for port in ports)):
        path = run_dir / name
        try:
            if name == _PID_FILE or stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
                removed.append(name)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise unwritable(run_dir, error) from None
    return removed


def reap_shared_memory() -> list[Segment]:
    """Remove shared memory that dead pgpools of our user left behind; return what was removed.

    An OOM-killed pgpool leaves its segment in the pod's IPC namespace, which outlives the container; a few
    restarts fill the pod's memory limit for good. It leaves a set of semaphores as well; those stay, because
    the kernel records no creator for them (/proc/sysvipc/sem has no pid), and so nothing tells a dead pgpool's
    from a living one's. They take no memory to speak of, and an IPC namespace has room for 32,000 sets (SEMMNI).
    """
    try:
        listing = Path("/proc/sysvipc/shm").read_text()
    except OSError:
        return []
    import ctypes  # noqa: PLC0415  # only a boot needs it, and it is slow to import

    libc = ctypes.CDLL(None, use_errno=True)
    return [
        segment
        for segment in abandoned(listing, os.geteuid(), _is_alive)
        if libc.shmctl(segment.id, _IPC_RMID, None) == 0
    ]


def abandoned(listing: str, uid: int, is_alive: Callable[[int], bool]) -> Iterator[Segment]:
    """Segments of `uid` that nothing is attached to and whose creator is dead.

    pgpool's are private (key 0, IPC_PRIVATE in src/utils/pool_shmem.c); keyed ones belong to others.
    """
    lines = listing.splitlines()
    columns = lines[0].split()
    for line in lines[1:]:
        row = dict(zip(columns, line.split(), strict=False))
        segment = Segment(
            int(row["key"]),
            int(row["shmid"]),
            int(row["size"]),
            int(row["cpid"]),
            int(row["nattch"]),
            int(row["uid"]),
        )
        if segment.key == 0 and segment.uid == uid and segment.attached == 0 and not is_alive(segment.creator):
            yield segment


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that was killed and only waits to be reaped does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    # The name before it, in parentheses, may contain anything.
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="replace").removesuffix("\n")
    except OSError:
        return ""


def _pid_in(path: Path) -> int | None:
    """The number in a pid file; pgpool writes a line end and a NUL character behind it."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        digits = re.match(rb"[0-9]{1,10}", path.read_bytes())
    except FileNotFoundError:
        return None
    return int(digits[0]) if digits else None


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except OSError:
            return False
    return True


def _try_to_listen(family: int, kind: int, protocol: int, target: tuple[object, ...]) -> None:
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(target)
        listener.listen(1)
