"""The sidecar's own settings."""

from pathlib import Path

import pytest

from entrypoint.errors import ConfigurationError
from sidecar.options import Options, load_options


def test_by_default_everything_has_a_value() -> None:
    assert load_options({}) == Options(
        run_dir=Path("/run/pgpool"),
        http=("", 9719),
        restart="auto",
        restart_spread=60,
        reread=10,
        removal_grace=600,
        database="postgres",
        nodes="keep",
        log="logfmt",
    )


def test_each_is_taken_from_the_environment() -> None:
    env = {
        "PGPOOL_RUN_DIR": "/run/a b 1%",
        "PGPOOL_SIDECAR_HTTP": "127.0.0.9:1234",
        "PGPOOL_SIDECAR_RESTART": "never",
        "PGPOOL_SIDECAR_RESTART_SPREAD": "5min",
        "PGPOOL_SIDECAR_REREAD": "30s",
        "PGPOOL_SIDECAR_REMOVAL_GRACE": "1h",
        "PGPOOL_SIDECAR_DATABASE": "my db 1%",
        "PGPOOL_SIDECAR_NODES": "watch",
        "PGPOOL_SIDECAR_LOG": "json",
    }
    assert load_options(env) == Options(
        run_dir=Path("/run/a b 1%"),
        http=("127.0.0.9", 1234),
        http_origin="environment",
        restart="never",
        restart_spread=300,
        reread=30,
        removal_grace=3600,
        database="my db 1%",
        nodes="watch",
        log="json",
    )


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("HTTP", ":1", ("", 1)),
        ("HTTP", "127.0.0.1:65535", ("127.0.0.1", 65535)),
        ("HTTP", "[::1]:9719", ("::1", 9719)),
        ("HTTP", "localhost:9719", ("localhost", 9719)),
        ("RESTART", "auto", "auto"),
        ("RESTART", "never", "never"),
        ("DATABASE", "my data 100%", "my data 100%"),
        *(("NODES", value, value) for value in ("keep", "watch", "off")),
        ("LOG", "logfmt", "logfmt"),
        ("LOG", "json", "json"),
        *(
            (name, value, seconds)
            for name in ("RESTART_SPREAD", "REREAD", "REMOVAL_GRACE")
            for value, seconds in (("100ms", 0.1), ("250ms", 0.25), ("1s", 1.0), ("2min", 120.0), ("1h", 3600.0))
        ),
        ("RESTART_SPREAD", "0s", 0.0),
        ("REMOVAL_GRACE", "0s", 0.0),
    ],
)
def test_a_value_is_read(name: str, value: str, expected: object) -> None:
    assert getattr(load_options({f"PGPOOL_SIDECAR_{name}": value}), name.lower()) == expected


def test_each_may_stand_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("json\n")
    assert load_options({"PGPOOL_SIDECAR_LOG_FILE": str(tmp_path / "log")}).log == "json"


def test_the_settings_of_pgpool_are_none_of_its_business() -> None:
    env = {"PGPOOL_BACKENDS": "", "PGPOOL_NOPE": "1", "PGPOOL_PARAMS_PORT": "not a number", "PGPOOLKEYFILE": "/nope"}
    assert load_options(env) == load_options({})


def test_every_problem_is_told_at_once() -> None:
    env = {
        "PGPOOL_RUN_DIR": "relative 1%",
        "PGPOOL_SIDECAR_HTTP": "no address 1%",
        "PGPOOL_SIDECAR_RESTART": "perhaps",
        "PGPOOL_SIDECAR_REREAD": "soon",
        "PGPOOL_SIDECAR_LOG": "xml",
        "PGPOOL_SIDECAR_RESTARTS": "auto",
    }
    with pytest.raises(ConfigurationError) as raised:
        load_options(env)
    assert {problem.setting for problem in raised.value.problems} == env.keys()


@pytest.mark.parametrize("name", ["PGPOOL_SIDECAR_REREAD", "PGPOOL_SIDECAR_LOG", "PGPOOL_RUN_DIR"])
def test_a_setting_and_its_file_at_once_are_a_problem(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError):
        load_options({name: "10s", f"{name}_FILE": str(tmp_path / "x")})
