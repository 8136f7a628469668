"""The look at the machine before pgpool starts."""

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from entrypoint.errors import Problems, PublishError
from entrypoint.preflight import (
    Listener,
    Segment,
    _is_alive,
    abandoned,
    check_nobody_lives,
    check_port,
    check_run_dir,
    filesystem_of,
    listeners,
    remove_stale_files,
)
from support.deadline import wait_until
from support.ports import free_port
from unit.conftest import Site

# --- the run directory ----------------------------------------------------------------------------------------------

MOUNTINFO = r"""21 1 259:1 / / rw,relatime shared:1 - ext4 /dev/root rw
22 21 0:21 / /proc rw,nosuid - proc proc rw
30 21 0:30 / /dev/shm rw shared:3 master:1 - tmpfs tmpfs rw
31 21 0:31 / /run rw,nosuid - tmpfs tmpfs rw
32 31 0:32 /pool /run/pgpool rw - ext4 /dev/vdb rw
33 21 0:33 / /mnt/with\040space\134and rw - ramfs ramfs rw
34 21 0:34 / /mnt/ünïcödé rw - tmpfs tmpfs rw
35 21 0:35 / /twice rw - ext4 /dev/vdc rw
36 35 0:36 / /twice rw - tmpfs tmpfs rw
37 21 0:37 / /over rw - overlay overlay rw,lowerdir=/a:/b
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/etc", "ext4"),
        ("/run", "tmpfs"),
        ("/run/other", "tmpfs"),
        ("/run/pgpool", "ext4"),
        ("/run/pgpool/generations", "ext4"),
        ("/run/pgpool2", "tmpfs"),
        ("/runner", "ext4"),
        ("/dev/shm/../shm/x", "tmpfs"),
        ("/mnt/with space\\and/x", "ramfs"),
        ("/mnt/with", "ext4"),
        ("/mnt/ünïcödé/x", "tmpfs"),
        ("/twice/x", "tmpfs"),
        ("/over/x", "overlay"),
    ],
)
def test_a_path_is_on_the_file_system_mounted_nearest(path: str, kind: str) -> None:
    assert filesystem_of(Path(path), MOUNTINFO) == kind


def test_a_path_that_is_nowhere_is_on_an_unknown_file_system() -> None:
    assert filesystem_of(Path("/a"), "") == "an unknown file system"


def test_links_are_followed_to_their_file_system(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/run/other")
    assert filesystem_of(tmp_path / "link", MOUNTINFO) == "tmpfs"


MOUNT = "mount an emptyDir with medium: Memory there; for a user id that is not root, set fsGroup in the pod"


def refusal(path: Path) -> str:
    with pytest.raises(PublishError) as raised:
        check_run_dir(path)
    return str(raised.value)


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_run_directory_that_is_none_is_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert refusal(tmp_path / kind) == f"PGPOOL_RUN_DIR {tmp_path}/{kind} is no directory\n  → {MOUNT}"


def test_a_run_directory_that_cannot_be_reached_is_told(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    tmp_path.chmod(0)
    try:
        told = refusal(tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)
    assert told == f"PGPOOL_RUN_DIR {tmp_path}/run cannot be reached: Permission denied\n  → {MOUNT}"


@pytest.mark.parametrize("mode", [0o500, 0o300, 0o600])
def test_a_run_directory_that_is_not_ours_is_told(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    try:
        told = refusal(tmp_path)
    finally:
        tmp_path.chmod(0o700)
    assert told == f"PGPOOL_RUN_DIR {tmp_path} is not writable for user id {os.geteuid()}\n  → {MOUNT}"


def test_a_run_directory_in_memory_is_fine() -> None:
    assert check_run_dir(Path("/dev/shm")) == []


def test_a_run_directory_on_a_disk_is_a_warning(tmp_path: Path) -> None:
    kind = filesystem_of(tmp_path, Path("/proc/self/mountinfo").read_text())
    warning = f"PGPOOL_RUN_DIR {tmp_path} is on {kind}, not in memory: passwords may reach a disk"
    assert check_run_dir(tmp_path) == ([] if kind in ("tmpfs", "ramfs") else [warning])


# --- ports ----------------------------------------------------------------------------------------------------------


ADDRESSES = ("PGPOOL_PARAMS_LISTEN_ADDRESSES", "environment")
PORT = ("PGPOOL_PARAMS_port", "/etc/port")


def port_problems(addresses: str, port: int) -> list[tuple[str, str, str]]:
    problems = Problems()
    check_port(Listener(addresses, port, ADDRESSES, PORT), problems)
    found = problems._found  # noqa: SLF001
    remedies = {PORT[0]: CHOOSE_PORT, ADDRESSES[0]: CHOOSE_ADDRESS}
    assert all(each.remedy == remedies[each.setting] for each in found)
    return [(each.setting, each.origin, each.what) for each in found]


CHOOSE_PORT = "stop what listens there, or choose another port with PGPOOL_PARAMS_port"
CHOOSE_ADDRESS = "give addresses or names of this host, or * for all of them"


@pytest.mark.parametrize("addresses", ["*", "127.0.0.1", "localhost", "0.0.0.0", "127.0.0.1, 127.0.0.2", "", " , "])
def test_a_free_port_is_no_problem(addresses: str) -> None:
    assert port_problems(addresses, free_port()) == []


@pytest.mark.parametrize(
    ("listens", "addresses", "where"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "*", "0.0.0.0"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.1,127.0.0.2", "127.0.0.2"),
    ],
)
def test_a_busy_port_is_told(listens: str, addresses: str, where: str) -> None:
    with socket.create_server((listens, 0)) as server:
        port = server.getsockname()[1]
        assert port_problems(addresses, port) == [(*PORT, f"{where} port {port}: the port is in use")]
    assert port_problems(addresses, port) == []


def test_a_busy_port_is_one_problem_on_however_many_addresses() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        assert port_problems("*", port) == [(*PORT, f"0.0.0.0 and :: port {port}: the port is in use")]


def test_a_port_of_another_address_is_not_ours() -> None:
    with socket.create_server(("127.0.0.2", 0)) as server:
        assert port_problems("127.0.0.1", server.getsockname()[1]) == []


def test_a_connection_that_has_just_ended_keeps_no_port_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # the side that closes first waits (TIME_WAIT), here the server's
        client.close()
    assert port_problems("127.0.0.1", port) == []


@pytest.mark.parametrize("address", ["192.0.2.1", "203.0.113.9", "2001:db8::1"])
def test_an_address_of_another_host_is_told(address: str) -> None:
    ((setting, origin, what),) = port_problems(address, free_port())
    assert (setting, origin) == ADDRESSES
    assert what.startswith(f"'{address}' is no address of this host (")


@pytest.mark.parametrize("address", ["no such host", "a..b", "x" * 64, "256.256.256.256"])
def test_what_is_no_address_is_told(address: str) -> None:
    ((setting, origin, what),) = port_problems(address, free_port())
    assert (setting, origin) == ADDRESSES
    assert what.startswith(f"'{address}' is no address of this host (")


def test_every_bad_address_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = port_problems("a..b, no such host, 127.0.0.1", port)
    assert [what.split(" is no ")[0] for _, _, what in told] == [
        "'a..b'",
        "'no such host'",
        f"127.0.0.1 port {port}: the port is in use",
    ]


def test_both_ports_are_looked_at_and_named_as_they_were_given(site: Site) -> None:
    resolved = site.resolve(PGPOOL_PARAMS_port="7001", PGPOOL_PARAMS_PCP_LISTEN_ADDRESSES="localhost")
    assert list(listeners(resolved.settings, resolved.model)) == [
        Listener("*", 7001, ("PGPOOL_PARAMS_LISTEN_ADDRESSES", "default"), ("PGPOOL_PARAMS_port", "environment")),
        Listener(
            "localhost",
            9898,
            ("PGPOOL_PARAMS_PCP_LISTEN_ADDRESSES", "environment"),
            ("PGPOOL_PARAMS_PCP_PORT", "default"),
        ),
    ]


# --- a pgpool that lives ----------------------------------------------------------------------------------------------

RUN_DIR = ("PGPOOL_RUN_DIR", "environment")


def told_living(run_dir: Path) -> list[str]:
    problems = Problems()
    check_nobody_lives(run_dir, RUN_DIR, problems)
    found = problems._found  # noqa: SLF001
    assert {(each.setting, each.origin) for each in found} <= {RUN_DIR}
    assert {each.remedy for each in found} <= {"stop that one first, or give this one another directory"}
    return [each.what for each in found]


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """Runs programs of any name, which do nothing for a while."""
    with ExitStack() as stack:

        def start(name: str) -> int:
            program = tmp_path / "bin" / name
            program.parent.mkdir(exist_ok=True)
            shutil.copy("/bin/sleep", program)
            process = stack.enter_context(subprocess.Popen([program, "60"]))
            stack.callback(process.kill)
            wait_until(
                lambda: Path(f"/proc/{process.pid}/comm").read_text() == f"{name}\n", timeout=5, failure=lambda: name
            )
            return process.pid

        yield start


def test_a_pid_file_of_a_pgpool_that_lives_is_told(tmp_path: Path, running: Callable[[str], int]) -> None:
    pid = running("pgpool")
    (tmp_path / "pgpool.pid").write_bytes(f"{pid}\n\0".encode())
    assert told_living(tmp_path) == [f"a pgpool (process {pid}) runs in this directory already"]


def test_a_process_that_only_has_the_pid_does_not_count(tmp_path: Path, running: Callable[[str], int]) -> None:
    for pid in (running("postgres"), running("pgpool2"), os.getpid(), 0, 2**31):
        (tmp_path / "pgpool.pid").write_bytes(f"{pid}\n\0".encode())
        assert told_living(tmp_path) == []


def test_our_own_pid_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The entrypoint of a container that was restarted in place has the number that pgpool had."""
    (tmp_path / "pgpool.pid").write_bytes(f"{os.getpid()}\n\0".encode())
    before = Path("/proc/self/comm").read_text()
    Path("/proc/self/comm").write_text("pgpool")
    try:
        assert Path(f"/proc/{os.getpid()}/comm").read_text() == "pgpool\n"
        assert told_living(tmp_path) == []
    finally:
        Path("/proc/self/comm").write_text(before)


