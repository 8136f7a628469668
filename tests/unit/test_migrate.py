"""What `migrate` prints: the same pgpool in our own words, and no secret."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from entrypoint.__main__ import run
from entrypoint.catalogue import Catalogue
from entrypoint.compat.source import Source, read_source
from entrypoint.errors import ConfigurationError
from entrypoint.log import Log
from entrypoint.migrate import Migration, as_text, migrate
from support import foreign
from unit.conftest import Site


@pytest.fixture
def bare(tmp_path: Path, catalogue: Catalogue) -> Site:
    site = Site(tmp_path, catalogue)
    site.run_dir.mkdir()
    return site


def laid_out(site: Site, migration: Migration, contents: dict[str, str]) -> dict[str, str]:
    """The environment and the files that somebody makes who does what was printed."""
    places = {directory: site.root / "mounted" / name for name, directory in migration.mounts.items()}
    for name, keys in (migration.secrets | migration.config_maps).items():
        for key, words in keys.items():
            site.file(f"mounted/{name}/{key}", contents[words])
    env = dict(migration.settings)
    for directory, place in sorted(places.items(), key=lambda each: -len(each[0])):
        env = {name: value.replace(directory, str(place)) for name, value in env.items()}
    return {**env, "PGPOOL_USERS_DIR": str(places["/etc/pgpool/users"]), "PGPOOL_RUN_DIR": str(site.run_dir)}


def pgpools(name: str, catalogue: Catalogue) -> str:
    """pgpool's own default, encoded."""
    usual = catalogue.find(name)[0].default
    text = {True: "on", False: "off"}[usual] if isinstance(usual, bool) else str(usual)
    return catalogue.assign(name, text).encoded if usual is not None else ""


def words_of(env: dict[str, str]) -> dict[str, str]:
    """What the words for a secret stand for."""
    words = {f"the value of {name}": value for name, value in env.items()}
    files = [Path(value) for value in env.values() if value.startswith("/") and Path(value).is_file()]
    return words | {f"the content of {file}": file.read_text() for file in files}


@pytest.mark.parametrize("name", [name for name in foreign.ALL if name != "bitnami issues"])
def test_whoever_does_what_it_says_gets_the_same_pgpool(bare: Site, catalogue: Catalogue, name: str) -> None:
    case = foreign.ALL[name]
    env = case.placed(bare.root)
    migration = migrate(Source(env, {}), catalogue)
    bare.env = {**env, "PGPOOL_RUN_DIR": str(bare.run_dir)}
    there, before = bare.conf(), bare.tree()
    bare.env = laid_out(bare, migration, words_of(env))
    here, after = bare.conf(), bare.tree()
    for key in (there.keys() | here.keys()) - {"syslog_ident"}:
        assert there.get(key, pgpools(key, catalogue)) == here.get(key, pgpools(key, catalogue)), key
    for file in ("pool_passwd", "pool_hba.conf", "pcp.conf"):
        if file != "pcp.conf" or "PGPOOL_PCP_PASSWORD_FILE" in bare.env:
            assert before.files[file] == after.files[file]


@pytest.mark.parametrize("name", foreign.ALL)
def test_no_secret_is_printed_and_all_of_it_is_yaml(tmp_path: Path, catalogue: Catalogue, name: str) -> None:
    case = foreign.ALL[name]
    variable = "PGPOOL_PCP_PASSWORD" if name.startswith("official") else "PGPOOL_ADMIN_PASSWORD"
    env = case.placed(tmp_path) | {variable: "s3cret % pcp"}
    env.pop("PGPOOL_ADMIN_PASSWORD_FILE", None)
    text = as_text(migrate(Source(env, {}), catalogue))
    for secret in (*case.roles.values(), "s3cret % pcp", "a key % of ours", "admin pass"):
        assert secret not in text
    config_map, _, patch, _ = yaml.safe_load_all(text)
    assert config_map["kind"] == "ConfigMap"
    assert all(isinstance(value, str) for value in config_map["data"].values())
    pod: dict[str, Any] = patch["spec"]["template"]["spec"]
    assert {each["name"] for each in pod["volumes"]} == {each["name"] for each in pod["containers"][0]["volumeMounts"]}


