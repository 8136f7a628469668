"""Other images' variables, translated: tables of what their own rules say, of warnings, and of refusals."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from entrypoint import boot, pipeline
from entrypoint.catalogue import Catalogue
from entrypoint.compat import bitnami, conf, official
from entrypoint.compat.draft import Row
from entrypoint.compat.translate import image_of, recorded
from entrypoint.credentials import aes_decrypter
from entrypoint.environment import is_ours
from entrypoint.errors import ConfigurationError
from entrypoint.inputs import read_inputs
from entrypoint.probe import pcp_password
from entrypoint.program import Program
from entrypoint.publish import publish
from entrypoint.render import render
from entrypoint.secret import Secret
from entrypoint.settings import TABLE
from sidecar.desired import read_desired
from support import foreign
from support.certificates import Authority
from support.foreign import Foreign
from unit import conftest
from unit.conftest import Site

BITNAMI, OFFICIAL = foreign.COMPOSE.environment, foreign.MINIMAL.environment
MADE_UP = "one is made up at each boot"
INSTALLED = Program(Path("/opt/pgpool"), "4.6.1")


@pytest.fixture
def bare(tmp_path: Path, catalogue: Catalogue) -> Site:
    """Nothing of ours but the run directory."""
    site = Site(tmp_path, catalogue, {"PGPOOL_RUN_DIR": str(tmp_path / "run")})
    site.run_dir.mkdir()
    return site


def given(site: Site, base: dict[str, str], **more: str | None) -> Site:
    merged: dict[str, str | None] = {**site.env, **base, **more}
    site.env = {name: value for name, value in merged.items() if value is not None}
    return site


def roles(site: Site) -> dict[str, str]:
    return {each.role: each.password.reveal() for each in site.resolve().model.credentials}


@pytest.mark.parametrize("name", foreign.ALL)
def test_pgpool_conf_is_what_the_other_images_rules_say(bare: Site, name: str) -> None:
    case: Foreign = foreign.ALL[name]
    given(bare, case.placed(bare.root))
    written = bare.conf()
    expected = {key: value for key, value in case.expected.items() if key not in foreign.DIFFERS}
    assert {key: written.get(key) for key in expected} == expected
    ours = {"unix_socket_directories", "pcp_socket_dir", "pid_file_name", "logdir", "syslog_ident", "sr_check_password"}
    ours |= {"pool_passwd", "enable_pool_hba", "sr_check_user", "health_check_user", "ssl_cert", "ssl_key"}
    names = {key for key in written if key.startswith("backend_application_name")}
    assert written.keys() - expected.keys() <= ours | names | foreign.DIFFERS
    assert roles(bare) == case.roles


@pytest.mark.parametrize(("image", "rows"), [("bitnami", bitnami.TABLE), ("official", official.TABLE)])
def test_every_row_leads_somewhere_and_is_in_the_docs(image: str, rows: tuple[Row, ...], catalogue: Catalogue) -> None:
    docs = (Path(__file__).parents[2] / "docs/migration.md").read_text()
    assert len({row.variable for row in rows}) == len(rows)
    for row in rows:
        assert bool(row.to) != bool(row.note)
        assert is_ours(row.variable, "x")
        assert row.variable in docs
        if row.to.startswith("PGPOOL"):
            assert row.to in {setting.name for setting in TABLE}
        elif row.to:
            assert catalogue.parameters[row.to].secret == row.secret
            if row.default is not None:
                catalogue.assign(row.to, row.default)


@pytest.mark.parametrize("row", [row for row in bitnami.TABLE if row.to], ids=lambda row: row.variable)
def test_every_parameter_of_bitnamis_can_stand_in_a_file(bare: Site, row: Row) -> None:
    """Even those whose names end in _FILE, and those that Bitnami itself forgot."""
    values = {
        "PGPOOL_BACKEND_NODES": "0:h",
        "PGPOOL_BACKEND_APPLICATION_NAMES": "a,b",
        "PGPOOL_USER_HBA_FILE": str(bare.file("hba", "local all all scram-sha-256\n")),
        "PGPOOL_ENABLE_TLS": "no",
        "PGPOOL_ADMIN_USERNAME": "somebody",
        "PGPOOL_SR_CHECK_USER": "customuser",
        "PGPOOL_PORT_NUMBER": "6000",
        "PGPOOL_CLIENT_MIN_MESSAGES": "error",
        "PGPOOL_ENABLE_LOG_PCP_PROCESSES": "no",
        "PGPOOL_TLS_PREFER_SERVER_CIPHERS": "yes",
        "PGPOOL_HEALTH_CHECK_PASSWORD": "custompassword",
    }
    value = values.get(row.variable, row.default or "2")
    given(bare, BITNAMI, **{row.variable: value})
    at_once = bare.resolve()
    given(bare, {}, **{row.variable: None, f"{row.variable}_FILE": str(bare.file("value", f"{value}\n"))})
    assert render(bare.resolve().model) == render(at_once.model)


LOST = [
    ("bitnami", "PGPOOL_AUTHENTICATION_METHOD", "md5", "clients log in by scram-sha-256"),
    ("bitnami", "PGPOOL_AUTHENTICATION_METHOD", "trust", "clients log in by scram-sha-256"),
    ("bitnami", "PGPOOL_ENABLE_POOL_PASSWD", "no", "only roles whose passwords are given"),
    ("bitnami", "PGPOOL_ENABLE_POOL_HBA", "no", "pgpool itself asks every client for its password"),
    ("bitnami", "PGPOOL_DISCARD_STATUS", "no", "always starts afresh"),
    ("bitnami", "PGPOOL_EXTRA_FLAGS", "-d", "run -- …"),
    ("bitnami", "PGPOOL_HEALTH_CHECK_USER", "other", "both checks log in as the role of sr_check_user"),
    ("bitnami", "PGPOOL_AUTO_FAILBACK", "yes", "names that are guessed from the hosts (pg-0, pg-1)"),
    ("bitnami", "PGPOOL_BACKEND_NODES", "1:a,3:b", "the nodes 1, 3 are numbered from 0 on"),
    ("bitnami", "PGPOOL_PASSWD_FILE", "/etc/pool_passwd", "give the passwords of its roles"),
    ("bitnami", "PGPOOL_BACKEND_APPLICATION_NAMES", "one", "has 1 names for 2 nodes"),
    (
        "bitnami",
        "PGPOOL_BACKEND_APPLICATION_NAMES",
        "of,of",
        "the name 'of' of several servers",
    ),
    ("bitnami", "PGPOOL_MAX_POL", "3", "no such variable; did you mean PGPOOL_MAX_POOL?"),
    ("bitnami", "PGPOOL_SR_CHECK_USR", "3", "no such variable; remove it"),
    ("bitnami", "PGPOOL_USERNAME", "x", "no such variable; remove it"),
    ("bitnami", "PGPOOL_PASSWORD", "x", "no such variable; remove it"),
    ("bitnami", "PGPOOL_AUTO_FAILBACK_INTERVAL", "5", "write PGPOOL_PARAMS_AUTO_FAILBACK_INTERVAL; else remove it"),
    ("official", "PGPOOL_PARAMS_MAX_POLL", "1", "remove it (did you mean max_pool?)"),
    ("official", "PGPOOL_PARAMS_BLACK_MEMQCACHE_TABLE_LIST", "t", "successor is cache_unsafe_memqcache_table_list"),
    ("official", "PGPOOL_PARAMS_HEARTBEAT_DESTINATION0", "h", "successor is heartbeat_hostname0"),
    ("official", "PGPOOL_PARAMS_FAILOVER_ON_BACKEND_ERROR", "true", "is off, as in that image, where only `on`"),
    ("official", "PGPOOL_PARAMS_SR_CHECK_PASSWORD", "of nobody", "counts for nothing, because no sr_check_user"),
    ("official", "APP_USERNAME", "app", "APP_USERNAME names no role"),
    ("official", "PGPOOL_PASSWORD_ENCRYPTION_METHOD", "md5", "clients log in by scram-sha-256"),
    ("official", "PGPOOL_PARAMS_SOCKET_DIR", "/tmp", "the sockets and other files of pgpool are in PGPOOL_RUN_DIR"),
    ("official", "PGPOOL_PARAMS_POOL_PASSWD", "", "without pool_passwd"),
    ("official", "PGPOOL_PARAMS_ALLOW_CLEAR_TEXT_FRONTEND_AUTH", "on", "no password travels in clear text"),
    ("official", "PGPOOL_PARAMS_ENABLE_POOL_HBA", "on", "on the Unix socket"),
]
ALWAYS = {
    "bitnami": ["on the Unix socket", "search_primary_node_timeout", "set PGPOOL_AES_KEY_FILE"],
    "official": ["though enable_pool_hba is not on", "because sr_check_user is not set", "set PGPOOLKEYFILE"],
}


@pytest.mark.parametrize(("image", "variable", "value", "said"), LOST)
def test_what_is_not_taken_over_is_one_warning_that_says_what_to_do(
    bare: Site, image: str, variable: str, value: str, said: str
) -> None:
    given(bare, BITNAMI if image == "bitnami" else OFFICIAL, **{variable: value})
    warnings = bare.resolve().model.warnings
    (warning,) = [each for each in warnings if said in each]
    assert ";" in warning
    assert "\n" not in warning
    assert any(
        variable.removeprefix("PGPOOL_").removeprefix("PARAMS_").lower() in each.lower() for each in warnings
    ) or any(word in said for word in ("guessed", "numbered", "socket", "several servers"))


@pytest.mark.parametrize("image", ALWAYS)
def test_an_ordinary_environment_has_few_warnings(bare: Site, image: str) -> None:
    given(bare, BITNAMI if image == "bitnami" else OFFICIAL)
    warnings = bare.resolve().model.warnings
    assert len(warnings) == len(ALWAYS[image])
    assert all(said in warning for said, warning in zip(ALWAYS[image], warnings, strict=True))


def test_scripts_that_are_not_run_are_named(bare: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    given(bare, BITNAMI)
    monkeypatch.setattr(bitnami, "INIT_SCRIPTS", bare.file("scripts/10-users.sh", "exit 1").parent)
    (warning,) = [each for each in bare.resolve().model.warnings if "10-users.sh" in each]
    assert "are not run; set what they change" in warning


PLAIN = "clients without TLS are refused; to have both, mount"
CERTIFICATE = {"PGPOOL_TLS_CERT_FILE": "{tls}/tls.crt", "PGPOOL_TLS_KEY_FILE": "{tls}/tls.key"}


@pytest.mark.parametrize(
    ("image", "env"),
    [
        ("official", {"PGPOOL_PARAMS_SSL": "on"}),
        ("official", {"PGPOOL_PARAMS_SSL": "on", "PGPOOL_PARAMS_ENABLE_POOL_HBA": "on"}),
        ("official", {"PGPOOL_PARAMS_SSL": "on", "PGPOOL_TLS_DIR": "{tls}"}),
        ("official", {"PGPOOL_TLS_DIR": "{tls}"}),
        ("bitnami", {"PGPOOL_TLS_DIR": "{tls}"}),
        ("bitnami", {"PGPOOL_ENABLE_TLS": "yes", **CERTIFICATE}),
        ("bitnami", {"PGPOOL_USER_CONF_FILE": "{conf}"}),
    ],
)
def test_that_tls_is_for_all_is_told_unless_a_pool_hba_conf_says_otherwise(
    bare: Site, image: str, env: dict[str, str]
) -> None:
    tls = Authority().issue().write(bare.root / "tls", with_authority=False)
    conf = bare.file("conf", f"ssl = on\nssl_cert = '{tls}/tls.crt'\nssl_key = '{tls}/tls.key'\n")
    bare.now = datetime.now(UTC)
    given(bare, BITNAMI if image == "bitnami" else OFFICIAL)
    given(bare, {name: value.format(tls=tls, conf=conf) for name, value in env.items()})
    assert [PLAIN in each for each in bare.resolve().model.warnings].count(True) == 1
    given(bare, {}, PGPOOL_HBA_FILE=str(bare.file("hba", "host all all all scram-sha-256\n")))
    told = " ".join(bare.resolve().model.warnings)
    assert PLAIN not in told
    assert "on the Unix socket" not in told


@pytest.mark.parametrize(
    "hosts", ["node-1.example.com,10.0.0.2", "node-1.dc1,node-1.dc2,node-0.dc1", "node-0,server-1,10.0.0.2,10.0.0.3"]
)
def test_names_that_are_guessed_tell_servers_apart_that_are_called_so(bare: Site, hosts: str) -> None:
    nodes = [f"{number}:{host}" for number, host in enumerate(hosts.split(","))]
    given(bare, BITNAMI, PGPOOL_BACKEND_NODES=",".join(nodes))
    assert len({backend.name for backend in bare.resolve().settings.backends}) == len(nodes)


def test_an_empty_administrator_of_the_official_image_is_none(bare: Site) -> None:
    given(bare, OFFICIAL, PGPOOL_PCP_USER="", PGPOOL_PCP_PASSWORD="")
    model = bare.resolve().model
    assert (model.pcp_user, model.pcp_password.reveal()) == ("pgpool", conftest.MADE_UP)
    written, withheld = recorded(bare.env, bare.catalogue)
    assert not {"PGPOOL_PCP_USER", "PGPOOL_PCP_PASSWORD"} & {*written, *withheld}


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("official", "PGPOOL_POSTGRES_PASSWORD"),
        ("official", "PGPOOL_PARAMS_FOO_PASSWORD"),
        ("bitnami", "PGPOOL_PASSWORD"),
        ("bitnami", "PGPOOL_REPL_PASSWORD"),
    ],
)
def test_what_is_passed_over_is_written_down_nowhere(bare: Site, image: str, name: str) -> None:
    without = given(bare, BITNAMI if image == "bitnami" else OFFICIAL).tree()
    given(bare, {}, **{name: "S3CRET"})
    written, withheld = recorded(bare.env, bare.catalogue)
    assert name not in {*written, *withheld}
    assert bare.tree() == without


REFUSED: list[tuple[str, dict[str, str | None], str, str]] = [
    ("bitnami", {"PGPOOL_BACKENDS": "a=h"}, "PGPOOL_BACKENDS (environment)", "ways of different images"),
    ("bitnami", {"PGPOOL_PARAMS_BACKEND_HOSTNAME0": "h"}, "PGPOOL_BACKEND_NODES", "ways of different images"),
    ("bitnami", {"PGPOOL_PARAMS_PORT": "7000", "PGPOOL_PORT_NUMBER": "7000"}, "PGPOOL_PARAMS_PORT", "and so is"),
    ("bitnami", {"PGPOOL_CHECK_USER": "x"}, "PGPOOL_CHECK_USER", "and so is PGPOOL_SR_CHECK_USER"),
    ("bitnami", {"PGPOOL_PCP_USER": "x"}, "PGPOOL_PCP_USER", "and so is PGPOOL_ADMIN_USERNAME"),
    ("bitnami", {"PGPOOL_AES_KEY": "x", "PGPOOLKEYFILE": "{key}"}, "PGPOOL_AES_KEY", "and so is PGPOOLKEYFILE"),
    ("bitnami", {"PGPOOL_MAX_POOL": "abc"}, "PGPOOL_PARAMS_MAX_POOL (from PGPOOL_MAX_POOL)", "'abc' is not a whole"),
    ("bitnami", {"PGPOOL_SIDECAR_LOGS": "x"}, "PGPOOL_SIDECAR_LOGS", "did you mean PGPOOL_SIDECAR_LOG?"),
    ("official", {"PGPOOL_PATRONY": "on"}, "PGPOOL_PATRONY", "did you mean PGPOOL_PATRONI?"),
    ("bitnami", {"PGPOOL_ENABLE_LDAP": "yes"}, "PGPOOL_ENABLE_LDAP", "no LDAP client"),
    ("bitnami", {"PGPOOL_ENABLE_TLS": "yes"}, "ssl (from PGPOOL_ENABLE_TLS)", "set PGPOOL_ENABLE_TLS=no"),
    (
        "bitnami",
        {"PGPOOL_ENABLE_TLS": "yes", "PGPOOL_TLS_CERT_FILE": "/tls.crt"},
        "ssl (from PGPOOL_ENABLE_TLS)",
        "TLS is on without ssl_key",
    ),
    ("bitnami", {"PGPOOL_ENABLE_LOAD_BALANCING": "maybe"}, "from PGPOOL_ENABLE_LOAD_BALANCING", "is not a boolean"),
    ("bitnami", {"PGPOOL_BACKEND_NODES": "pg-0:5432"}, "PGPOOL_BACKEND_NODES", "an entry of another form"),
    ("bitnami", {"PGPOOL_BACKEND_NODES": "0:a,0:b"}, "PGPOOL_BACKEND_NODES", "has the number 0 twice"),
    (
        "bitnami",
        {"PGPOOL_BACKEND_NODES": "0:a:99999"},
        "backend_port0 (from PGPOOL_BACKEND_NODES)",
        "'99999' is not a port",
    ),
    (
        "bitnami",
        {"PGPOOL_BACKEND_NODES": "0:a?b"},
        "backend_hostname0 (from PGPOOL_BACKEND_NODES)",
        "signs where none can be",
    ),
    ("bitnami", {"PGPOOL_BACKEND_NODES": "0:a:5432,1:a"}, "backend_hostname1 (from", "'a' is node 0 already"),
    ("bitnami", {"PGPOOL_BACKEND_NODES": "0:a::x"}, "backend_weight0 (from", "'x' is not a number of 0 or more"),
    ("official", {"PGPOOL_PARAMS_BACKEND_FLAG0": "ALWAYS_MASTER"}, "backend_flag0 (from", "write ALWAYS_PRIMARY"),
    ("bitnami", {"PGPOOL_BACKEND_NODES": None}, "PGPOOL_BACKEND_NODES (not set)", "is required"),
    (
        "bitnami",
        {"PGPOOL_BACKEND_APPLICATION_NAMES": "one", "PGPOOL_AUTO_FAILBACK": "yes"},
        "PGPOOL_BACKEND_APPLICATION_NAMES",
        "has 1 names for 2 nodes",
    ),
    ("bitnami", {"PGPOOL_BACKEND_NODES": '"0:a,1:b"'}, "PGPOOL_BACKEND_NODES", "remove the quotes: they are part"),
    ("bitnami", {"PGPOOL_POSTGRES_PASSWORD": None}, "PGPOOL_POSTGRES_PASSWORD (not set)", "'postgres' cannot log in"),
    ("bitnami", {"PGPOOL_POSTGRES_PASSWORD": ""}, "PGPOOL_POSTGRES_PASSWORD (not set)", "'postgres' cannot log in"),
    ("bitnami", {"PGPOOL_POSTGRES_CUSTOM_USERS": "a,b"}, "CUSTOM_USERS", "has 2 roles"),
    (
        "bitnami",
        {"PGPOOL_SR_CHECK_PASSWORD": None},
        "PGPOOL_CHECK_USER (from PGPOOL_SR_CHECK_USER)",
        "in the environment",
    ),
    ("bitnami", {"PGPOOL_SR_CHECK_PASSWORD_FILE": "/nowhere"}, "CHECK_PASSWORD_FILE", "so is PGPOOL_SR_CHECK_PASSWORD"),
    ("bitnami", {"PGPOOL_POSTGRES_USERNAME": "customuser"}, "role 'customuser'", "has a password in"),
    ("bitnami", {"PGPOOL_SR_CHECK_PASSWORD": "x" * 80}, "password of role 'customuser'", "80 bytes"),
    ("bitnami", {"PGPOOL_USER_CONF_FILE": "{conf}"}, "PGPOOL_PARAMS_MAX_POOL ({conf}, line 2)", "is not a whole"),
    ("bitnami", {"PGPOOL_USER_CONF_FILE": "{bad}"}, "PGPOOL_USER_CONF_FILE ({bad}, line 1)", "is no line"),
    ("bitnami", {"PGPOOL_USER_HBA_FILE": "{hba}"}, "PGPOOL_HBA_FILE ({hba}, line 1)", "the method trust"),
    ("bitnami", {"PGPOOL_COMPAT": "none"}, "PGPOOL_BACKEND_NODES", "is not a setting"),
    ("bitnami", {"PGPOOL_COMPAT": "bitnamy"}, "PGPOOL_COMPAT", "is not an image whose variables"),
    ("official", {"PGPOOL_SKIP_PASSWORD_ENCRYPTION": "true"}, "SKIP_PASSWORD_ENCRYPTION", "cannot be had"),
    ("bitnami", {"PGPOOL_USER_CONF_FILE": "{include}"}, "CONF_FILE ({include}, line 2)", "put its lines here"),
    ("bitnami", {"PGPOOL_USER_CONF_FILE": "{reserved}"}, "({reserved}, line 1)", "remove the line; "),
    ("bitnami", {"PGPOOL_ENABLE_TLS": "no", "PGPOOL_TLS_DIR": "/tls"}, "PGPOOL_TLS_DIR", "so is PGPOOL_ENABLE_TLS"),
    ("official", {"PGPOOL_PARAMS_SSL": "off", "PGPOOL_TLS_DIR": "/tls"}, "PGPOOL_TLS_DIR", "so is PGPOOL_PARAMS_SSL"),
    (
        "bitnami",
        {"PGPOOL_ENABLE_TLS": "yes", "PGPOOL_TLS_DIR": "/t", **CERTIFICATE},
        "PGPOOL_TLS_DIR (environment)",
        "so is PGPOOL_TLS_CERT_FILE",
    ),
    (
        "official",
        {"PGPOOL_PARAMS_SSL": "on", "PGPOOL_PARAMS_SSL_CERT": "/tls.crt"},
        "ssl (from PGPOOL_PARAMS_SSL)",
        "TLS is on without ssl_key",
    ),
    (
        "official",
        {"PGPOOL_PARAMS_BACKEND_HOSTNAME0": '"db"'},
        "backend_hostname0 (from PGPOOL_PARAMS_",
        "remove the quotes: they are",
    ),
    (
        "official",
        {"PGPOOL_PARAMS_BACKEND_PORT1": "'1'"},
        "backend_port1 (from PGPOOL_PARAMS_BACKEND_PORT1)",
        "remove the quotes",
    ),
    ("official", {"PGPOOL_PARAMS_PORT_FILE": "{conf}", "PGPOOL_PARAMS_PORT": "1"}, "PORT_FILE", "keep one of the two"),
    ("official", {"PGPOOL_PARAMS_HEALTH_CHECK_PASSWORD": "AESabc"}, "health_check_password", "is encrypted"),
    ("official", {"PGPOOL_COMPAT": "official", "PGPOOL_PARAMS_BACKEND_HOSTNAME0": None}, "HOSTNAME0", "is required"),
    ("official", {"POSTGRES_PASSWORD": None}, "<X>_USERNAME (not set)", "no role is given"),
]


@pytest.mark.parametrize(("image", "changes", "setting", "what"), REFUSED)
def test_what_cannot_be_had_or_contradicts_itself_is_refused_in_the_users_own_words(
    bare: Site, image: str, changes: dict[str, str | None], setting: str, what: str
) -> None:
    places = {
        "conf": bare.file("conf", "# a comment\nmax_pool = many\n"),
        "bad": bare.file("bad", "max_pool == 1\n"),
        "hba": bare.file("hba", "local all all trust\n"),
        "key": bare.file("key", "a key"),
        "include": bare.file("include", "\ufeff# a comment\ninclude 'more.conf'\n"),
        "reserved": bare.file("reserved", "recovery_password = 'AESabc'\n"),
        "tls": bare.root / "tls",
    }
    placed = {name: value and value.format(**places) for name, value in changes.items()}
    given(bare, BITNAMI if image == "bitnami" else OFFICIAL, **placed)
    with pytest.raises(ConfigurationError) as refusal:
        bare.resolve()
    said = str(refusal.value)
    assert setting.format(**places) in said
    assert what in said
    for secret in ("custompassword", "adminpassword", "postgres % pass", "AESabc"):
        assert secret not in said


EMPTY = ("LISTEN_ADDRESSES", "PORT", "SR_CHECK_PERIOD", "FAILOVER_ON_BACKEND_ERROR", "BACKEND_PORT0", "BACKEND_WEIGHT0")


def test_what_has_a_default_in_the_official_image_has_it_when_it_is_empty_too(bare: Site) -> None:
    before = given(bare, OFFICIAL).conf()
    assert given(bare, {}, **{f"PGPOOL_PARAMS_{name}": "" for name in EMPTY}).conf() == before


@pytest.mark.parametrize(
    "pair",
    [
        {"PGPOOL_POSTGRES_PASSWORD_FILE": ""},
        {"PGPOOL_POSTGRES_PASSWORD": "", "PGPOOL_POSTGRES_PASSWORD_FILE": "{file}"},
    ],
)
def test_of_a_variable_and_its_file_an_empty_one_does_not_count(bare: Site, pair: dict[str, str]) -> None:
    file = bare.file("password", BITNAMI["PGPOOL_POSTGRES_PASSWORD"])
    given(bare, BITNAMI, **{name: value.format(file=file) for name, value in pair.items()})
    assert roles(bare) == foreign.COMPOSE.roles


def test_a_fault_in_a_mounted_pgpool_conf_is_told_with_its_line_and_without_its_text(bare: Site) -> None:
    place = {**foreign.MOUNTED.placed(bare.root)}
    with (bare.root / "config/pgpool.conf").open("a") as conf:
        conf.write("backend_flag0 = 'S3CRET'\n")
    number = len((bare.root / "config/pgpool.conf").read_text().splitlines())
    problem = given(bare, place).problem()
    assert problem.setting == "backend_flag0"
    assert problem.origin.endswith(f"pgpool.conf, line {number}")
    assert "is not of the flags ALLOW_TO_FAILOVER, " in problem.what
    assert "S3CRET" not in str(problem)


@pytest.mark.parametrize("name", foreign.WITHOUT_CERTIFICATE)
def test_a_certificate_that_is_made_up_is_one_warning_that_lists_the_ways_out(bare: Site, name: str) -> None:
    given(bare, foreign.WITHOUT_CERTIFICATE[name].placed(bare.root))
    resolved = bare.resolve()
    (warning,) = [each for each in resolved.model.warnings if MADE_UP in each]
    off = f"ssl = off in {bare.root}/config/pgpool.conf" if "configmap" in name else "PGPOOL_PARAMS_SSL=off"
    assert [way in warning for way in ("/config/tls", "PGPOOL_TLS_DIR", off)] == [True] * 3
    pair = render(resolved.model).files
    certificate = x509.load_pem_x509_certificate(pair["tls.crt"])
    assert (certificate.not_valid_after_utc - bare.now).days == 1825
    assert b"hostssl" in pair["pool_hba.conf"]


@pytest.mark.parametrize("name", foreign.WITHOUT_CERTIFICATE)
@pytest.mark.parametrize("way", ["mounted", "named", "off"])
def test_each_of_these_ways_out_boots_without_that_warning(bare: Site, name: str, way: str) -> None:
    case = foreign.WITHOUT_CERTIFICATE[name]
    given(bare, case.placed(bare.root), PGPOOL_CONF_VOLUME=str(bare.root / "config"))
    bare.now = datetime.now(UTC)
    if way == "off":
        conf = bare.root / "config/pgpool.conf"
        if conf.exists():
            conf.write_text(conf.read_text().replace("ssl = on", "ssl = off"))
        else:
            given(bare, {}, PGPOOL_PARAMS_SSL="off")
    else:
        place = Authority().issue().write(bare.root / ("config/tls" if way == "mounted" else "elsewhere"))
        if way == "named":
            given(bare, {}, PGPOOL_TLS_DIR=str(place))
    written = bare.conf()
    differs = foreign.DIFFERS | {"ssl"}
    assert {key: written.get(key) for key in case.expected if key not in differs} == {
        key: value for key, value in case.expected.items() if key not in differs
    }
    assert written.get("ssl") == (None if way == "off" else "on")
    assert not any(MADE_UP in each for each in bare.resolve().model.warnings)
    assert written.get("ssl") == (None if way == "off" else "on")
    assert (b"hostssl" in bare.tree().files["pool_hba.conf"]) == (way != "off")
    assert roles(bare) == case.roles


def test_without_pool_passwd_the_official_image_has_tls_and_so_has_this(bare: Site) -> None:
    issued = Authority().issue().write(bare.root / "tls")
    given(bare, OFFICIAL, PGPOOL_ENABLE_POOL_PASSWD="false", PGPOOL_TLS_DIR=str(issued))
    bare.now = datetime.now(UTC)
    assert bare.conf()["ssl"] == "on"
    (warning,) = [each for each in bare.resolve().model.warnings if "PGPOOL_ENABLE_POOL_PASSWD" in each]
    assert "only roles whose passwords are given can log in; give each" in warning


def test_empty_parameters_that_a_setting_owns_are_passed_over(bare: Site) -> None:
    place = {**foreign.MOUNTED.placed(bare.root)}
    with (bare.root / "config/pgpool.conf").open("a") as conf:
        conf.write("recovery_password = ''\nwd_lifecheck_password = ''\nhealth_check_password0 = ''\nssl_key = ''\n")
    assert "recovery_password" not in given(bare, place).conf()


@pytest.mark.parametrize("password", ["TEXT", "TEXTa", "AESa"])
def test_bitnamis_check_password_is_never_a_word_of_pgpool_conf(bare: Site, password: str) -> None:
    given(bare, BITNAMI, PGPOOL_SR_CHECK_PASSWORD=password, PGPOOL_HEALTH_CHECK_PASSWORD=password)
    assert roles(bare)["customuser"] == password


def test_without_pool_passwd_or_with_a_directory_of_roles_the_postgres_role_needs_no_password(bare: Site) -> None:
    given(bare, BITNAMI, PGPOOL_POSTGRES_PASSWORD=None, PGPOOL_ENABLE_POOL_PASSWD="no")
    assert roles(bare) == {"customuser": "custompassword"}
    bare.user("app", "of a directory % 1")
    given(bare, {}, PGPOOL_ENABLE_POOL_PASSWD=None, PGPOOL_USERS_DIR=str(bare.users))
    assert roles(bare) == {"customuser": "custompassword", "app": "of a directory % 1"}


def test_an_administrator_without_a_password_is_told(bare: Site) -> None:
    given(bare, BITNAMI, PGPOOL_ADMIN_PASSWORD=None)
    (warning,) = [each for each in bare.resolve().model.warnings if "PGPOOL_ADMIN_PASSWORD" in each]
    assert "is not set: " in warning


def test_a_role_whose_password_is_empty_is_told(bare: Site) -> None:
    given(bare, OFFICIAL, APP_USERNAME="app", APP_PASSWORD="", GIT_USERNAME="git", GIT_PASSWORD="git % pass")
    (warning,) = [each for each in bare.resolve().model.warnings if "names no role" in each]
    assert warning.startswith("APP_USERNAME names no role, because APP_PASSWORD is not set;")


def test_the_limit_of_the_search_for_a_primary_is_not_told_to_whoever_has_set_it(bare: Site) -> None:
    given(bare, BITNAMI, PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT="90")
    assert not any("search_primary_node_timeout" in each for each in bare.resolve().model.warnings)
    conf = bare.file("mine.conf", "search_primary_node_timeout = 80\n")
    given(bare, {}, PGPOOL_PARAMS_SEARCH_PRIMARY_NODE_TIMEOUT=None, PGPOOL_USER_CONF_FILE=str(conf))
    assert bare.conf()["search_primary_node_timeout"] == "80"
    assert not any("search_primary_node_timeout" in each for each in bare.resolve().model.warnings)


def test_names_of_the_servers_that_do_not_fit_count_for_nothing_without_auto_failback(bare: Site) -> None:
    given(bare, BITNAMI, PGPOOL_BACKEND_APPLICATION_NAMES="one")
    assert bare.conf()["backend_application_name0"] == "'pg-0'"


@pytest.mark.parametrize(
    "on", [{"PGPOOL_PARAMS_MEMORY_CACHE_ENABLED": "on"}, {"PGPOOL_PARAMS_MEMORY_CACHE_ENABLED_FILE": "{on}"}]
)
@pytest.mark.parametrize("image", ["bitnami", "official"])
def test_a_query_cache_that_is_on_has_the_size_it_has_there(bare: Site, image: str, on: dict[str, str]) -> None:
    placed = {name: value.format(on=bare.file("on", "true\n")) for name, value in on.items()}
    given(bare, BITNAMI if image == "bitnami" else OFFICIAL, **placed)
    written = bare.conf()
    assert written["memory_cache_enabled"] == "on"
    assert [written[name] for name in ("memqcache_total_size", "memqcache_max_num_cache")] == ["67108864", "1000000"]
    assert written["enable_shared_relcache"] == "on"
    assert bare.conf(PGPOOL_PARAMS_MEMQCACHE_TOTAL_SIZE="8MB")["memqcache_total_size"] == "'8MB'"


@pytest.mark.parametrize("value", ["on", "T", "y", "1", "TRUE"])
def test_pgpools_booleans_have_many_spellings(bare: Site, value: str) -> None:
    given(bare, OFFICIAL, PGPOOL_PARAMS_ENABLE_POOL_HBA=value)
    assert not any("enable_pool_hba is not on" in each for each in bare.resolve().model.warnings)
    given(bare, {}, PGPOOL_PARAMS_AUTO_FAILBACK=value)
    assert any("guessed from the hosts" in each for each in bare.resolve().model.warnings)


@pytest.mark.parametrize(
    ("image", "env"),
    [
        (None, {}),
        (None, {"PGPOOL_BACKENDS": "a=h"}),
        (None, {"PGPOOL_BACKENDS": "a=h", "PGPOOL_PARAMS_BACKEND_HOSTNAME0": "h"}),
        (None, {"PGPOOL_ENABLE_POOL_PASSWD": "yes"}),
        (None, {"PGPOOL_COMPAT": "none", "PGPOOL_BACKEND_NODES": "0:h"}),
        (None, {"PGPOOL_PORT": "tcp://10.0.0.1:5432", "GIT_USERNAME": "a", "GIT_PASSWORD": "b"}),
        ("bitnami", {"PGPOOL_BACKEND_NODES": "0:h"}),
        ("bitnami", {"PGPOOL_BACKEND_NODES_FILE": "/nodes"}),
        ("bitnami", {"PGPOOL_SR_CHECK_USER": "a"}),
        ("bitnami", {"PGPOOL_COMPAT": "bitnami", "PGPOOL_BACKENDS": "a=h"}),
        ("official", {"PGPOOL_PARAMS_BACKEND_HOSTNAME0": "h"}),
        ("official", {"PGPOOL_PARAMS_BACKEND_HOSTNAME0_FILE": "/h"}),
        ("official", {"PGPOOL_SKIP_PASSWORD_ENCRYPTION": "no"}),
        ("official", {"PGPOOL_COMPAT": "official"}),
    ],
)
def test_whose_words_these_are_is_told_from_what_is_set(image: str | None, env: dict[str, str]) -> None:
    assert image_of(env) == image


def test_a_mounted_pgpool_conf_is_the_official_images_and_its_variables_do_not_count(bare: Site) -> None:
    given(bare, foreign.MOUNTED.placed(bare.root), PGPOOL_PARAMS_MAX_POOL="9")
    assert bare.conf()["max_pool"] == "4"
    assert any(
        "not taken over, because" in each and "PGPOOL_PARAMS_MAX_POOL" in each for each in bare.resolve().model.warnings
    )


def test_our_own_settings_go_with_those_of_another_image(bare: Site) -> None:
    bare.user("app", "from a Secret % 1")
    given(bare, BITNAMI, PGPOOL_USERS_DIR=str(bare.users), PGPOOL_PARAMS_MAX_POOL="3", PGPOOL_PATRONI="on")
    assert roles(bare) == {**foreign.COMPOSE.roles, "app": "from a Secret % 1"}
    assert bare.conf()["max_pool"] == "3"
    assert bare.resolve().settings.patroni.enabled
    assert bare.resolve().settings.compat == "bitnami"


@pytest.mark.parametrize("named", ["tls.crt tls.key ca.crt", "server.crt server.key root.pem"])
def test_certificates_may_have_any_names(bare: Site, named: str) -> None:
    issued = Authority().issue().write(bare.root / "issued")
    variables = ("PGPOOL_TLS_CERT_FILE", "PGPOOL_TLS_KEY_FILE", "PGPOOL_TLS_CA_FILE")
    paths = {}
    for variable, name, source in zip(variables, named.split(), ("tls.crt", "tls.key", "ca.crt"), strict=True):
        paths[variable] = str(bare.file(f"certs/{name}", (issued / source).read_bytes()))
    given(bare, BITNAMI, PGPOOL_ENABLE_TLS="yes", **paths)
    bare.now = datetime.now(UTC)
    files = bare.tree().files
    assert [files[name] for name in ("tls.crt", "tls.key", "ca.crt")] == [
        (issued / name).read_bytes() for name in ("tls.crt", "tls.key", "ca.crt")
    ]
    assert b"hostssl" in files["pool_hba.conf"]
    warnings = " ".join(bare.resolve().model.warnings)
    assert "clients without TLS are refused" in warnings
    assert "does not make clients need a certificate" in warnings
    assert ("tls.crt for" in warnings) == ("server.crt" in named)


def test_a_key_in_a_variable_or_in_its_file_encrypts_pool_passwd(bare: Site) -> None:
    key = "a key % of ours"
    given(bare, BITNAMI, PGPOOL_AES_KEY=key)
    at_once = bare.tree().files["pool_passwd"]
    entries = dict(line.split(":", 1) for line in at_once.decode().splitlines())
    assert {role: aes_decrypter(key)(entry) for role, entry in entries.items()} == foreign.COMPOSE.roles
    given(bare, {}, PGPOOL_AES_KEY=None, PGPOOL_AES_KEY_FILE=str(bare.file("key", f"{key}\n")))
    assert bare.tree().files["pool_passwd"] == at_once


@pytest.mark.parametrize("name", foreign.ALL)
def test_what_is_recorded_for_the_sidecar_holds_no_secret_and_leads_it_to_the_same_bytes(bare: Site, name: str) -> None:
    case: Foreign = foreign.ALL[name]
    given(bare, case.placed(bare.root))
    resolved, tree = pipeline.prepare(bare.env, None, bare.now, to_run=True)
    publish(tree, bare.run_dir, booting=True)
    boot._write_inputs(bare.env, resolved.settings, resolved.model, INSTALLED)  # noqa: SLF001
    told = (bare.run_dir / "inputs.json").read_text()
    for secret in (*case.roles.values(), "admin % pass", "a key % of ours"):
        assert secret not in told
        assert secret.replace("\\", "\\\\").replace('"', '\\"') not in told
    inputs = read_inputs(bare.run_dir)
    secrets = {variable: bare.env[variable] for variable in inputs.withheld}
    desired = read_desired(bare.run_dir, secrets, bare.now)
    assert render(desired.resolved.model).digest == tree.digest
    assert desired.tree(desired.roles, desired.resolved.model.key).digest == tree.digest
    assert pcp_password(inputs, secrets, bare.run_dir) == resolved.model.pcp_password


def test_a_sidecar_without_the_secrets_is_told_which(bare: Site) -> None:
    given(bare, BITNAMI)
    resolved, _ = pipeline.prepare(bare.env, None, bare.now, to_run=True)
    boot._write_inputs(bare.env, resolved.settings, resolved.model, INSTALLED)  # noqa: SLF001
    with pytest.raises(ConfigurationError) as refusal:
        read_desired(bare.run_dir, {}, bare.now)
    missing = {problem.setting for problem in refusal.value.problems}
    assert missing == {"PGPOOL_SR_CHECK_PASSWORD", "PGPOOL_POSTGRES_PASSWORD", "PGPOOL_ADMIN_PASSWORD"}


def test_a_password_rotates_in_the_file_that_a_variable_names(bare: Site) -> None:
    case = foreign.CHART
    given(bare, case.placed(bare.root))
    resolved, _ = pipeline.prepare(bare.env, None, bare.now, to_run=True)
    boot._write_inputs(bare.env, resolved.settings, resolved.model, INSTALLED)  # noqa: SLF001
    bare.file("secrets/pgpool-password", "another % one")
    desired = read_desired(bare.run_dir, {}, bare.now)
    assert desired.roles.passwords["postgres"] == Secret("another % one")
    assert bare.root / "secrets/pgpool-password" in desired.resolved.places


def test_whose_words_they_are_is_recorded(bare: Site, catalogue: Catalogue) -> None:
    assert recorded({"PGPOOL_BACKENDS": "a=h"}, catalogue) == ({"PGPOOL_BACKENDS": "a=h"}, ())
    environment, _ = recorded(foreign.MOUNTED.placed(bare.root), catalogue)
    assert environment["PGPOOL_COMPAT"] == "official"
    named = str(bare.file("image", "bitnami\n"))
    assert recorded({"PGPOOL_COMPAT_FILE": named}, catalogue)[0] == {"PGPOOL_COMPAT": "bitnami"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("max_pool = 4", ("max_pool", "4")),
        ("  Max_Pool=4 # four", ("max_pool", "4")),
        ("max_pool 4\r", ("max_pool", "4")),
        ("a = ''", ("a", "")),
        ("a = 'b c # d = e'  # f", ("a", "b c # d = e")),
        ("a = 'it''s'", ("", None)),
        ("a = b c", ("", None)),
        ("a =", ("", None)),
        ("= b", ("", None)),
        ("a = 'b", ("", None)),
    ],
)
def test_a_line_of_a_pgpool_conf(line: str, expected: tuple[str, str | None]) -> None:
    (read,) = conf.lines(f"\n# comment\n{line}\n")
    assert (read.name, read.value) == expected
    assert read.number == 3
