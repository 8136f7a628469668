"""What boot writes down for the sidecar."""

import json
import stat
from pathlib import Path

import pytest

from entrypoint.catalogue import Catalogue
from entrypoint.errors import ConfigurationError
from entrypoint.inputs import INPUTS, Inputs, gather, read_inputs, run_directory

ENV = {
    "PGPOOL_BACKENDS": "a=h",
    "PGPOOL_PCP_PASSWORD": "pcp pass 100%",
    "PGPOOL_PARAMS_WD_AUTHKEY": "watchdog pass 100%",
    "PGPOOL_PARAMS_MAX_POOL": "2",
    "PGPOOL_PARAMS_FAILOVER_COMMAND": "a command's 100%",
    "PGPOOLKEYFILE": "/etc/pgpool/key",
    "PGPOOL_CHECK_USER_FILE": "/etc/pgpool/users/check/username",
    "PGPOOL_PORT": "tcp://10.96.0.7:9999",
    "PGPASSWORD": "somebody's pass 100%",
    "HOME": "/",
}
NUMBERS = {"port": 9999, "pcp_port": 9898}
WHOLE = {"pgpool": "4.6.1", "environment": {}, "withheld": [], "pcp_user": "pgpool", "pcp_password": "P", **NUMBERS}


def gathered(env: dict[str, str], catalogue: Catalogue) -> Inputs:
    return gather(env, catalogue, "4.6.1", numbers={**NUMBERS, "max_pool": 4}, pcp_user="pgpool")


def test_only_our_own_variables_are_gathered_and_no_secret(catalogue: Catalogue) -> None:
    assert gathered(ENV, catalogue) == Inputs(
        pgpool="4.6.1",
        environment={
            "PGPOOLKEYFILE": "/etc/pgpool/key",
            "PGPOOL_BACKENDS": "a=h",
            "PGPOOL_CHECK_USER_FILE": "/etc/pgpool/users/check/username",
            "PGPOOL_PARAMS_FAILOVER_COMMAND": "a command's 100%",
            "PGPOOL_PARAMS_MAX_POOL": "2",
        },
        withheld=("PGPOOL_PARAMS_WD_AUTHKEY", "PGPOOL_PCP_PASSWORD"),
        port=9999,
        pcp_port=9898,
        pcp_user="pgpool",
        pcp_password="PGPOOL_PCP_PASSWORD",
    )


def test_the_file_of_a_secret_is_no_secret(catalogue: Catalogue) -> None:
    inputs = gathered({"PGPOOL_PCP_PASSWORD_FILE": "/etc/pcp"}, catalogue)
    assert inputs.environment == {"PGPOOL_PCP_PASSWORD_FILE": "/etc/pcp"}
    assert inputs.withheld == ()


def test_what_is_written_is_read_back_and_shows_no_secret(tmp_path: Path, catalogue: Catalogue) -> None:
    inputs = gathered({**ENV, "PGPOOL_CHECK_USER": "prüfer\n'\"\\ 100%"}, catalogue)
    inputs.write(tmp_path)
    assert read_inputs(tmp_path) == inputs
    content = (tmp_path / INPUTS).read_text()
    assert "pass 100%" not in content
    assert "prüfer" in content
    assert stat.S_IMODE((tmp_path / INPUTS).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [INPUTS]


def test_equal_inputs_are_written_alike(tmp_path: Path, catalogue: Catalogue) -> None:
    gathered(ENV, catalogue).write(tmp_path)
    first = (tmp_path / INPUTS).read_bytes()
    gathered(dict(reversed(ENV.items())), catalogue).write(tmp_path)
    assert (tmp_path / INPUTS).read_bytes() == first
    assert first.endswith(b"}\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"{}",
        b"\xff\xfe100%",
        *(json.dumps({name: WHOLE[name] for name in WHOLE if name != missing}).encode() for missing in WHOLE),
        json.dumps({**WHOLE, "environment": "text"}).encode(),
        json.dumps({**WHOLE, "withheld": None}).encode(),
        json.dumps({**WHOLE, "port": "x"}).encode(),
        json.dumps({**WHOLE, "pcp_port": None}).encode(),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INPUTS).write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011  # json's own messages are many
        read_inputs(tmp_path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_inputs(tmp_path)


# --- where it stands ------------------------------------------------------------------------------------------------


def test_the_run_directory_is_given_or_read_from_a_file_or_the_default(tmp_path: Path) -> None:
    file = tmp_path / "run_dir"
    file.write_text("/run/from a file\n")
    assert run_directory({}) == Path("/run/pgpool")
    assert run_directory({"PGPOOL_RUN_DIR": "/run/x"}) == Path("/run/x")
    assert run_directory({"PGPOOL_RUN_DIR_FILE": str(file)}) == Path("/run/from a file")


def test_a_run_directory_given_twice_is_refused_as_boot_does() -> None:
    with pytest.raises(ConfigurationError, match="is set, and so is PGPOOL_RUN_DIR"):
        run_directory({"PGPOOL_RUN_DIR": "/run/x", "PGPOOL_RUN_DIR_FILE": "/nowhere"})


def test_nothing_else_of_the_environment_matters() -> None:
    broken = {"PGPOOL_NOPE": "1", "PGPOOL_BACKENDS": "", "PGPOOLKEYFILE": "/nowhere", "PGPOOL_PARAMS_PORT": "x"}
    assert run_directory(broken) == Path("/run/pgpool")


@pytest.mark.parametrize("value", ["", "run", "\0"])
def test_a_run_directory_that_is_no_path_is_told(tmp_path: Path, value: str) -> None:
    file = tmp_path / "run_dir"
    file.write_text(value)
    for env in ({"PGPOOL_RUN_DIR": value}, {"PGPOOL_RUN_DIR_FILE": str(file)}):
        with pytest.raises(ConfigurationError) as raised:
            run_directory(env)
        (problem,) = raised.value.problems
        assert (problem.setting, problem.origin) == ("PGPOOL_RUN_DIR", env.get("PGPOOL_RUN_DIR_FILE", "environment"))
        assert problem.what == "is empty" if not value else "is not an absolute path" in problem.what


@pytest.mark.parametrize(("content", "what"), [(None, "{file} does not exist"), (b"/run/\xff", "is not UTF-8 text")])
def test_a_file_that_does_not_name_it_is_told(tmp_path: Path, content: bytes | None, what: str) -> None:
    file = tmp_path / "run_dir"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError) as raised:
        run_directory({"PGPOOL_RUN_DIR_FILE": str(file)})
    (problem,) = raised.value.problems
    assert (problem.setting, problem.what) == ("PGPOOL_RUN_DIR_FILE", what.format(file=file))
