"""A configuration that is not right is refused as a whole, with every problem named, and changes nothing."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from support.pgpool_process import run_entrypoint
from support.pod import APP_PASSWORD, APP_ROLE, CHECK_ROLE, NewPod, Pod
from support.secret_volume import SecretVolume

Arrange = Callable[[Pod], None]


class Problem(NamedTuple):
    """One problem as it is printed, or pieces that have to be in it."""

    setting: str
    what: str
    remedy: str
    origin: str = ""


PROBLEM = re.compile(r"^  (?P<setting>\S.*) \((?P<origin>.*)\)\n {6}(?P<what>.*)\n {6}→ (?P<remedy>.*)$", re.MULTILINE)


def env(**changes: str | None) -> Arrange:
    def arrange(pod: Pod) -> None:
        pod.environment = pod.changed_environment(changes)

    return arrange


def param(name: str, value: str) -> Arrange:
    return env(**{f"PGPOOL_PARAMS_{name}": value})


def both(*steps: Arrange) -> Arrange:
    def arrange(pod: Pod) -> None:
        for step in steps:
            step(pod)

    return arrange


def file_for(setting: str, content: bytes, *, mode: int = 0o600) -> Arrange:
    """The setting names a file with this content."""

    def arrange(pod: Pod) -> None:
        pod.environment[setting] = str(pod.write("a file", content, mode=mode))

    return arrange


def user(role: str, password: bytes, *, mode: int = 0o600) -> Arrange:
    def arrange(pod: Pod) -> None:
        file = pod.users / role
        file.write_bytes(password)
        file.chmod(mode)

    return arrange


def remove_user(role: str) -> Arrange:
    return lambda pod: (pod.users / role).unlink()


def basic_auth(directory: str, files: dict[str, bytes]) -> Arrange:
    def arrange(pod: Pod) -> None:
        (pod.users / directory).mkdir()
        for name, content in files.items():
            (pod.users / directory / name).write_bytes(content)

    return arrange


def mounted_at_the_top(pod: Pod) -> None:
    for file in pod.users.iterdir():
        file.unlink()
    SecretVolume(pod.users).write({"username": b"app", "password": b"a % password"})


def closed_pair(pod: Pod) -> None:
    secret = pod.write_basic_auth("pair", "x", "a % password")
    for file in secret.iterdir():
        file.chmod(0)


def fifo(pod: Pod) -> None:
    os.mkfifo(pod.users / "pipe")


def long_run_dir(pod: Pod) -> None:
    directory = pod.directory / ("x" * 100)
    directory.mkdir()
    pod.environment["PGPOOL_RUN_DIR"] = str(directory)


HBA = b"local all all scram-sha-256\n"

CASES: dict[str, tuple[Arrange, list[Problem]]] = {
    "no backends": (
        env(PGPOOL_BACKENDS=None),
        [Problem("PGPOOL_BACKENDS", "is required", "set it to", "not set")],
    ),
    "misspelt backends, bad port and missing key file": (
        env(
            PGPOOL_BACKENDS=None,
            PGPOOL_BACKNEDS="a=10.0.0.1",
            PGPOOL_PARAMS_PORT="99999",
            PGPOOLKEYFILE="/nowhere/key",
        ),
        [
            Problem("PGPOOL_BACKNEDS", "is not a setting", "did you mean PGPOOL_BACKENDS?", "environment"),
            Problem("PGPOOL_BACKENDS", "is required", "set it to", "not set"),
            Problem("PGPOOL_PARAMS_PORT", "'99999' is out of range", "from 1024 to 65535", "environment"),
            Problem("PGPOOLKEYFILE", "/nowhere/key does not exist", "volume mounts", "environment"),
        ],
    ),
    "misspelt backends beside the right ones": (
        env(PGPOOL_BACKNEDS="a=10.0.0.1", PGPOOL_PARAMS_PORT="0", PGPOOLKEYFILE="/nowhere/key"),
        [
            Problem("PGPOOL_BACKNEDS", "is not a setting", "did you mean PGPOOL_BACKENDS?"),
            Problem("PGPOOL_PARAMS_PORT", "'0' is out of range", "from 1024 to 65535"),
            Problem("PGPOOLKEYFILE", "/nowhere/key does not exist", "check the path"),
        ],
    ),
    "empty backends": (env(PGPOOL_BACKENDS=""), [Problem("PGPOOL_BACKENDS", "is empty", "give it a value")]),
    "backends without names": (
        env(PGPOOL_BACKENDS="10.0.0.1:5432,10.0.0.2"),
        [
            Problem("PGPOOL_BACKENDS", "'10.0.0.1:5432': is not of the form", "name=host"),
            Problem("PGPOOL_BACKENDS", "'10.0.0.2': is not of the form", "name=host"),
        ],
    ),
    "backend given twice": (
        env(PGPOOL_BACKENDS="a=10.0.0.1,a=10.0.0.1:5432"),
        [
            Problem("PGPOOL_BACKENDS", "the name 'a' is given twice", "name=host"),
            Problem("PGPOOL_BACKENDS", "the address '10.0.0.1:5432' is given twice", "name=host"),
        ],
    ),
    "backend with bad port, flag and weight": (
        env(PGPOOL_BACKENDS="a=10.0.0.1:pg?weight=-1&flag=ALWAYS"),
        [
            Problem("PGPOOL_BACKENDS", "the port 'pg' is not a number", "name=host"),
            Problem("PGPOOL_BACKENDS", "the weight '-1'", "name=host"),
            Problem("PGPOOL_BACKENDS", "'ALWAYS' is not a flag", "name=host"),
        ],
    ),
    "backend with bare IPv6": (
        env(PGPOOL_BACKENDS="a=fd00::1"),
        [Problem("PGPOOL_BACKENDS", "port ':1'", "name=host")],
    ),
    "unknown setting": (
        env(PGPOOL_NONSENSE="1"),
        [Problem("PGPOOL_NONSENSE", "is not a setting", "pgpool-entrypoint settings")],
    ),
    "parameter without its prefix": (
        env(PGPOOL_NUM_INIT_CHILDREN="4"),
        [Problem("PGPOOL_NUM_INIT_CHILDREN", "is not a setting", "PGPOOL_PARAMS_NUM_INIT_CHILDREN")],
    ),
    "setting and its file": (
        env(PGPOOL_CHECK_USER=CHECK_ROLE, PGPOOL_CHECK_USER_FILE="/nowhere"),
        [Problem("PGPOOL_CHECK_USER_FILE", "so is PGPOOL_CHECK_USER", "keep one of the two")],
    ),
    "settings' files missing and relative": (
        env(PGPOOL_CHECK_USER_FILE="/nowhere/user", PGPOOL_PATRONI_FILE="relative"),
        [
            Problem("PGPOOL_CHECK_USER_FILE", "/nowhere/user does not exist", "check the path"),
            Problem("PGPOOL_PATRONI_FILE", "'relative' is not an absolute path", "begin it with /"),
        ],
    ),
    "setting's file unreadable": (
        file_for("PGPOOL_CHECK_USER_FILE", CHECK_ROLE.encode(), mode=0),
        [Problem("PGPOOL_CHECK_USER_FILE", "is not readable for user id", "defaultMode")],
    ),
    "setting's file not text": (
        file_for("PGPOOL_CHECK_USER_FILE", b"\xff\xfe"),
        [Problem("PGPOOL_CHECK_USER_FILE", "is not UTF-8 text", "write the file anew")],
    ),
    "setting's file a directory": (
        env(PGPOOL_CHECK_USER_FILE="/"),
        [Problem("PGPOOL_CHECK_USER_FILE", "/ ", "give a regular file")],
    ),
    "unknown parameter": (
        param("NUM_INIT_CHILDRN", "4"),
        [
            Problem(
                "PGPOOL_PARAMS_NUM_INIT_CHILDRN",
                "pgpool 4.6 has no parameter 'num_init_childrn'",
                "did you mean num_init_children?",
            )
        ],
    ),
    "boolean that is none": (
        param("LOG_STATEMENT", "maybe"),
        [Problem("PGPOOL_PARAMS_LOG_STATEMENT", "'maybe' is not a boolean", "write on or off")],
    ),
    "number that is none": (
        param("NUM_INIT_CHILDREN", "many"),
        [Problem("PGPOOL_PARAMS_NUM_INIT_CHILDREN", "'many' is not a whole number", "give a whole number from 1")],
    ),
    "octal by accident": (
        param("NUM_INIT_CHILDREN", "010"),
        [Problem("PGPOOL_PARAMS_NUM_INIT_CHILDREN", "'010' is not a whole number", "give a whole number")],
    ),
    "choice that is none": (
        param("BACKEND_CLUSTERING_MODE", "steaming_replication"),
        [
            Problem(
                "PGPOOL_PARAMS_BACKEND_CLUSTERING_MODE",
                "is not one of its values",
                "did you mean streaming_replication?",
            )
        ],
    ),
    "unknown unit": (
        param("HEALTH_CHECK_PERIOD", "5 seconds"),
        [Problem("PGPOOL_PARAMS_HEALTH_CHECK_PERIOD", "has an unknown unit 'seconds'", "the units are us, ms, s")],
    ),
    "unit out of range": (
        param("HEALTH_CHECK_PERIOD", "30000d"),
        [Problem("PGPOOL_PARAMS_HEALTH_CHECK_PERIOD", "is out of range (2592000000 s)", "from 0 to 2147483647")],
    ),
    "value with a quote": (
        param("FAILOVER_COMMAND", "echo 'down'"),
        [Problem("PGPOOL_PARAMS_FAILOVER_COMMAND", "contains a single quote", "put it into a script")],
    ),
    "value with a line end": (
        param("FAILOVER_COMMAND", "true\nallow_clear_text_frontend_auth = on"),
        [Problem("PGPOOL_PARAMS_FAILOVER_COMMAND", "contains a newline", "put it into a script")],
    ),
    "parameters that belong to settings": (
        both(param("BACKEND_HOSTNAME0", "10.0.0.1"), param("SSL", "on"), param("SR_CHECK_USER", "me")),
        [
            Problem("PGPOOL_PARAMS_BACKEND_HOSTNAME0", "belongs to PGPOOL_BACKENDS", "PGPOOL_BACKENDS"),
            Problem("PGPOOL_PARAMS_SSL", "belongs to PGPOOL_TLS_DIR", "set PGPOOL_TLS_DIR"),
            Problem("PGPOOL_PARAMS_SR_CHECK_USER", "belongs to PGPOOL_CHECK_USER", "set PGPOOL_CHECK_USER"),
        ],
    ),
    "parameters that would weaken SCRAM": (
        both(param("ALLOW_CLEAR_TEXT_FRONTEND_AUTH", "on"), param("ENABLE_POOL_HBA", "off"), param("POOL_PASSWD", "")),
        [
            Problem("PGPOOL_PARAMS_ALLOW_CLEAR_TEXT_FRONTEND_AUTH", "is fixed", "remove the variable"),
            Problem("PGPOOL_PARAMS_ENABLE_POOL_HBA", "is fixed", "remove the variable"),
            Problem("PGPOOL_PARAMS_POOL_PASSWD", "is fixed", "remove the variable"),
        ],
    ),
    "parameter of a node that is not there": (
        param("HEALTH_CHECK_PERIOD3", "5"),
        [Problem("PGPOOL_PARAMS_HEALTH_CHECK_PERIOD3", "there is no node 3", "the nodes 0 to 0")],
    ),
    "parameter given twice": (
        both(param("max_pool", "2"), param("MAX_POOL", "3")),
        [Problem("PGPOOL_PARAMS_max_pool", "sets the same as PGPOOL_PARAMS_MAX_POOL", "keep one of the two")],
    ),
    "two ports the same": (
        both(param("PORT", "9999"), param("PCP_PORT", "9999")),
        [Problem("PGPOOL_PARAMS_PCP_PORT", "is the same as port, 9999", "choose another")],
    ),
    "all children reserved": (
        both(param("NUM_INIT_CHILDREN", "3"), param("RESERVED_CONNECTIONS", "3")),
        [Problem("PGPOOL_PARAMS_RESERVED_CONNECTIONS", "leaves none of 3 children", "make it smaller")],
    ),
    "no users directory": (
        env(PGPOOL_USERS_DIR="/nowhere/users"),
        [Problem("PGPOOL_USERS_DIR", "/nowhere/users does not exist", "check the path")],
    ),
    "users directory a file": (
        file_for("PGPOOL_USERS_DIR", b"x"),
        [Problem("PGPOOL_USERS_DIR", "is not a directory", "give the directory")],
    ),
    "users directory one Secret": (
        mounted_at_the_top,
        [Problem("PGPOOL_USERS_DIR", "as one mounted Secret", "one level deeper")],
    ),
    "check role without password": (
        remove_user(CHECK_ROLE),
        [Problem("PGPOOL_CHECK_USER", f"the role '{CHECK_ROLE}' has no password in", "add the file", "default")],
    ),
    "passwords not readable": (
        both(user("closed", b"a % password", mode=0), basic_auth("half", {"username": b"x"}), closed_pair),
        [
            Problem("PGPOOL_USERS_DIR", "closed is not readable for user id", "check defaultMode"),
            Problem("PGPOOL_USERS_DIR", "pair/password is not readable for user id", "check defaultMode"),
            Problem("PGPOOL_USERS_DIR", "pair/username is not readable for user id", "check defaultMode"),
            Problem("PGPOOL_USERS_DIR", "has no file `password`", "a directory holds `username` and `password`"),
        ],
    ),
    "password not readable": (
        user("closed", b"a % password", mode=0),
        [Problem("PGPOOL_USERS_DIR", "closed is not readable for user id", "check defaultMode")],
    ),
    "empty passwords": (
        both(user("empty", b""), user("newline", b"\n")),
        [
            Problem("password of role 'empty'", "is empty", "write the password into the file"),
            Problem("password of role 'newline'", "is empty", "write the password into the file"),
        ],
    ),
    "passwords with line ends and NUL": (
        both(user("two-lines", b"a %\nb\n"), user("crlf", b"a % b\r\n"), user("nul", b"a % \0b")),
        [
            Problem("password of role 'two-lines'", "contains a newline", "printf"),
            Problem("password of role 'crlf'", "contains a carriage return", "printf"),
            Problem("password of role 'nul'", "contains a NUL character", "printf"),
        ],
    ),
    "password not text": (
        user("binary", b"\xff\xfe % \x80"),
        [Problem("password of role 'binary'", "is not UTF-8 text", "in UTF-8")],
    ),
    "hashes instead of passwords": (
        both(
            user("md5", b"md5" + b"0123456789abcdef" * 2),
            user("scram", b"SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy"),
        ),
        [
            Problem("password of role 'md5'", "is a hash as PostgreSQL stores it", "in the Secret"),
            Problem(
                "password of role 'scram'", "is a hash as PostgreSQL stores it", "store the password in the Secret"
            ),
        ],
    ),
    "password of 125 bytes": (
        user("long", b"x" * 125),
        [Problem("password of role 'long'", "has 125 bytes; pgpool cuts entries after 124", "choose a shorter")],
    ),
    "password of 80 bytes to be encrypted": (
        both(file_for("PGPOOLKEYFILE", b"a % key"), user("long", b"x" * 80), user("utf-8", "ü".encode() * 40)),
        [
            Problem("password of role 'long'", "has 80 bytes; pgpool cuts entries after 79", "choose a shorter"),
            Problem("password of role 'utf-8'", "has 80 bytes; pgpool cuts entries after 79", "choose a shorter"),
        ],
    ),
    "role name too long": (
        user("r" * 64, b"a % password"),
        [Problem(f"role '{'r' * 64}'", "is longer than 63 bytes", "the name that PostgreSQL has")],
    ),
    "role names that cannot be": (
        both(
            basic_auth("one", {"username": b"a\nb", "password": b"a % password"}),
            basic_auth("two", {"username": b"", "password": b"a % password"}),
            basic_auth("three", {"username": b"\xff", "password": b"a % password"}),
        ),
        [
            Problem(r"role 'a\nb'", "contains a newline", "no line end but one"),
            Problem("role ''", "has an empty name", "write the role's name"),
            Problem("`username` of a role", "is not UTF-8 text", "write it anew"),
        ],
    ),
    "role twice": (
        basic_auth("again", {"username": APP_ROLE.encode(), "password": b"another % password"}),
        [Problem(f"role '{APP_ROLE}'", "has a password in", "keep one of the two", "again/password")],
    ),
    "half a Secret": (
        both(basic_auth("half", {"username": b"x"}), basic_auth("none", {})),
        [
            Problem("PGPOOL_USERS_DIR", "has no file `password`", "a directory holds", "half"),
            Problem("PGPOOL_USERS_DIR", "has no file `username`", "a directory holds", "none"),
            Problem("PGPOOL_USERS_DIR", "has no file `password`", "a directory holds", "none"),
        ],
    ),
    "pipe among the passwords": (
        fifo,
        [Problem("PGPOOL_USERS_DIR", "pipe is not a regular file", "give a regular file")],
    ),
    "key empty": (
        file_for("PGPOOLKEYFILE", b"\nsecond line\n"),
        [Problem("PGPOOLKEYFILE", "its first line is empty", "write the key on the first line")],
    ),
    "key too long": (
        file_for("PGPOOLKEYFILE", b"k" * 256),
        [Problem("PGPOOLKEYFILE", "its first line is longer than 255 bytes", "shorten the key")],
    ),
    "key with Windows line ends": (
        file_for("PGPOOLKEYFILE", b"a % key\r\n"),
        [Problem("PGPOOLKEYFILE", "carriage return", "Unix line ends")],
    ),
    "key not readable": (
        file_for("PGPOOLKEYFILE", b"a % key", mode=0),
        [Problem("PGPOOLKEYFILE", "is not readable for user id", "fsGroup")],
    ),
    "key not absolute": (
        env(PGPOOLKEYFILE="pool_key"),
        [Problem("PGPOOLKEYFILE", "is not an absolute path", "begin it with /")],
    ),
    "hba with unsafe methods": (
        file_for("PGPOOL_HBA_FILE", HBA + b"host all all all trust\nhost all all all password\nhost all all all md5\n"),
        [
            Problem("PGPOOL_HBA_FILE", "the method trust", "correct the line", "line 2"),
            Problem("PGPOOL_HBA_FILE", "the method password", "correct the line", "line 3"),
            Problem("PGPOOL_HBA_FILE", "the method md5", "correct the line", "line 4"),
        ],
    ),
    "hba that pgpool cannot parse": (
        file_for("PGPOOL_HBA_FILE", HBA + b"hots all all all scram-sha-256\nhost all all 10.0.0.1 scram-sha-256\n"),
        [
            Problem("PGPOOL_HBA_FILE", "'hots' is not a connection type", "pool_hba.conf", "line 2"),
            Problem("PGPOOL_HBA_FILE", "has no mask", "pool_hba.conf", "line 3"),
        ],
    ),
    "hba for TLS without a certificate": (
        file_for("PGPOOL_HBA_FILE", HBA + b"hostssl all all all scram-sha-256\n"),
        [Problem("PGPOOL_HBA_FILE", "PGPOOL_TLS_DIR is not set", "correct the line", "line 2")],
    ),
    "hba empty": (
        file_for("PGPOOL_HBA_FILE", b"# nothing\n"),
        [Problem("PGPOOL_HBA_FILE", "lets anybody in", "correct the line")],
    ),
    "PCP user and password": (
        env(PGPOOL_PCP_USER="a b:c", PGPOOL_PCP_PASSWORD="two\nlines"),
        [
            Problem("PGPOOL_PCP_USER", "is not a PCP user name", "letters, digits"),
            Problem("PGPOOL_PCP_PASSWORD", "contains a line end", "choose another password"),
        ],
    ),
    "sidecar's settings": (
        env(
            PGPOOL_SIDECAR_HTTP="9719",
            PGPOOL_SIDECAR_RESTART="sometimes",
            PGPOOL_SIDECAR_REREAD="10",
            PGPOOL_PATRONI="yes",
        ),
        [
            Problem("PGPOOL_SIDECAR_HTTP", "is not an address", ":9719"),
            Problem("PGPOOL_SIDECAR_RESTART", "is not a restart policy", "auto or never"),
            Problem("PGPOOL_SIDECAR_REREAD", "is not a duration", "with a unit"),
            Problem("PGPOOL_PATRONI", "neither on, off nor a list of URLs", "8008"),
        ],
    ),
    "run directory relative": (
        env(PGPOOL_RUN_DIR="run"),
        [Problem("PGPOOL_RUN_DIR", "'run' is not an absolute path", "begin it with /")],
    ),
    "run directory too long for sockets": (
        long_run_dir,
        [Problem("PGPOOL_RUN_DIR", "is too long", "choose a shorter directory")],
    ),
}


@pytest.fixture(scope="module")
def booted(new_pod: NewPod) -> Iterator[Pod]:
    """A run directory in which a pgpool has served."""
    pod = new_pod()
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
    yield pod
    assert pod.generation.is_dir()


@pytest.fixture
def next_pod(booted: Pod, new_pod: NewPod) -> Pod:
    """The next container in the same pod: other settings, the run directory of before."""
    pod = new_pod()
    pod.run_dir = booted.run_dir
    pod.environment["PGPOOL_RUN_DIR"] = str(booted.run_dir)
    return pod


@pytest.mark.parametrize("name", CASES)
def test_every_problem_is_named_with_its_remedy_and_nothing_changes(next_pod: Pod, name: str) -> None:
    arrange, expected = CASES[name]
    arrange(next_pod)
    before = next_pod.fingerprint()
    result = next_pod.run("run")
    assert result.returncode == 78, result.stderr
    assert result.stdout == ""
    found = problems(result.stderr)
    assert_all_named(expected, found)
    count = "1 problem" if len(found) == 1 else f"{len(found)} problems"
    assert f"error: {count} in the configuration; nothing was started or changed\n" in result.stderr
    assert next_pod.fingerprint() == before
    assert_nobody_listens(next_pod.port)


def test_check_and_render_find_the_same_problems_as_run(pod: Pod) -> None:
    arrange, expected = CASES["misspelt backends, bad port and missing key file"]
    arrange(pod)
    target = pod.directory / "rendered"
    for verb in (["run"], ["check"], ["render", "--to", str(target)], []):
        result = pod.run(*verb)
        assert result.returncode == 78, verb
        assert_all_named(expected, problems(result.stderr))
    assert not target.exists()


def test_problems_of_every_kind_are_reported_at_once(next_pod: Pod) -> None:
    names = [
        "misspelt backends beside the right ones",
        "boolean that is none",
        "empty passwords",
        "hba with unsafe methods",
        "PCP user and password",
    ]
    expected = []
    for name in names:
        arrange, problems_of_case = CASES[name]
        arrange(next_pod)
        expected += problems_of_case
    result = next_pod.run("run")
    assert result.returncode == 78
    assert_all_named(expected, problems(result.stderr))


def test_a_busy_port_is_named(next_pod: Pod) -> None:
    before = next_pod.fingerprint()
    with socket.create_server(("127.0.0.1", next_pod.port)):
        result = next_pod.run("run")
    assert result.returncode == 78
    what = f"127.0.0.1 port {next_pod.port}: the port is in use"
    assert_all_named(
        [Problem("PGPOOL_PARAMS_PORT", what, "choose another port with PGPOOL_PARAMS_PORT", "environment")],
        problems(result.stderr),
    )
    assert next_pod.fingerprint() == before


def test_a_busy_port_of_pcp_is_named(next_pod: Pod) -> None:
    before = next_pod.fingerprint()
    with socket.create_server(("127.0.0.1", next_pod.pcp_port)):
        result = next_pod.run("run", PGPOOL_PARAMS_PCP_LISTEN_ADDRESSES="127.0.0.1, 192.0.2.1")
    assert result.returncode == 78
    assert_all_named(
        [
            Problem("PGPOOL_PARAMS_PCP_LISTEN_ADDRESSES", "'192.0.2.1' is no address of this host", "or * for all"),
            Problem("PGPOOL_PARAMS_PCP_PORT", f"127.0.0.1 port {next_pod.pcp_port}: the port is in use", "choose"),
        ],
        problems(result.stderr),
    )
    assert next_pod.fingerprint() == before


def test_a_run_directory_that_is_not_there_is_named(pod: Pod) -> None:
    pod.run_dir.rmdir()
    result = pod.run("run")
    assert result.returncode in {73, 78}
    assert str(pod.run_dir) in result.stderr
    assert not pod.run_dir.exists()


def test_a_run_directory_that_cannot_be_written_ends_with_73(pod: Pod) -> None:
    pod.run_dir.chmod(0o555)
    result = pod.run("run")
    assert result.returncode == 73, result.stderr
    assert str(pod.run_dir) in result.stderr
    assert "fsGroup" in result.stderr or "emptyDir" in result.stderr
    assert not list(pod.run_dir.iterdir())


def test_a_run_directory_that_cannot_be_reached_ends_with_73(pod: Pod) -> None:
    closed = pod.directory / "closed"
    closed.mkdir(mode=0)
    try:
        result = pod.run("run", PGPOOL_RUN_DIR=str(closed / "run"))
    finally:
        closed.chmod(0o700)
    assert result.returncode == 73, result.stderr
    assert f"{closed}/run cannot be reached: Permission denied" in result.stderr


def test_a_directory_in_the_way_of_the_pid_file_ends_with_73(pod: Pod) -> None:
    (pod.run_dir / "pgpool.pid").mkdir()
    before = pod.fingerprint()
    result = pod.run("run")
    assert result.returncode == 73, result.stderr
    assert f"Is a directory ({pod.run_dir}/pgpool.pid)" in result.stderr
    assert pod.fingerprint() == before


def test_a_file_in_the_way_of_generations_ends_with_73(pod: Pod) -> None:
    (pod.run_dir / "generations").write_text("not a directory")
    result = pod.run("run")
    assert result.returncode == 73, result.stderr
    assert "PGPOOL_RUN_DIR" in result.stderr
    assert not (pod.run_dir / "current").exists()
    assert_nobody_listens(pod.port)


def test_a_directory_in_the_way_of_current_ends_with_73(pod: Pod) -> None:
    (pod.run_dir / "current/full").mkdir(parents=True)
    result = pod.run("run")
    assert result.returncode == 73, result.stderr
    assert not [path.name for path in pod.run_dir.iterdir() if path.name.startswith(".new-")]


def test_no_pgpool_on_the_path_ends_with_127(pod: Pod) -> None:
    before = pod.fingerprint()
    result = run_entrypoint(["run"], {**pod.environment, "PATH": "/nowhere"})
    assert result.returncode == 127
    assert "/nowhere" in result.stderr
    assert pod.fingerprint() == before


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (b"#!/bin/sh\nexit 0\n", 0o644),
        (b"\x7fELF no program", 0o755),
        (b"#!/nowhere/sh\n", 0o755),
        (b"#!/bin/sh\necho 'pgpool-II version 3.7.1 (amefuriboshi)'\n", 0o755),
    ],
    ids=["not executable", "no program", "no interpreter", "unknown version"],
)
def test_a_pgpool_that_cannot_be_executed_ends_with_126(pod: Pod, content: bytes, mode: int) -> None:
    directory = pod.directory / "bin"
    directory.mkdir()
    program = directory / "pgpool"
    program.write_bytes(content)
    program.chmod(mode)
    before = pod.fingerprint()
    result = run_entrypoint(["run"], {**pod.environment, "PATH": str(directory)})
    assert result.returncode == 126, result.stderr
    assert "pgpool" in result.stderr
    assert "Traceback" not in result.stderr
    assert pod.fingerprint() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["--nonsense"],
        ["run", "--nonsense"],
        ["run", "now"],
        ["check", "--", "-d"],
        ["render"],
        ["probe"],
        ["probe", "well"],
        ["settings", "--format", "yaml"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_64(pod: Pod, arguments: list[str]) -> None:
    result = pod.run(*arguments)
    assert result.returncode == 64
    assert "usage: pgpool-entrypoint" in result.stderr
    assert result.stdout == ""


def problems(stderr: str) -> list[Problem]:
    """The problems as printed, every line of the report accounted for."""
    report = stderr.partition("nothing was started or changed\n")[2]
    found = [Problem(**match.groupdict()) for match in PROBLEM.finditer(report)]
    assert len(report.splitlines()) == 3 * len(found), stderr
    return found


def assert_all_named(expected: list[Problem], found: list[Problem]) -> None:
    """Each expected problem once, and no other."""
    left = list(found)
    for wanted in expected:
        matches = [each for each in left if wanted.setting == each.setting and _contains(each, wanted)]
        assert matches, f"{wanted} is not among {left}"
        left.remove(matches[0])
    assert not left, f"not expected: {left}"


def _contains(problem: Problem, pieces: Problem) -> bool:
    return all(piece in text for piece, text in zip(pieces, problem, strict=True))


def assert_nobody_listens(port: int) -> None:
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40
    assert sum(len(expected) > 1 for _, expected in CASES.values()) >= 10
    assert not Path("run").exists()
