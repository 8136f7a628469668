"""The environment read against the table."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.backends import parse_backends
from entrypoint.catalogue import Catalogue, InvalidValueError, load_catalogue
from entrypoint.environment import is_ours, is_secret, load
from entrypoint.errors import ConfigurationError, Problem, Problems
from entrypoint.secret import Secret
from entrypoint.settings import TABLE, Settings
from entrypoint.sources import Reader
from entrypoint.values import Patroni
from support.secret_volume import SecretVolume

CATALOGUE = load_catalogue("4.6")
BACKENDS = "a=h"
LINE_END = "contains a line end or another control character"
SECRET = "pcp pass 100%"


def read(**env: str) -> Settings:
    """Settings without a problem."""
    problems = Problems()
    settings = load({"PGPOOL_BACKENDS": BACKENDS, **env}, CATALOGUE, Reader(), problems)
    problems.raise_if_any()
    return settings


def problems_of(**env: str) -> list[Problem]:
    problems = Problems()
    load({"PGPOOL_BACKENDS": BACKENDS, **env}, CATALOGUE, Reader(), problems)
    return list(problems._found)  # noqa: SLF001


def problem(**env: str) -> tuple[str, str, str, str]:
    (found,) = problems_of(**env)
    return found.setting, found.origin, found.what, found.remedy


def test_only_the_backends_are_required() -> None:
    settings = read()
    assert settings.backends == parse_backends(BACKENDS)
    assert settings.users_dir == Path("/etc/pgpool/users")
    assert settings.check_user == "sr_check"
    assert (settings.key_file, settings.hba_file, settings.tls_dir) == (None, None, None)
    assert (settings.pcp_user, settings.pcp_password) == ("pgpool", None)
    assert settings.patroni == Patroni(enabled=False)
    assert settings.run_dir == Path("/run/pgpool")
    assert settings.params == ()
    assert list(settings.found) == ["PGPOOL_BACKENDS"]


def test_a_required_setting_that_is_missing_is_told(catalogue: Catalogue) -> None:
    problems = Problems()
    load({}, catalogue, Reader(), problems)
    (found,) = problems._found  # noqa: SLF001
    assert (found.setting, found.origin, found.what) == ("PGPOOL_BACKENDS", "not set", "is required")


def test_every_name_is_unique_and_every_default_is_valid() -> None:
    assert len({setting.name for setting in TABLE}) == len(TABLE)
    for setting in TABLE:
        assert setting.default is None or setting.parse(setting.default) is not None
        assert not (setting.required and setting.default)


DURATIONS = ("PGPOOL_SIDECAR_RESTART_SPREAD", "PGPOOL_SIDECAR_REREAD", "PGPOOL_SIDECAR_REMOVAL_GRACE")
PATHS = ("PGPOOL_USERS_DIR", "PGPOOLKEYFILE", "PGPOOL_HBA_FILE", "PGPOOL_TLS_DIR", "PGPOOL_RUN_DIR")
NOT_ABSOLUTE = ("is not an absolute path", "begin it with /")
NO_CONTROL = (LINE_END, "give the name alone")
NO_PCP_USER = (
    "is not a PCP user name",
    "use at most 63 letters, digits, '.', '_' or '-', such as pgpool",
)
NO_PCP_PASSWORD = (LINE_END, "choose another password")
LONG_PCP_PASSWORD = ("is longer than 120 bytes, which the pcp tools cannot read", "choose a shorter password")
NO_PATRONI = ("is neither on, off nor a list of URLs", "write on, off, or http://HOST:8008 for each node")
NO_ADDRESS = ("is not an address", "write [HOST]:PORT, such as :9719 or 127.0.0.1:9719")
NO_POLICY = ("is not a restart policy", "write auto or never")
NO_DUTY = ("is not what can be done about nodes", "write keep, watch or off")
NO_LOG_FORMAT = ("is not a log format", "write logfmt or json")
SHORT_PERIOD = ("is too short", "write at least 100ms")
NO_DURATION = ("is not a duration", "write a whole number with a unit: ms, s, min or h")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *((name, value, Path(value)) for name in PATHS for value in ("/a", "/a b/100%", "/ü", "/a/../b")),
        *(("PGPOOL_CHECK_USER", value, value) for value in ("sr_check", "a b", "ü 100%", "it's", 'a"b', "a:b\\c")),
        *(("PGPOOL_PCP_USER", value, value) for value in ("pgpool", "0", "_", "a.b-c_d", "x" * 63)),
        ("PGPOOL_PATRONI", "on", Patroni(enabled=True)),
        ("PGPOOL_PATRONI", "off", Patroni(enabled=False)),
        ("PGPOOL_PATRONI", "http://p1:8008", Patroni(enabled=True, urls=("http://p1:8008",))),
        (
            "PGPOOL_PATRONI",
            " http://p1:8008/, https://[::1]:8008\nhttp://p3 ",
            Patroni(enabled=True, urls=("http://p1:8008", "https://[::1]:8008", "http://p3")),
        ),
    ],
)
def test_a_value_is_read(name: str, value: str, expected: object) -> None:
    field = name.removeprefix("PGPOOL_").lower() if name != "PGPOOLKEYFILE" else "key_file"
    assert getattr(read(**{name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *((name, value, NOT_ABSOLUTE) for name in PATHS for value in ("a", "./a", " /a", "~/a", "file:///a", "\n")),
        *(("PGPOOL_CHECK_USER", value, NO_CONTROL) for value in ("a\n", "a\tb", "\r", "a\x00", "\x7f", "a\u2028b")),
        *(
            ("PGPOOL_PCP_USER", value, NO_PCP_USER)
            for value in ("a b", "a:b", "-a", ".a", "ü", "a\n", "x" * 64, "100%", "a\\b", "'")
        ),
        *(
            ("PGPOOL_PATRONI", value, NO_PATRONI)
            for value in (
                "ON",
                "true",
                "1",
                ",",
                " ",
                "http://",
                "p1:8008",
                "ftp://p1",
                "http://p1/path",
                "http://u:p@p1",
            )
        ),
        *(
            ("PGPOOL_SIDECAR_HTTP", value, NO_ADDRESS)
            for value in ("9719", ":0", ":65536", ":", "h:", "::1:9719", "[h]:1", ":1\n", "a b:1", ":٣")
        ),
        *(("PGPOOL_SIDECAR_RESTART", value, NO_POLICY) for value in ("Auto", "always", " auto", "on")),
        *(("PGPOOL_SIDECAR_NODES", value, NO_DUTY) for value in ("on", "Keep", "keep\n")),
        *(("PGPOOL_SIDECAR_LOG", value, NO_LOG_FORMAT) for value in ("JSON", "text", " json", "json\n")),
        *(("PGPOOL_SIDECAR_DATABASE", value, NO_CONTROL) for value in ("a\n", "a\tb", "a\x00")),
        *(
            (name, value, NO_DURATION)
            for name in DURATIONS
            for value in ("1", "s", "-1s", "1.5s", "1 s", "1m", "1S", "1s\n", "1d", "\u0661s", "1234567890s")
        ),
        *(("PGPOOL_SIDECAR_REREAD", value, SHORT_PERIOD) for value in ("0s", "0h", "99ms")),
    ],
)
def test_a_bad_value_is_refused_with_the_value_and_a_remedy(name: str, value: str, expected: tuple[str, str]) -> None:
    what, remedy = expected
    # People put the key itself where its path belongs, and passwords into URLs.
    hidden = name in {"PGPOOLKEYFILE", "PGPOOL_PATRONI"} or "://" in value
    shown = what if hidden else f"{value!r} {what}"
    assert problem(**{name: value}) == (name, "environment", shown, remedy)


@pytest.mark.parametrize("setting", [setting.name for setting in TABLE])
def test_what_came_from_a_file_is_never_repeated(tmp_path: Path, setting: str) -> None:
    (tmp_path / "wrong").write_text("hunter2 100%\tin the wrong file")
    problems = Problems()
    load({f"{setting}_FILE": str(tmp_path / "wrong")}, CATALOGUE, Reader(), problems)
    with pytest.raises(ConfigurationError) as raised:
        problems.raise_if_any()
    assert f"({tmp_path}/wrong)" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_a_file_with_the_key_in_place_of_its_path_is_told_how_to_name_it(tmp_path: Path) -> None:
    (tmp_path / "aes.key").write_text("the key 100%\n")
    assert problem(PGPOOLKEYFILE_FILE=str(tmp_path / "aes.key")) == (
        "PGPOOLKEYFILE",
        str(tmp_path / "aes.key"),
        "is not an absolute path",
        "to name that file itself, set PGPOOLKEYFILE to its path",
    )


@pytest.mark.parametrize("value", ["a", "pass word 100%", "ü:\\'\"", "x" * 120])
def test_a_pcp_password_is_a_secret(value: str) -> None:
    assert read(PGPOOL_PCP_PASSWORD=value).pcp_password == Secret(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("pass 100%\n", NO_PCP_PASSWORD),
        ("pass\t100 %", NO_PCP_PASSWORD),
        ("x" * 121, LONG_PCP_PASSWORD),
        ("ü" * 61, LONG_PCP_PASSWORD),
    ],
)
def test_a_bad_pcp_password_is_refused_without_showing_it(value: str, expected: tuple[str, str]) -> None:
    assert problem(PGPOOL_PCP_PASSWORD=value) == ("PGPOOL_PCP_PASSWORD", "environment", *expected)


@pytest.mark.parametrize("setting", [setting.name for setting in TABLE])
def test_every_setting_that_is_set_but_empty_is_an_error(setting: str) -> None:
    expected = (setting, "environment", "is empty", "give it a value, or do not set it at all")
    assert problem(**{setting: ""}) == expected


# --- NAME_FILE ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("newline", ["", "\n"])
@pytest.mark.parametrize("setting", [setting.name for setting in TABLE])
def test_every_setting_can_stand_in_a_file(tmp_path: Path, setting: str, newline: str) -> None:
    values = {
        "PGPOOL_BACKENDS": "b=i",
        "PGPOOL_PATRONI": "on",
        "PGPOOL_SIDECAR_HTTP": ":1",
        "PGPOOL_SIDECAR_RESTART": "never",
        "PGPOOL_COMPAT": "none",
        "PGPOOL_SIDECAR_NODES": "off",
        "PGPOOL_SIDECAR_LOG": "json",
    }
    value = values.get(setting, "5s" if setting in DURATIONS else "/a" if setting in PATHS else "other")
    (tmp_path / "value").write_text(value + newline)
    problems = Problems()
    env = {"PGPOOL_BACKENDS": BACKENDS, f"{setting}_FILE": str(tmp_path / "value")}
    if setting == "PGPOOL_BACKENDS":
        del env["PGPOOL_BACKENDS"]
    settings = load(env, CATALOGUE, Reader(), problems)
    problems.raise_if_any()
    assert settings.found[f"{setting}_FILE"].value == value
    row = next(row for row in TABLE if row.name == setting)
    assert settings.origin(row) == str(tmp_path / "value")
    assert settings != read()


def test_only_one_newline_is_taken_off_a_file(tmp_path: Path) -> None:
    (tmp_path / "user").write_text("app 100%\n\n")
    path = str(tmp_path / "user")
    assert problem(PGPOOL_CHECK_USER_FILE=path) == (
        "PGPOOL_CHECK_USER",
        path,
        LINE_END,
        "give the name alone",
    )


def test_a_setting_and_its_file_at_once_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from file 100%")
    env = {"PGPOOL_PCP_PASSWORD": SECRET, "PGPOOL_PCP_PASSWORD_FILE": str(tmp_path / "password")}
    assert problem(**env) == (
        "PGPOOL_PCP_PASSWORD_FILE",
        "environment",
        "is set, and so is PGPOOL_PCP_PASSWORD",
        "keep one of the two",
    )


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"ol\xe9 100%", "is not UTF-8 text"),
        (b"\xff\xfea\x00", "is not UTF-8 text"),
    ],
)
def test_a_file_without_text_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    (tmp_path / "user").write_bytes(content)
    _, origin, told, _ = problem(PGPOOL_CHECK_USER_FILE=str(tmp_path / "user"))
    assert (origin, told) == (str(tmp_path / "user"), what)


def test_a_file_that_is_not_there_is_told_once(tmp_path: Path) -> None:
    assert problem(PGPOOL_CHECK_USER_FILE=f"{tmp_path}/none") == (
        "PGPOOL_CHECK_USER_FILE",
        "environment",
        f"{tmp_path}/none does not exist",
        "check the path and the volume mounts",
    )


def test_a_required_setting_whose_file_is_not_there_is_told_once(tmp_path: Path, catalogue: Catalogue) -> None:
    problems = Problems()
    load({"PGPOOL_BACKENDS_FILE": f"{tmp_path}/none"}, catalogue, Reader(), problems)
    assert [each.setting for each in problems._found] == ["PGPOOL_BACKENDS_FILE"]  # noqa: SLF001


def test_the_path_of_a_file_is_absolute() -> None:
    assert problem(PGPOOL_CHECK_USER_FILE="user") == (
        "PGPOOL_CHECK_USER_FILE",
        "environment",
        "'user' is not an absolute path",
        "begin it with /",
    )


@pytest.mark.parametrize(
    "name", ["PGPOOL_PCP_PASSWORD_FILE", "PGPOOL_PARAMS_WD_AUTHKEY_FILE", "PGPOOL_PARAMS_FAILOVER_COMMAND_FILE"]
)
def test_a_password_given_in_place_of_its_file_is_not_shown(name: str) -> None:
    assert problem(**{name: SECRET}) == (name, "environment", "is not an absolute path", "begin it with /")


def test_the_check_user_can_come_from_a_mounted_secret(tmp_path: Path) -> None:
    SecretVolume(tmp_path / "v").write({"username": b"check 1%\n", "password": b"pass 100%"})
    assert read(PGPOOL_CHECK_USER_FILE=f"{tmp_path}/v/username").check_user == "check 1%"


# --- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("PGPOOL_BACKEND", "did you mean PGPOOL_BACKENDS?"),
        ("PGPOOL_USER_DIR", "did you mean PGPOOL_USERS_DIR?"),
        ("PGPOOL_CHECK_USERS_FILE", "did you mean PGPOOL_CHECK_USER_FILE?"),
        ("PGPOOLKEYFLE", "did you mean PGPOOLKEYFILE?"),
        ("PGPOOL_KEY_FILE", "did you mean PGPOOLKEYFILE?"),
        ("PGPOOL_PCP_PASWORD", "did you mean PGPOOL_PCP_PASSWORD?"),
        ("PGPOOL_NUM_INIT_CHILDREN", "a parameter of pgpool.conf is set as PGPOOL_PARAMS_NUM_INIT_CHILDREN"),
        ("PGPOOL_PORT", "a parameter of pgpool.conf is set as PGPOOL_PARAMS_PORT"),
        ("PGPOOL_ENABLE_LDAP", "`pgpool-entrypoint settings` lists them all"),
        ("PGPOOL_", "`pgpool-entrypoint settings` lists them all"),
        ("PGPOOL_backends", "`pgpool-entrypoint settings` lists them all"),
    ],
)
def test_an_unknown_name_is_an_error_with_a_suggestion(name: str, remedy: str) -> None:
    assert problem(**{name: "9999 %"}) == (name, "environment", "is not a setting", remedy)


def test_the_value_of_an_unknown_name_is_never_shown() -> None:
    (found,) = problems_of(PGPOOL_PCP_PASWORD=SECRET)
    assert SECRET not in str(found)


@pytest.mark.parametrize(
    "name", ["PGPASSWORD", "PGHOST", "PGPORT", "PATH", "POSTGRES_PASSWORD", "pgpool_backends", "PGPOOLX"]
)
def test_names_of_others_are_left_alone(name: str) -> None:
    assert list(read(**{name: "a"}).found) == ["PGPOOL_BACKENDS"]


def service_links(prefix: str) -> dict[str, str]:
    """What Kubernetes gives a pod beside a Service with this name (pkg/kubelet/envvars)."""
    links = {f"{prefix}_SERVICE_HOST": "10.96.0.7", f"{prefix}_SERVICE_PORT": "9999"}
    links |= {f"{prefix}_SERVICE_PORT_POSTGRES": "9999", f"{prefix}_SERVICE_PORT_HTTP_METRICS": "9719"}
    links[f"{prefix}_PORT"] = "tcp://10.96.0.7:9999"
    for port, protocol in ((9999, "tcp"), (9719, "tcp"), (53, "udp"), (36412, "sctp")):
        name = f"{prefix}_PORT_{port}_{protocol.upper()}"
        links[name] = f"{protocol}://10.96.0.7:{port}"
        links |= {f"{name}_PROTO": protocol, f"{name}_PORT": str(port), f"{name}_ADDR": "10.96.0.7"}
    return links


@pytest.mark.parametrize(
    ("name", "value"),
    [
        link
        for service in ("PGPOOL", "PGPOOL_METRICS", "PGPOOL_RW", "PGPOOL_1", "PGPOOL_SIDECAR", "PGPOOL_PORT")
        for link in service_links(service).items()
    ],
)
def test_service_links_are_no_settings(name: str, value: str) -> None:
    assert not is_ours(name, value)
    assert list(read(**{name: value}).found) == ["PGPOOL_BACKENDS"]


@pytest.mark.parametrize(
    ("name", "value"), [("PGPOOL_PORT", "9999"), ("PGPOOL_PORT", "10.96.0.7:9999"), ("PGPOOL_METRICS_PORT", "1")]
)
def test_a_port_that_is_no_link_is_an_error(name: str, value: str) -> None:
    assert problem(**{name: value})[:3] == (name, "environment", "is not a setting")


@pytest.mark.parametrize("setting", [setting.name for setting in TABLE])
def test_no_setting_is_ever_taken_for_a_service_link(setting: str) -> None:
    for name in (setting, f"{setting}_FILE"):
        assert is_ours(name, "tcp://10.96.0.7:9999")


@given(st.text("_ABCPORTSEVIHDU019", max_size=20).map("PGPOOL_{}".format), st.text(max_size=10))
def test_every_name_is_read_ignored_or_told(name: str, value: str) -> None:
    known = {setting.name for setting in TABLE}
    names = {problem.setting for problem in problems_of(**{name: value})}
    if is_ours(name, value) and name not in known:
        assert names == {name}
    elif not is_ours(name, value):
        assert names == set()


# --- parameters -----------------------------------------------------------------------------------------------------


def test_parameters_are_taken_in_any_case_with_index_and_from_files(tmp_path: Path) -> None:
    (tmp_path / "value").write_text("'48'\n".replace("'", ""))
    settings = read(
        PGPOOL_PARAMS_NUM_INIT_CHILDREN_FILE=str(tmp_path / "value"),
        PGPOOL_PARAMS_max_pool="2",
        PGPOOL_PARAMS_HEALTH_CHECK_PERIOD0="7s",
        PGPOOL_PARAMS_PCP_LISTEN_ADDRESSES="",
    )
    given = {each.assignment.name: (each.assignment.encoded, each.variable, each.origin) for each in settings.params}
    assert given == {
        "num_init_children": ("48", "PGPOOL_PARAMS_NUM_INIT_CHILDREN_FILE", str(tmp_path / "value")),
        "max_pool": ("2", "PGPOOL_PARAMS_max_pool", "environment"),
        "health_check_period0": ("'7s'", "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD0", "environment"),
        "pcp_listen_addresses": ("''", "PGPOOL_PARAMS_PCP_LISTEN_ADDRESSES", "environment"),
    }


def test_a_parameter_whose_own_name_ends_in_file_is_that_parameter(tmp_path: Path) -> None:
    (tmp_path / "value").write_text("/etc/crl %\n")
    direct = read(PGPOOL_PARAMS_SSL_CRL_FILE="/etc/crl %").params
    through = read(PGPOOL_PARAMS_SSL_CRL_FILE_FILE=str(tmp_path / "value")).params
    assert [each.assignment.encoded for each in (*direct, *through)] == ["'/etc/crl %'"] * 2


@pytest.mark.parametrize(
    ("name", "value", "what", "remedy"),
    [
        ("PROT", "1", "pgpool 4.6 has no parameter 'prot'", "did you mean port?"),
        ("PROT_FILE", "/none", "pgpool 4.6 has no parameter 'prot_file'", "see the parameter list in pgpool's manual"),
        ("", "1", "pgpool 4.6 has no parameter ''", "see the parameter list in pgpool's manual"),
        ("PORT", "no number", "'no number' is not a whole number", "give a whole number from 1024 to 65535"),
        ("LOAD_BALANCE_MODE", "maybe", "'maybe' is not a boolean", "write on or off"),
        (
            "RESET_QUERY_LIST",
            "SELECT 'x'",
            "\"SELECT 'x'\" contains a single quote, which pgpool.conf cannot express",
            "change the value; for a command, put it into a script and name that",
        ),
    ],
)
def test_a_bad_parameter_is_refused(name: str, value: str, what: str, remedy: str) -> None:
    assert problem(**{f"PGPOOL_PARAMS_{name}": value}) == (f"PGPOOL_PARAMS_{name}", "environment", what, remedy)


HIDDEN = [
    *("WD_AUTHKEY", "SR_CHECK_PASSWORD", "HEALTH_CHECK_PASSWORD0", "RECOVERY_PASSWORD"),
    *("FAILOVER_COMMAND", "follow_primary_command", "SSL_PASSPHRASE_COMMAND", "IF_UP_CMD"),
]


@pytest.mark.parametrize("name", HIDDEN)
def test_a_bad_parameter_that_may_hold_a_secret_is_not_shown(name: str) -> None:
    (found,) = problems_of(**{f"PGPOOL_PARAMS_{name}": "it's 100% secret"})
    assert found.what == "contains a single quote, which pgpool.conf cannot express"
    assert "100%" not in str(found)


def test_all_problems_are_told_at_once() -> None:
    found = problems_of(
        PGPOOL_BACKENDS="=,a=h:1", PGPOOL_USERS_DIR="x", PGPOOL_PCP_USER="", PGPOOL_NOPE="1", PGPOOL_PARAMS_PORT="x"
    )
    assert sorted(each.setting for each in found) == [
        "PGPOOL_BACKENDS",
        "PGPOOL_BACKENDS",
        "PGPOOL_NOPE",
        "PGPOOL_PARAMS_PORT",
        "PGPOOL_PCP_USER",
        "PGPOOL_USERS_DIR",
    ]


def test_bytes_that_are_no_text_are_told_and_nothing_else_breaks() -> None:
    """os.environ has them as surrogates."""
    for name in ("PGPOOL_RUN_DIR", "PGPOOL_BACKENDS", "PGPOOL_PARAMS_FAILOVER_COMMAND", "PGPOOL_PCP_PASSWORD"):
        assert problem(**{name: "/a\udcff 100%"}) == (name, "environment", "is not UTF-8 text", "correct the value")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("PGPOOL_PCP_PASSWORD", True),
        ("PGPOOL_PCP_PASSWORD_FILE", False),
        ("PGPOOL_PARAMS_WD_AUTHKEY", True),
        ("PGPOOL_PARAMS_wd_authkey", True),
        ("PGPOOL_PARAMS_HEALTH_CHECK_PASSWORD3", True),
        ("PGPOOL_PARAMS_WD_AUTHKEY_FILE", False),
        ("PGPOOL_PARAMS_FAILOVER_COMMAND", False),  # it is not shown, but the sidecar is to have it from inputs.json
        ("PGPOOL_PARAMS_NOPE", False),
        ("PGPOOL_BACKENDS", False),
        ("PGPOOL_NOPE", False),
    ],
)
def test_which_variables_hold_a_secret_themselves(name: str, *, expected: bool) -> None:
    assert is_secret(name, CATALOGUE) is expected


def test_secrets_are_never_in_a_representation() -> None:
    env = {
        "PGPOOL_PCP_PASSWORD": SECRET,
        "PGPOOL_PARAMS_WD_AUTHKEY": "watchdog pass 100%",
        "PGPOOL_PARAMS_FAILBACK_COMMAND": f'curl -u "admin:{SECRET}" http://x',
    }
    settings = read(**env)
    assert {settings.found[name].shown() for name in env} == {"(secret)"}
    assert "pass 100%" not in repr(settings)


def test_a_parser_refuses_by_its_own_error_only() -> None:
    for setting in TABLE:
        if setting.name != "PGPOOL_BACKENDS":
            for value in ("", "\0", "\udcff", "x" * 5000, "9" * 5000):
                try:
                    setting.parse(value)
                except InvalidValueError as error:
                    assert error.remedy  # noqa: PT017