def test_each_difference_of_a_default_is_told_with_its_reason(catalogue: Catalogue) -> None:
    told = migrate(Source(foreign.COMPOSE.environment, {}), catalogue).differences
    (line,) = [each for each in told if "MAX_POOL" in each]
    assert line.startswith("PGPOOL_PARAMS_MAX_POOL=15 keeps a default of bitnami/pgpool; without it, it is 1 (")
    assert any("search_primary_node_timeout is not 0" in each for each in told)


def test_a_secret_parameter_goes_into_a_secret(catalogue: Catalogue) -> None:
    env = {**foreign.MINIMAL.environment, "PGPOOL_PARAMS_WD_AUTHKEY": "a key % of the watchdog"}
    migration = migrate(Source(env, {}), catalogue)
    assert migration.settings["PGPOOL_PARAMS_WD_AUTHKEY_FILE"] == "/etc/pgpool/parameters/wd_authkey"
    assert migration.secrets["pgpool-parameters"] == {"wd_authkey": "the value of PGPOOL_PARAMS_WD_AUTHKEY"}
    assert "of the watchdog" not in as_text(migration)


def test_a_reserved_parameter_is_refused_without_its_value(catalogue: Catalogue) -> None:
    env = {**foreign.MINIMAL.environment, "PGPOOL_PARAMS_RECOVERY_PASSWORD": "a % secret"}
    with pytest.raises(ConfigurationError, match="PGPOOL_PARAMS_RECOVERY_PASSWORD") as refusal:
        migrate(Source(env, {}), catalogue)
    assert "a % secret" not in str(refusal.value)


def test_files_that_are_not_here_are_named(catalogue: Catalogue) -> None:
    env = {name: value.replace("{DIR}", "/not/here") for name, value in foreign.CHART.environment.items()}
    migration = migrate(Source(env, {}), catalogue)
    assert migration.secrets["pgpool-users"] == {
        "postgres": "the content of /not/here/secrets/pgpool-password",
        "repmgr": "the content of /not/here/secrets/sr-check-password",
    }
    assert any("the lines of /not/here/user_config/pgpool.conf are missing" in each for each in migration.differences)


def test_a_template_with_placeholders_is_translated(tmp_path: Path, catalogue: Catalogue) -> None:
    template = tmp_path / "pgpool.conf"
    template.write_text(
        "backend_hostname0 = '10.0.0.1'\nbackend_hostname1 = '10.0.0.2'\nsr_check_user = 'checker'\n"
        "sr_check_password = '@@CHECK_PASSWORD@@'\nmax_pool = 2\nlogdir = '/tmp'\n"
    )
    source = read_source(f"PGPOOL_COMPAT=official\nPGPOOL_CONF_VOLUME={tmp_path}\n")
    migration = migrate(source, catalogue)
    assert migration.settings["PGPOOL_BACKENDS"] == "node-0=10.0.0.1:5432,node-1=10.0.0.2:5432"
    assert migration.settings["PGPOOL_CHECK_USER"] == "checker"
    assert migration.settings["PGPOOL_PARAMS_MAX_POOL"] == "2"
    assert migration.secrets == {"pgpool-users": {"checker": f"the password in line 4 of {template}"}}


