"""The rules that span settings."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint import defaults
from entrypoint.catalogue import load_catalogue
from entrypoint.errors import Problem
from support.secret_volume import SecretVolume
from unit.conftest import Site

KEY = "key 100%"


def told(problem: Problem) -> tuple[str, str, str, str]:
    return problem.setting, problem.origin, problem.what, problem.remedy


# --- users ----------------------------------------------------------------------------------------------------------


def test_roles_are_sorted_whatever_the_files_are_called(site: Site) -> None:
    site.user("a/username", "zoe")
    site.user("a/password", "zoe pass 100%")
    assert [each.role for each in site.resolve().model.credentials] == ["n8n", "sr_check", "zoe"]


def test_a_role_with_two_passwords_is_refused(site: Site) -> None:
    site.user("app/username", "n8n\n")
    site.user("app/password", "other pass 100%")
    assert told(site.problem()) == (
        "role 'n8n'",
        f"{site.users}/app/password",
        f"has a password in {site.users}/n8n already",
        "keep one of the two",
    )


@pytest.mark.parametrize(
    ("role", "what"),
    [
        ("", "has an empty name"),
        ("r" * 64, "is longer than 63 bytes, where PostgreSQL cuts names"),
        ("ü" * 32, "is longer than 63 bytes, where PostgreSQL cuts names"),
        ("a\nb:TEXTx", "contains a newline"),
        ("a\r", "contains a carriage return"),
        ("a\0", "contains a NUL character"),
    ],
)
def test_a_role_that_pool_passwd_cannot_hold_is_refused(site: Site, role: str, what: str) -> None:
    site.user("app/username", role)
    site.user("app/password", "app pass 100%")
    problem = site.problem()
    assert (problem.setting, problem.origin, problem.what) == (f"role {role!r}", f"{site.users}/app/password", what)


@pytest.mark.parametrize("role", ["r" * 63, "a b", "a:b", "\\", "'; --", "#", "ü", "postgres"])
def test_any_other_role_is_taken(site: Site, role: str) -> None:
    site.user("app/username", role)
    site.user("app/password", "app pass 100%")
    assert role in [each.role for each in site.resolve().model.credentials]


HASH = "is a hash as PostgreSQL stores it; SCRAM needs the password itself"


@pytest.mark.parametrize(
    ("password", "what"),
    [
        ("", "is empty"),
        ("pass 100%\n\n", "contains a newline"),
        ("pass\n100 %", "contains a newline"),
        ("pass 100%\r\n", "contains a carriage return"),
        ("pass\0 100%", "contains a NUL character"),
        ("md50123456789abcdef0123456789abcdef", HASH),
        ("SCRAM-SHA-256$4096:c2FsdA==$c3RvcmVk:c2VydmVy", HASH),
        ("x 100%" + "x" * 119, "has 125 bytes; pgpool cuts entries after 124"),
        ("%" + " ü" * 42, "has 127 bytes; pgpool cuts entries after 124"),
    ],
)
def test_a_password_that_cannot_work_is_refused_without_showing_it(site: Site, password: str, what: str) -> None:
    site.user("n8n", password)
    problem = site.problem()
    assert (problem.setting, problem.origin, problem.what) == ("password of role 'n8n'", f"{site.users}/n8n", what)
    assert password == "" or password not in str(problem)


def test_encrypted_passwords_are_shorter(site: Site) -> None:
    key = str(site.file("key", KEY))
    site.user("n8n", "x" * 79)
    site.resolve(PGPOOLKEYFILE=key)
    site.user("n8n", "x" * 80)
    site.resolve()
    what = "has 80 bytes; pgpool cuts entries after 79 when they are encrypted"
    assert told(site.problem(PGPOOLKEYFILE=key))[2] == what


def test_the_check_roles_password_is_encrypted_even_without_a_key_and_so_as_short(site: Site) -> None:
    site.user("sr_check", "%" + " ü" * 26)  # 79 bytes
    site.user("n8n", "x" * 124)
    site.resolve()
    origin = str(site.user("sr_check", "%" + " ü" * 26 + "x"))
    what = (
        "has 80 bytes; pgpool cuts entries after 79 when they are encrypted, "
        "as the check role's always is in pgpool.conf"
    )
    expected = ("password of role 'sr_check'", origin, what, "choose a shorter password")
    assert told(site.problem()) == expected
    site.check_key = None  # `check` says what a boot would say
    assert told(site.problem()) == expected
    site.resolve(PGPOOL_CHECK_USER="app", PGPOOL_USERS_DIR=str(site.file("others/app", "a %").parent))


@pytest.mark.parametrize(
    "password", ["x" * 124, "md5 100%", "MD50123456789abcdef0123456789abcdef", "AES %", "TEXT %", " ", "'"]
)
def test_any_other_password_is_taken(site: Site, password: str) -> None:
    site.user("n8n", password)
    assert site.resolve().model.credentials[0].password.reveal() == password


def test_the_check_user_needs_a_password(site: Site) -> None:
    (site.users / "sr_check").unlink()
    assert told(site.problem()) == (
        "PGPOOL_CHECK_USER",
        "default",
        f"the role 'sr_check' has no password in {site.users}",
        f"add the file {site.users}/sr_check, or name another role",
    )
    assert told(site.problem(PGPOOL_CHECK_USER="nobody 1%"))[:2] == ("PGPOOL_CHECK_USER", "environment")
    path = str(site.file("wrong", "hunter2 100%"))
    assert told(site.problem(PGPOOL_CHECK_USER_FILE=path)) == (
        "PGPOOL_CHECK_USER",
        path,
        f"the role that it names has no password in {site.users}",
        "add a file of that name, or name another role",
    )
    site.resolve(PGPOOL_CHECK_USER="n8n")


def test_the_check_user_can_be_rotated_with_its_secret(site: Site) -> None:
    volume = SecretVolume(site.users / "check")
    path = f"{site.users}/check/username"
    for revision in ("check a", "check b"):
        volume.write({"username": revision.encode(), "password": b"pass 100%"})
        assert site.conf(PGPOOL_CHECK_USER_FILE=path)["health_check_user"] == f"'{revision}'"


def test_the_check_user_must_fit_into_pgpool_conf(site: Site) -> None:
    site.user("it's", "check pass 100%")
    assert told(site.problem(PGPOOL_CHECK_USER="it's")) == (
        "PGPOOL_CHECK_USER",
        "environment",
        '"it\'s" contains a single quote, which pgpool.conf cannot express',
        "change the value; for a command, put it into a script and name that",
    )


# --- key ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("", "its first line is empty"),
        ("\nkey 100%", "its first line is empty"),
        ("k" * 256, "its first line is longer than 255 bytes, where pgpool stops reading"),
        ("ü" * 128, "its first line is longer than 255 bytes, where pgpool stops reading"),
        ("key\0 100%", "its first line holds a NUL character or ends in a carriage return"),
        ("key 100%\r\n", "its first line holds a NUL character or ends in a carriage return"),
    ],
)
def test_a_key_that_pgpool_would_read_differently_is_refused(site: Site, key: str, what: str) -> None:
    path = str(site.file("key", key))
    assert told(site.problem(PGPOOLKEYFILE=path))[:3] == ("PGPOOLKEYFILE", path, what)


@pytest.mark.parametrize("key", ["k", "k" * 255, " key 100% \nmore", "\\'\"", "ü"])
def test_any_other_key_is_taken(site: Site, key: str) -> None:
    model = site.resolve(PGPOOLKEYFILE=str(site.file("key", key))).model
    assert model.key is not None
    assert model.key.reveal() == key.partition("\n")[0]


# --- parameters -----------------------------------------------------------------------------------------------------


def test_every_default_can_be_overridden_once(site: Site) -> None:
    conf = site.conf(PGPOOL_PARAMS_HEALTH_CHECK_PERIOD="1min", PGPOOL_PARAMS_FAILOVER_COMMAND="my pool 100%")
    assert conf["health_check_period"] == "60"
    assert conf["failover_command"] == "'my pool 100%'"
    assert conf["health_check_timeout"] == "5"


@pytest.mark.parametrize("name", sorted(defaults.RESERVED))
def test_a_parameter_that_a_setting_owns_is_refused(site: Site, name: str) -> None:
    parameter = load_catalogue("4.6").parameters[name]
    value = {"bool": "on", "int": "5432", "double": "1"}.get(parameter.type, "a b")
    suffix = "0" if parameter.index_max is not None and not parameter.bare else ""
    variable = f"PGPOOL_PARAMS_{name.upper()}{suffix}"
    reserved = defaults.RESERVED[name]
    assert told(site.problem(**{variable: value})) == (variable, "environment", reserved.reason, reserved.instead)


def test_a_reserved_parameter_is_refused_for_every_node_as_well(site: Site) -> None:
    for variable in ("PGPOOL_PARAMS_HEALTH_CHECK_USER1", "PGPOOL_PARAMS_HEALTH_CHECK_PASSWORD2"):
        assert site.problem(**{variable: "a b 100%"}).setting == variable


def test_one_parameter_under_two_names_is_refused(site: Site, tmp_path: Path) -> None:
    (tmp_path / "value").write_text("5")
    problem = site.problem(PGPOOL_PARAMS_MAX_POOL="4", PGPOOL_PARAMS_max_pool_FILE=str(tmp_path / "value"))
    assert told(problem) == (
        "PGPOOL_PARAMS_max_pool_FILE",
        str(tmp_path / "value"),
        "sets the same as PGPOOL_PARAMS_MAX_POOL",
        "keep one of the two",
    )


@pytest.mark.parametrize("name", ["HEALTH_CHECK_PERIOD", "CONNECT_TIMEOUT", "BACKEND_DATA_DIRECTORY"])
def test_a_parameter_of_a_node_that_does_not_exist_is_refused(site: Site, name: str) -> None:
    site.resolve(**{f"PGPOOL_PARAMS_{name}2": "10"})
    assert told(site.problem(**{f"PGPOOL_PARAMS_{name}3": "10"})) == (
        f"PGPOOL_PARAMS_{name}3",
        "environment",
        "there is no node 3",
        "PGPOOL_BACKENDS has the nodes 0 to 2",
    )


def test_no_backends_hide_no_other_problem(site: Site) -> None:
    found = site.problems(PGPOOL_BACKENDS="nope", PGPOOL_PARAMS_HEALTH_CHECK_PERIOD1="5", PGPOOL_PARAMS_PORT="1")
    assert [each.setting for each in found] == ["PGPOOL_BACKENDS", "PGPOOL_PARAMS_PORT"]


def test_the_same_name_with_and_without_index_is_two_parameters(site: Site) -> None:
    conf = site.conf(PGPOOL_PARAMS_HEALTH_CHECK_PERIOD="7", PGPOOL_PARAMS_HEALTH_CHECK_PERIOD0="9")
    assert (conf["health_check_period"], conf["health_check_period0"]) == ("7", "9")


# --- numbers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "setting", "what"),
    [
        (
            {"RESERVED_CONNECTIONS": "32"},
            "PGPOOL_PARAMS_RESERVED_CONNECTIONS",
            "leaves none of 32 children for clients",
        ),
        (
            {"RESERVED_CONNECTIONS": "4", "NUM_INIT_CHILDREN": "4"},
            "PGPOOL_PARAMS_RESERVED_CONNECTIONS",
            "leaves none of 4 children for clients",
        ),
        ({"PORT": "9898"}, "pcp_port", "is the same as port, 9898"),
        ({"PCP_PORT": "9999"}, "PGPOOL_PARAMS_PCP_PORT", "is the same as port, 9999"),
        (
            {"PROCESS_MANAGEMENT_MODE": "dynamic", "MIN_SPARE_CHILDREN": "20", "MAX_SPARE_CHILDREN": "10"},
            "PGPOOL_PARAMS_MIN_SPARE_CHILDREN",
            "is 20; dynamic children need min_spare_children < max_spare_children 10 ≤ num_init_children 32",
        ),
        (
            {"PROCESS_MANAGEMENT_MODE": "dynamic", "MAX_SPARE_CHILDREN": "33"},
            "min_spare_children",
            "is 5; dynamic children need min_spare_children < max_spare_children 33 ≤ num_init_children 32",
        ),
    ],
)
def test_numbers_that_exclude_each_other_are_refused(site: Site, env: dict[str, str], setting: str, what: str) -> None:
    problem = site.problem(**{f"PGPOOL_PARAMS_{name}": value for name, value in env.items()})
    assert (problem.setting, problem.what) == (setting, what)


@pytest.mark.parametrize(
    "env",
    [
        {"RESERVED_CONNECTIONS": "31"},
        {"PORT": "9898", "PCP_PORT": "9999"},
        {"PROCESS_MANAGEMENT_MODE": "dynamic"},
        {"PROCESS_MANAGEMENT_MODE": "static", "MIN_SPARE_CHILDREN": "20", "MAX_SPARE_CHILDREN": "10"},
    ],
)
def test_numbers_that_go_together_are_taken(site: Site, env: dict[str, str]) -> None:
    site.resolve(**{f"PGPOOL_PARAMS_{name}": value for name, value in env.items()})


def test_effective_numbers_are_ours_then_pgpools(site: Site) -> None:
    numbers = site.resolve(PGPOOL_PARAMS_CHILD_LIFE_TIME="2min").model.numbers
    assert (numbers["port"], numbers["pcp_port"], numbers["child_life_time"]) == (9999, 9898, 120)
    assert (numbers["enable_pool_hba"], numbers["health_check_period"], numbers["connect_timeout"]) == (1, 5, 3000)


def test_the_budget_of_connections_is_children_times_pool(site: Site) -> None:
    assert site.resolve().model.connections_per_backend == 32
    env = {"PGPOOL_PARAMS_NUM_INIT_CHILDREN": "40", "PGPOOL_PARAMS_MAX_POOL": "3"}
    assert site.resolve(**env).model.connections_per_backend == 120


def test_listen_addresses_are_known_without_their_quotes(site: Site) -> None:
    assert site.resolve().model.listen_addresses == "*"
    assert site.resolve(PGPOOL_PARAMS_LISTEN_ADDRESSES="127.0.0.1, ::1").model.listen_addresses == "127.0.0.1, ::1"


# --- backends -------------------------------------------------------------------------------------------------------


def test_backends_become_numbered_parameters_with_the_host_before_the_port(site: Site) -> None:
    conf = site.conf(PGPOOL_BACKENDS="a=h:5433?weight=0&flag=ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER,b=[::1]")
    backends = [(name, value) for name, value in conf.items() if name.startswith("backend_") and name[-1].isdigit()]
    assert backends == [
        ("backend_hostname0", "'h'"),
        ("backend_port0", "5433"),
        ("backend_weight0", "0"),
        ("backend_application_name0", "'a'"),
        ("backend_flag0", "'ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER'"),
        ("backend_hostname1", "'::1'"),
        ("backend_port1", "5432"),
        ("backend_weight1", "1"),
        ("backend_application_name1", "'b'"),
        ("backend_flag1", "'ALLOW_TO_FAILOVER'"),
    ]


@pytest.mark.parametrize(
    ("weight", "written"),
    [
        ("0", "0"),
        ("1.0", "1"),
        ("2.50", "2.5"),
        ("100", "100"),
        ("1234567", "1234567"),
        ("99999999", "99999999"),
        ("1.234567", "1.234567"),
        ("0.000001", "0.000001"),
    ],
)
def test_a_weight_is_written_as_it_was_given(site: Site, weight: str, written: str) -> None:
    assert site.conf(PGPOOL_BACKENDS=f"a=h?weight={weight}")["backend_weight0"] == written


# --- directories and files ------------------------------------------------------------------------------------------


def test_patroni_is_asked_at_every_backend_or_nowhere(site: Site) -> None:
    problem = site.problem(PGPOOL_BACKENDS="a=10.0.0.1,b=10.0.0.2", PGPOOL_PATRONI="http://a:8008")
    what, remedy = "has 1 URL, but there are 2 backends", "give one URL for each backend, in their order"
    assert told(problem) == ("PGPOOL_PATRONI", "environment", what, remedy)
    site.conf(PGPOOL_BACKENDS="a=10.0.0.1,b=10.0.0.2", PGPOOL_PATRONI="http://a:8008,http://b:8008")


def test_the_run_directory_must_leave_room_for_a_sockets_path(site: Site) -> None:
    longest = "/" + "r" * 92
    site.resolve(PGPOOL_RUN_DIR=longest)
    assert told(site.problem(PGPOOL_RUN_DIR=f"{longest}r")) == (
        "PGPOOL_RUN_DIR",
        "environment",
        f"is too long: the socket {longest}r/.s.PGSQL.9999 has a path of more than 107 bytes",
        "choose a shorter directory",
    )
    assert site.problem(PGPOOL_RUN_DIR=longest, PGPOOL_PARAMS_PCP_PORT="19898").setting == "PGPOOL_RUN_DIR"


@pytest.mark.parametrize(
    ("directory", "what"),
    [
        ("/it's", '"/it\'s" contains a single quote, which pgpool.conf cannot express'),
        ("/a\nb", "'/a\\nb' contains a line end or a NUL character"),
        ("/run/a,b", "'/run/a,b' contains a comma, where pgpool divides a list of directories"),
    ],
)
def test_the_run_directory_must_fit_into_pgpool_conf(site: Site, directory: str, what: str) -> None:
    problems = site.problems(PGPOOL_RUN_DIR=directory)
    assert {problem.setting for problem in problems} == {"PGPOOL_RUN_DIR"}
    assert problems[0].what == what


def test_every_file_of_pgpool_is_in_the_run_directory(site: Site) -> None:
    conf = site.conf(PGPOOL_RUN_DIR="/run/my pool %")
    files = ("unix_socket_directories", "pcp_socket_dir", "logdir", "pid_file_name")
    assert [conf[name] for name in files] == [*["'/run/my pool %'"] * 3, "'/run/my pool %/pgpool.pid'"]


def test_faults_of_pool_hba_conf_are_told_with_their_line(site: Site) -> None:
    path = str(site.file("hba", "# mine\nlocal all all trust\n"))
    problem = site.problem(PGPOOL_HBA_FILE=path)
    assert (problem.setting, problem.origin) == ("PGPOOL_HBA_FILE", f"{path}, line 2")


def test_hostssl_needs_a_certificate(site: Site) -> None:
    path = str(site.file("hba", "hostssl all all all scram-sha-256"))
    what = "hostssl can never match, because PGPOOL_TLS_DIR is not set"
    assert site.problem(PGPOOL_HBA_FILE=path).what == what


def test_all_problems_are_told_at_once(site: Site) -> None:
    site.user("n8n", "")
    (site.users / "sr_check").unlink()
    found = site.problems(
        PGPOOL_PARAMS_SSL="on",
        PGPOOL_PARAMS_PCP_PORT="9999",
        PGPOOLKEYFILE=str(site.file("key", "")),
        PGPOOL_HBA_FILE=str(site.file("hba", "")),
        PGPOOL_TLS_DIR="/none",
    )
    assert {each.setting for each in found} == {
        "PGPOOL_PARAMS_SSL",
        "PGPOOL_PARAMS_PCP_PORT",
        "PGPOOLKEYFILE",
        "PGPOOL_HBA_FILE",
        "PGPOOL_TLS_DIR",
        "PGPOOL_CHECK_USER",
        "password of role 'n8n'",
    }


def test_no_representation_of_the_model_shows_a_secret(site: Site) -> None:
    key = str(site.file("key", KEY))
    shown = repr(site.resolve(PGPOOLKEYFILE=key, PGPOOL_PCP_PASSWORD="pcp pass 100%"))
    assert "100%" not in shown
    assert "50 %" not in shown


nasty = st.text("'\\:%\n\r\0 aAü#\"$", max_size=40) | st.text(st.characters(codec="utf-8"), max_size=40)


@pytest.fixture(scope="module")
def make_site(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Site]:
    def make() -> Site:
        site = Site(tmp_path_factory.mktemp("site"), load_catalogue("4.6"))
        site.user("sr_check", "check pass 100%")
        site.env = {
            "PGPOOL_BACKENDS": "a=h",
            "PGPOOL_USERS_DIR": str(site.users),
            "PGPOOL_RUN_DIR": "/run/pgpool",
        }
        return site

    return make


@given(role=nasty, password=nasty)
def test_any_role_and_password_are_rendered_or_told(make_site: Callable[[], Site], role: str, password: str) -> None:
    site = make_site()
    site.user("app/username", role)
    site.user("app/password", password)
    unusable = {"\n", "\r", "\0"}
    one_less = password.removesuffix("\n")
    fine = (
        not unusable & set(role.removesuffix("\n")) | (unusable & set(one_less))
        and role.removesuffix("\n")
        and one_less
    )
    if fine and len(role.removesuffix("\n").encode()) <= 63 and len(one_less.encode()) <= 124:
        lines = site.tree().files["pool_passwd"].decode().removesuffix("\n").split("\n")
        assert len(lines) == 2 - (role.removesuffix("\n") == "sr_check")
    else:
        assert {each.origin for each in site.problems()} == {f"{site.users}/app/password"}


def test_every_flag_says_whether_failover_is_allowed_so_that_a_reload_can_restore_it(site: Site) -> None:
    conf = site.conf(PGPOOL_BACKENDS="a=h?flag=ALWAYS_PRIMARY,b=h2,c=h3?flag=DISALLOW_TO_FAILOVER")
    assert [conf[f"backend_flag{node}"] for node in range(3)] == [
        "'ALWAYS_PRIMARY|ALLOW_TO_FAILOVER'",
        "'ALLOW_TO_FAILOVER'",
        "'DISALLOW_TO_FAILOVER'",
    ]