def test_a_pgpool_that_waits_to_be_reaped_does_not_count(tmp_path: Path) -> None:
    program = tmp_path / "pgpool"
    shutil.copy("/bin/true", program)
    with subprocess.Popen([program]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (tmp_path / "pgpool.pid").write_bytes(f"{process.pid}\n\0".encode())
        assert told_living(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"\0", b"x", b"-1\n", b"9" * 100])
def test_a_pid_file_that_says_nothing_does_not_count(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pgpool.pid").write_bytes(content)
    assert told_living(tmp_path) == []


def test_a_socket_that_somebody_answers_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as abandoned_socket:
        abandoned_socket.bind(".s.PGSQL.7000")
    (tmp_path / ".s.PGSQL.7002").write_bytes(b"no socket")
    assert told_living(Path()) == []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(".s.PGSQL.7001")
        server.listen(0)
        what = "a pgpool runs in this directory already: something listens on .s.PGSQL.7001"
        assert told_living(Path()) == [what]
        assert told_living(Path()) == [what], "its queue is full now"
    assert told_living(Path()) == []


@pytest.mark.parametrize("kind", ["missing", "file", "closed/run", "with a directory"])
def test_a_run_directory_that_cannot_be_looked_into_is_left_to_others(tmp_path: Path, kind: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "with a directory/pgpool.pid").mkdir(parents=True)
    (tmp_path / "closed").mkdir(mode=0)
    try:
        assert told_living(tmp_path / kind) == []
    finally:
        (tmp_path / "closed").chmod(0o700)


# --- what a killed predecessor left ---------------------------------------------------------------------------------


def test_pid_file_and_sockets_of_our_ports_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pgpool.pid").write_bytes(b"1\0")
    for name in (".s.PGSQL.9999", ".s.PGSQL.9898", ".s.PGSQL.5432"):
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
    (tmp_path / "inputs.json").write_bytes(b"{}")
    assert remove_stale_files(tmp_path, (9999, 9898)) == ["pgpool.pid", ".s.PGSQL.9999", ".s.PGSQL.9898"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.PGSQL.5432", "inputs.json"]
    assert remove_stale_files(tmp_path, (9999, 9898)) == []


def test_one_file_that_is_not_there_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(".s.PGSQL.9898")
    assert remove_stale_files(tmp_path, (9999, 9898)) == [".s.PGSQL.9898"]


def test_what_only_has_a_sockets_name_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".s.PGSQL.9999").write_bytes(b"no socket")
    (tmp_path / ".s.PGSQL.9898").mkdir()
    assert remove_stale_files(tmp_path, (9999, 9898)) == []


def test_what_cannot_be_removed_ends_with_73(tmp_path: Path) -> None:
    (tmp_path / "pgpool.pid").mkdir()
    with pytest.raises(PublishError, match=rf"{tmp_path}: Is a directory \({tmp_path}/pgpool.pid\)"):
        remove_stale_files(tmp_path, (9999, 9898))


HEADER = (
    "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid      atime      dtime"
    "      ctime                   rss                  swap\n"
)


def row(key: int = 0, shmid: int = 7, cpid: int = 12, nattch: int = 0, uid: int = 999) -> str:
    return (
        f"{key:10d} {shmid:10d}   600 {6291456:21d} {cpid:5d}     0 {nattch:6d} {uid:5d}     0   999     0 "
        "1780000000 1780000000 1780000000               6291456                     0\n"
    )


def found(listing: str, alive: Callable[[int], bool] = lambda _: False) -> list[int]:
    return [segment.id for segment in abandoned(listing, 999, alive)]


def test_a_segment_that_a_killed_pgpool_left_is_abandoned() -> None:
    assert list(abandoned(HEADER + row(), 999, lambda _: False)) == [
        Segment(key=0, id=7, bytes=6291456, creator=12, attached=0, uid=999)
    ]


@pytest.mark.parametrize(
    "other",
    [
        row(key=1),
        row(key=-559038737),
        row(nattch=1),
        row(uid=0),
        row(uid=1000),
        row(cpid=77),
    ],
)
def test_anybody_elses_segment_is_not(other: str) -> None:
    listing = HEADER + row(shmid=1) + other + row(shmid=2)
    assert found(listing, alive=lambda pid: pid == 77) == [1, 2]


def test_a_process_that_only_waits_to_be_reaped_is_not_alive() -> None:
    assert _is_alive(os.getpid())
    assert not _is_alive(0)
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not _is_alive(process.pid)


def test_no_segments_are_no_trouble() -> None:
    assert found(HEADER) == []


def test_the_columns_are_found_by_name() -> None:
    assert found("uid nattch cpid size shmid key\n999 0 12 100 5 0\n") == [5]
    assert found(HEADER.replace("rss", "new") + row()) == [7]


def test_this_kernels_list_can_be_read() -> None:
    listing = Path("/proc/sysvipc/shm").read_text()
    assert [segment for segment in abandoned(listing, -1, lambda _: False)] == []  # noqa: C416
    assert listing.split()[: len(HEADER.split()) - 2] == HEADER.split()[:-2]
