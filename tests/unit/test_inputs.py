"""What boot writes down for the sidecar."""

import json
import stat
from pathlib import Path

import pytest

from entrypoint.catalogue import Catalogue
from entrypoint.inputs import INPUTS, Inputs, gather, read_inputs

ENV = {
    "PGPOOL_BACKENDS": "a=h",
    "PGPOOL_PCP_PASSWORD": "pcp pass 100%",
    "PGPOOL_PARAMS_WD_AUTHKEY": "watchdog pass 100%",
    "PGPOOL_PARAMS_MAX_POOL": "2",
    "PGPOOLKEYFILE": "/etc/pgpool/key",
    "PGPOOL_CHECK_USER_FILE": "/etc/pgpool/users/check/username",
    "PGPOOL_PORT": "tcp://10.96.0.7:9999",
    "PGPASSWORD": "somebody's pass 100%",
    "HOME": "/",
}


def test_only_our_own_variables_are_gathered_and_no_secret(catalogue: Catalogue) -> None:
    assert gather(ENV, catalogue, "4.6.1") == Inputs(
        "4.6.1",
        {
            "PGPOOLKEYFILE": "/etc/pgpool/key",
            "PGPOOL_BACKENDS": "a=h",
            "PGPOOL_CHECK_USER_FILE": "/etc/pgpool/users/check/username",
            "PGPOOL_PARAMS_MAX_POOL": "2",
        },
        ("PGPOOL_PARAMS_WD_AUTHKEY", "PGPOOL_PCP_PASSWORD"),
    )


def test_the_file_of_a_secret_is_no_secret(catalogue: Catalogue) -> None:
    gathered = gather({"PGPOOL_PCP_PASSWORD_FILE": "/etc/pcp"}, catalogue, "4.6.1")
    assert gathered.environment == {"PGPOOL_PCP_PASSWORD_FILE": "/etc/pcp"}
    assert gathered.withheld == ()


def test_what_is_written_is_read_back_and_shows_no_secret(tmp_path: Path, catalogue: Catalogue) -> None:
    inputs = gather({**ENV, "PGPOOL_CHECK_USER": "prüfer\n'\"\\ 100%"}, catalogue, "4.6.1")
    inputs.write(tmp_path)
    assert read_inputs(tmp_path) == inputs
    content = (tmp_path / INPUTS).read_text()
    assert "pass 100%" not in content
    assert "prüfer" in content
    assert stat.S_IMODE((tmp_path / INPUTS).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [INPUTS]


def test_equal_inputs_are_written_alike(tmp_path: Path, catalogue: Catalogue) -> None:
    gather(ENV, catalogue, "4.6.1").write(tmp_path)
    first = (tmp_path / INPUTS).read_bytes()
    gather(dict(reversed(ENV.items())), catalogue, "4.6.1").write(tmp_path)
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
        json.dumps({"pgpool": "4.6.1", "environment": {}}).encode(),
        json.dumps({"pgpool": "4.6.1", "environment": "text", "withheld": []}).encode(),
        json.dumps({"pgpool": "4.6.1", "environment": {}, "withheld": None}).encode(),
    ],
)
def test_what_is_not_ours_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INPUTS).write_bytes(content)
    with pytest.raises(ValueError):  # noqa: PT011  # json's own messages are many
        read_inputs(tmp_path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_inputs(tmp_path)