REFERENCES = {
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {"name": "exporter", "env": [{"name": "POSTGRES_USERNAME", "value": "x"}]},
                    {
                        "name": "pgpool",
                        "env": [
                            {"name": "PGPOOL_PARAMS_BACKEND_HOSTNAME0", "value": "db"},
                            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                            *(
                                {"name": name, "valueFrom": {"secretKeyRef": {"name": "db", "key": key}}}
                                for name, key in (("POSTGRES_USERNAME", "username"), ("POSTGRES_PASSWORD", "password"))
                            ),
                        ],
                    },
                ]
            }
        }
    }
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(REFERENCES),
        json.dumps({"kind": "List", "items": [REFERENCES]}),
        yaml.safe_dump(REFERENCES),
        "# two of a directory\n---\n"
        + yaml.safe_dump_all([{"kind": "Service", "spec": {"type": "ClusterIP"}}, REFERENCES]),
    ],
    ids=["JSON", "a list", "YAML", "several documents"],
)
def test_what_a_deployment_takes_from_a_secret_is_referred_to(text: str, catalogue: Catalogue) -> None:
    migration = migrate(read_source(text), catalogue)
    assert migration.secrets == {
        "pgpool-user-0": {
            "username": "the value of POSTGRES_USERNAME: key username of the Secret db",
            "password": "the value of POSTGRES_PASSWORD: key password of the Secret db",
        }
    }
    assert migration.mounts == {"pgpool-user-0": "/etc/pgpool/users/pgpool-user-0"}
    assert migration.settings["PGPOOL_CHECK_USER_FILE"] == "/etc/pgpool/users/pgpool-user-0/username"
    assert "value-of-" not in as_text(migration)


def test_a_container_as_docker_describes_it(catalogue: Catalogue) -> None:
    inspected = [{"Config": {"Env": [f"{name}={value}" for name, value in foreign.COMPOSE.environment.items()]}}]
    listed = "\n".join(f"{name}={value}" for name, value in foreign.COMPOSE.environment.items())
    both = [
        as_text(migrate(read_source(text), catalogue))
        for text in (json.dumps(inspected), f"# env\n\n{listed}\nPATH=/bin\n")
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ("", "is not an environment of"),
        ("PATH=/bin", "is not an environment of"),
        ("PGPOOL_BACKENDS=a=h", "is not an environment of"),
        ("what is this", "is no NAME=value"),
        ("kind: Deployment", "describes no container"),
        ("# ours\n---\nkind: Deployment\n  spec: 1", r"is no YAML \(line 4\)"),
        ("{", "is no JSON"),
        ("[]", "describes no container"),
        ('{"kind": "Secret"}', "describes no container"),
        (json.dumps([{"Env": [f"PGPOOL_BACKEND_NODES=0:{host}"]} for host in "ab"]), "has 2 containers"),
        (
            json.dumps({"containers": [{"env": [{"name": "PGPOOL_MAX_POOL", "valueFrom": {"configMapKeyRef": {}}}]}]}),
            "has a value that is not here",
        ),
        ("PGPOOL_BACKEND_NODES=0:a\nPGPOOL_BACKENDS=a=h", "is not an environment of"),
        ("PGPOOL_BACKEND_NODES=0:a\nPGPOOL_PARAMS_BACKEND_HOSTNAME0=h", "ways of different images"),
        ("PGPOOL_BACKEND_NODES=0:a\nPGPOOL_MAX_POOL=abc", "'abc' is not a whole number"),
    ],
)
def test_what_cannot_be_read_is_told(content: str, what: str, catalogue: Catalogue) -> None:
    with pytest.raises(ConfigurationError, match=what):
        migrate(read_source(content), catalogue)


@pytest.mark.parametrize("source", ["file", "standard input"])
def test_the_command_reads_a_file_or_standard_input(
    tmp_path: Path, source: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = "\n".join(f"{name}={value}" for name, value in foreign.COMPOSE.environment.items())
    (tmp_path / "env").write_text(listed)
    monkeypatch.setattr("sys.stdin", io.StringIO("" if source == "file" else listed))
    assert run(["migrate", *([str(tmp_path / "env")] if source == "file" else [])], {}, Log("test", io.StringIO())) == 0
    printed = capsys.readouterr().out
    assert 'PGPOOL_BACKENDS: "pg-0=pg-0:5432,pg-1=pg-1:5432" # from PGPOOL_BACKEND_NODES\n' in printed
    assert "adminpassword" not in printed


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"\xe4")
    for name, what in (("none", "No such file"), ("latin", "is not UTF-8 text")):
        with pytest.raises(ConfigurationError, match=what):
            run(["migrate", str(tmp_path / name)], {}, Log("test", io.StringIO()))
