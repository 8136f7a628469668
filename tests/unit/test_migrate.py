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
from entrypoint.migrate import migrate
from entrypoint.migration import Migration, as_text
from support import foreign
from support.certificates import Authority
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
    return words | foreign.pair_in_words() | {f"the content of {file}": file.read_text() for file in files}


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
    assert migration.settings["PGPOOL_BACKENDS"] == "unnamed-0=10.0.0.1:5432,unnamed-1=10.0.0.2:5432"
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
        f"\n# Windows\n\n{yaml.safe_dump(REFERENCES)}".replace("\n", "\r\n"),
    ],
    ids=["JSON", "a list", "YAML", "several documents", "CRLF"],
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
        ("PGPOOL_BACKEND_NODES=0:a:5432\n1:b:5432", "line 2 .*\n.*rest of a value"),
        ("PGPOOL_BACKEND_NODES=0:a\nPATH=/bin\n- PGPOOL_MAX_POOL=3", "line 3 "),
        ("PGPOOL_BACKEND_NODES=0:a\nPATH=/bin\nPGPOOL_MAX_POOL", "line 3 "),
        ("kind: Pod\nmetadata: {x: 2024-02-30}", "is no YAML"),
        ("kind: Pod\nmetadata: {x: 0x_}", "is no YAML"),
        ("items: &a\n  - *a\n", "in another form than Kubernetes"),
        ("[" * 100_000, "is JSON of too many levels"),
        ("kind: Deployment", "describes no container"),
        ("# ours\n---\nkind: Deployment\n  spec: 1", r"is no YAML \(line 4\)"),
        ("{", "is no JSON"),
        ("[]", "describes no container"),
        ('{"kind": "Secret"}', "describes no container"),
        (json.dumps([{"Env": [f"PGPOOL_BACKEND_NODES=0:{host}"]} for host in "ab"]), "has 2 containers"),
        (json.dumps({"containers": [None]}), "in another form than Kubernetes"),
        (json.dumps({"containers": [{"env": [{"value": "x"}]}]}), "in another form than Kubernetes"),
        (
            json.dumps({"containers": [{"env": [{"name": "A_PASSWORD", "valueFrom": {"secretKeyRef": None}}]}]}),
            "another form",
        ),
        (json.dumps({"containers": [{"env": "x"}]}), "in another form than Kubernetes"),
        ("\n" * 60_000 + "PATH=/bin", "is not an environment of"),
        ('PGPOOL_BACKEND_NODES="0:a"', "remove the quotes: they are part of the value"),
        ("PGPOOL_BACKEND_NODES=0:a\nPGPOOL_BACKENDS=a=h", "is not an environment of"),
        ("PGPOOL_BACKEND_NODES=0:a\nPGPOOL_PARAMS_BACKEND_HOSTNAME0=h", "ways of different images"),
        ("PGPOOL_BACKEND_NODES=0:a\nPGPOOL_MAX_POOL=abc", "'abc' is not a whole number"),
    ],
)
def test_what_cannot_be_read_is_told(content: str, what: str, catalogue: Catalogue) -> None:
    with pytest.raises(ConfigurationError, match=what):
        migrate(read_source(content), catalogue)


def test_a_value_of_several_lines_that_is_nobodys_business_is_no_fault(catalogue: Catalogue) -> None:
    content = "CERTIFICATE=-----BEGIN\nabc\n-----END\nPGPOOL_BACKEND_NODES=0:a\nPGPOOL_POSTGRES_PASSWORD=x\n"
    content += "some.prop=1\nPGPOOL_PORT_NUMBER=5433\nBASH_FUNC_which%%=() {\n true\n}\n"
    assert migrate(read_source(content), catalogue).settings["PGPOOL_BACKENDS"] == "a=a:5432"


def test_the_list_alone_that_docker_prints_will_do(catalogue: Catalogue) -> None:
    content = json.dumps(["PGPOOL_BACKEND_NODES=0:a", "PGPOOL_POSTGRES_PASSWORD=x"])
    assert migrate(read_source(content), catalogue).settings["PGPOOL_BACKENDS"] == "a=a:5432"


def test_of_two_variables_of_one_name_the_last_counts(catalogue: Catalogue) -> None:
    other = value("PGPOOL_POSTGRES_PASSWORD", "S3CRET")
    migration = migrate(read_source(deployment(NODES, "PGPOOL_POSTGRES_PASSWORD", other)), catalogue)
    assert migration.secrets["pgpool-users"] == {"postgres": "the value of PGPOOL_POSTGRES_PASSWORD"}
    migration = migrate(read_source(deployment(NODES, other, "PGPOOL_POSTGRES_PASSWORD")), catalogue)
    assert "of the Secret db" in migration.secrets["pgpool-users"]["postgres"]


def test_a_value_that_yaml_takes_for_no_text_is_one(catalogue: Catalogue) -> None:
    variables = [
        {"name": "PGPOOL_ENABLE_LOAD_BALANCING", "value": False},
        {"name": "PGPOOL_HEALTH_CHECK_PERIOD", "value": 0},
    ]
    migration = migrate(read_source(deployment(NODES, "PGPOOL_POSTGRES_PASSWORD", *variables)), catalogue)
    assert "PGPOOL_PARAMS_LOAD_BALANCE_MODE" not in migration.settings, "off, as in this image"
    assert migration.settings["PGPOOL_PARAMS_HEALTH_CHECK_PERIOD"] == "0"


def test_our_own_settings_may_be_in_files_there_too(site: Site, catalogue: Catalogue) -> None:
    given = {
        "PGPOOL_PATRONI": "on",
        "PGPOOL_CHECK_USER": "checker",
        "PGPOOL_HBA_FILE": "/config2/hba",
        "PGPOOLKEYFILE": "/config2/key",
        "PGPOOL_RUN_DIR": "/var/run/pg",
        "PGPOOL_SIDECAR_HTTP": ":9720",
        "PGPOOL_TLS_DIR": "/config2/tls",
    }
    env = foreign.MINIMAL.environment | {f"{name}_FILE": str(site.file(name, text)) for name, text in given.items()}
    migration = migrate(Source(env, {}), catalogue)
    told = {name: migration.settings.get(name) for name in given if name in migration.settings}
    assert told == {
        "PGPOOL_PATRONI": "on",
        "PGPOOL_CHECK_USER": "checker",
        "PGPOOL_HBA_FILE": "/etc/pgpool/hba/pool_hba.conf",
        "PGPOOLKEYFILE": "/etc/pgpool/key/aes.key",
        "PGPOOL_RUN_DIR": "/var/run/pg",
        "PGPOOL_SIDECAR_HTTP": ":9720",
        "PGPOOL_TLS_DIR": "/etc/pgpool/tls",
    }
    assert "mountPath: /var/run/pg" in as_text(migration)


def test_our_own_directory_with_an_authority_keeps_it(site: Site, catalogue: Catalogue) -> None:
    place = Authority().issue().write(site.root / "tls")
    hba = site.file("hba", "hostssl all all all cert\n")
    env = foreign.MINIMAL.environment | {"PGPOOL_TLS_DIR": str(place), "PGPOOL_HBA_FILE": str(hba)}
    migration = migrate(Source(env, {}), catalogue)
    assert migration.secrets["pgpool-tls"].keys() == {"tls.crt", "tls.key", "ca.crt"}
    assert not any("will be refused" in each for each in migration.differences)


def test_files_other_than_passwords_are_traced_to_their_secret_too(catalogue: Catalogue) -> None:
    certificate = {
        "PGPOOL_ENABLE_TLS": "yes",
        "PGPOOL_TLS_CERT_FILE": "/c/tls.crt",
        "PGPOOL_TLS_KEY_FILE": "/c/tls.key",
    }
    mount = {"volumeMounts": [{"name": "c", "mountPath": "/c"}]}
    variables = [value(name, text) for name, text in certificate.items()]
    document = json.loads(deployment(NODES, "PGPOOL_POSTGRES_PASSWORD", *variables, **mount))
    document["spec"]["template"]["spec"]["volumes"] = [{"name": "c", "secret": {"secretName": "pgtls"}}]
    migration = migrate(read_source(json.dumps(document)), catalogue)
    assert migration.secrets["pgpool-tls"]["tls.key"] == "the content of /c/tls.key: key tls.key of the Secret pgtls"


def test_the_lines_of_a_file_that_is_not_here_are_missed_however_its_path_is_written(catalogue: Catalogue) -> None:
    env = foreign.COMPOSE.environment | {"PGPOOL_USER_CONF_FILE": "/not//here/pgpool.conf"}
    assert any("are missing here" in each for each in migrate(Source(env, {}), catalogue).differences)


def test_a_control_character_leaves_it_yaml(catalogue: Catalogue) -> None:
    env = foreign.MINIMAL.environment | {"PGPOOL_PARAMS_LOG_LINE_PREFIX": "a\x7fb"}
    config_map, *_ = yaml.safe_load_all(as_text(migrate(Source(env, {}), catalogue)))
    assert config_map["data"]["PGPOOL_PARAMS_LOG_LINE_PREFIX"] == "a\x7fb"


def deployment(*variables: dict[str, Any] | str, **fields: object) -> str:
    """A Deployment whose container has these variables; those that are only named, from a Secret."""
    env = [
        {"name": each, "valueFrom": {"secretKeyRef": {"name": "db", "key": each.lower()}}}
        if isinstance(each, str)
        else each
        for each in variables
    ]
    return json.dumps({"spec": {"template": {"spec": {"containers": [{"name": "main", "env": env, **fields}]}}}})


def value(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


NODES = value("PGPOOL_BACKEND_NODES", "0:a,1:b")
HOST = value("PGPOOL_PARAMS_BACKEND_HOSTNAME0", "a")
FIELD = {"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
CONFIG_MAP = {"valueFrom": {"configMapKeyRef": {"name": "db", "key": "x"}}}
ROLE = ("POSTGRES_USERNAME", "POSTGRES_PASSWORD")
MOUNTED_FILES = "may have pgpool.conf, pool_hba.conf or a certificate"


CHART = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: db-pgpool
  namespace: shop
spec:
  template:
    spec:
      containers:
        - name: pgpool
          image: registry-1.docker.io/bitnami/pgpool:4.6.3
          env:
            - name: NAMESPACE
              valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
            - name: ROLE
              valueFrom: {secretKeyRef: {name: roles, key: check}}
            - name: PGPOOL_BACKEND_NODES
              value: 0:db-0.db.$(NAMESPACE).svc:5432,1:db-1.db.$(NAMESPACE).svc:5432,
            - name: PGPOOL_SR_CHECK_USER
              value: $(ROLE)
            - name: PGPOOL_SR_CHECK_PASSWORD_FILE
              value: /opt/bitnami/pgpool/secrets/sr-check-password
            - name: PGPOOL_POSTGRES_PASSWORD_FILE
              value: /opt/secrets/password
            - name: PGPOOL_ADMIN_PASSWORD_FILE
              value: /opt/all/admin
            - name: PGPOOL_LOG_LINE_PREFIX
              value: "$$(NAMESPACE) %m $ "
          volumeMounts:
            - name: passwords
              mountPath: /opt/bitnami/pgpool/secrets/sr-check-password
              subPath: sr-check-password
            - name: some
              mountPath: /opt/secrets
            - name: projected
              mountPath: /opt/all/
      volumes:
        - name: passwords
          secret: {secretName: db-pgpool}
        - name: some
          secret: {secretName: db-postgresql, items: [{key: postgres, path: password}]}
        - name: projected
          projected: {sources: [{configMap: {name: x}}, {secret: {name: db-admin}}]}
"""
"""As the chart postgresql-ha has it, and more kinds of volumes."""


def test_a_manifest_is_filled_in_as_kubernetes_does(catalogue: Catalogue) -> None:
    migration = migrate(read_source(CHART), catalogue)
    assert migration.settings["PGPOOL_BACKENDS"] == "db-0=db-0.db.shop.svc:5432,db-1=db-1.db.shop.svc:5432"
    assert migration.settings["PGPOOL_PARAMS_LOG_LINE_PREFIX"] == "$(NAMESPACE) %m $ "
    assert "$(" not in as_text(migration).replace("$(NAMESPACE) %m", "")
    assert migration.secrets == {
        "pgpool-users": {"postgres": "the content of /opt/secrets/password: key postgres of the Secret db-postgresql"},
        "pgpool-user-1": {
            "username": "the value of PGPOOL_SR_CHECK_USER: key check of the Secret roles",
            "password": "the content of /opt/bitnami/pgpool/secrets/sr-check-password: "
            "key sr-check-password of the Secret db-pgpool",
        },
        "pgpool-pcp": {"password": "the content of /opt/all/admin: key admin of the Secret db-admin"},
    }


@pytest.mark.parametrize(
    "variables",
    [
        [value("PGPOOL_BACKEND_NODES", "0:$(NOBODY)"), "PGPOOL_POSTGRES_PASSWORD"],
        ["HOST", value("PGPOOL_BACKEND_NODES", "0:$(HOST)"), "PGPOOL_POSTGRES_PASSWORD"],
        ["PASSWORD_OF", value("PGPOOL_BACKEND_NODES", "0:a$(PASSWORD_OF)"), "PGPOOL_POSTGRES_PASSWORD"],
        [value("PGPOOL_BACKEND_NODES", "0:$(LATER)"), value("LATER", "a"), "PGPOOL_POSTGRES_PASSWORD"],
        [{"name": "IP", **FIELD}, value("PGPOOL_BACKEND_NODES", "0:$(IP)"), "PGPOOL_POSTGRES_PASSWORD"],
    ],
)
def test_a_manifest_that_refers_to_what_is_not_in_it_is_told(
    variables: list[dict[str, Any] | str], catalogue: Catalogue
) -> None:
    with pytest.raises(ConfigurationError, match=r"PGPOOL_BACKEND_NODES \(manifest\)\n +has a value that is not here"):
        migrate(read_source(deployment(*variables, image="bitnami/pgpool")), catalogue)


def test_the_name_of_the_image_tells_whose_manifest_it_is(catalogue: Catalogue) -> None:
    mounted = {"volumeMounts": [{"name": "conf", "mountPath": "/config"}]}
    for image in ("pgpool/pgpool:4.4.3", "docker.io/pgpool/pgpool", "pgpool/pgpool@sha256:0"):
        with pytest.raises(ConfigurationError, match=r"may have pgpool.conf"):
            migrate(read_source(deployment(image=image, **mounted)), catalogue)
    for image in ("my/pgpool", "pgpool/pgpool_exporter"):
        with pytest.raises(ConfigurationError, match="is not an environment of"):
            migrate(read_source(deployment(image=image, **mounted)), catalogue)


def test_a_compose_file_is_told_from_what_can_be_read(catalogue: Catalogue) -> None:
    with pytest.raises(ConfigurationError, match=r"is a compose file, .*\n.* docker inspect"):
        migrate(read_source("services:\n  pgpool:\n    image: bitnami/pgpool\n"), catalogue)


def test_two_passwords_of_a_role_are_refused_or_told_where_nobody_knows_whether_they_differ(
    catalogue: Catalogue,
) -> None:
    passwords = ("PGPOOL_SR_CHECK_PASSWORD", "PGPOOL_POSTGRES_PASSWORD")
    twice = deployment(NODES, value("PGPOOL_SR_CHECK_USER", "postgres"), *passwords)
    migration = migrate(read_source(twice), catalogue)
    (told,) = [each for each in migration.differences if "'postgres' has its password twice" in each]
    assert told.endswith("must be the same")
    assert len(migration.secrets["pgpool-users"]) == 1
    known = "PGPOOL_BACKEND_NODES=0:a\nPGPOOL_SR_CHECK_USER=postgres\nPGPOOL_SR_CHECK_PASSWORD=S3CRET 1\n"
    with pytest.raises(ConfigurationError, match="has another password in the value of") as error:
        migrate(read_source(f"{known}PGPOOL_POSTGRES_PASSWORD=S3CRET 2\n"), catalogue)
    assert "S3CRET" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (deployment({"name": "PGPOOL_MAX_POOL", **CONFIG_MAP}), {"PGPOOL_MAX_POOL": "has a value that is not here"}),
        (
            deployment(HOST, {"name": "APP_USERNAME", **CONFIG_MAP}, value("APP_PASSWORD", "x")),
            {"APP_USERNAME": "has a value that is not here"},
        ),
        (
            deployment("PGPOOL_PARAMS_BACKEND_HOSTNAME0", "PGPOOL_PARAMS_PORT", *ROLE),
            dict.fromkeys(("PGPOOL_PARAMS_BACKEND_HOSTNAME0", "PGPOOL_PARAMS_PORT"), "has a value that is not here"),
        ),
        (
            deployment(NODES, "PGPOOL_POSTGRES_CUSTOM_USERS", "PGPOOL_POSTGRES_CUSTOM_PASSWORDS"),
            dict.fromkeys(
                ("PGPOOL_POSTGRES_CUSTOM_USERS", "PGPOOL_POSTGRES_CUSTOM_PASSWORDS"), "has a value that is not here"
            ),
        ),
        (
            deployment(NODES, "PGPOOL_SR_CHECK_USER", "PGPOOL_POSTGRES_PASSWORD", value("PGPOOL_USERS_DIR", "/users")),
            {"PGPOOL_CHECK_USER": "has a value that is not here"},
        ),
        (deployment(NODES, envFrom=[{"secretRef": {"name": "db"}}]), {"envFrom": "has variables that are not here"}),
        (deployment(envFrom=[{"secretRef": {"name": "db"}}]), {"envFrom": "has variables that are not here"}),
        (deployment(HOST, volumeMounts=[{"mountPath": "/config/"}]), {"/config/": MOUNTED_FILES}),
        (deployment(HOST, volumeMounts=[{"mountPath": "/config/tls"}]), {"/config/tls": MOUNTED_FILES}),
        (
            deployment(HOST, value("PGPOOL_CONF_VOLUME", "/data/conf"), volumeMounts=[{"mountPath": "/data"}]),
            {"/data": MOUNTED_FILES},
        ),
        (
            json.dumps(
                [
                    {
                        "Config": {"Env": ["PGPOOL_PARAMS_BACKEND_HOSTNAME0=a", "PGPOOL_PARAMS_PORT_FILE=/not/here"]},
                        "Mounts": [{"Destination": "/config/pgpool.conf"}],
                    }
                ]
            ),
            {
                "/config/pgpool.conf": MOUNTED_FILES,
                "PGPOOL_PARAMS_PORT_FILE": "is not readable here",
            },
        ),
        (
            (
                "PGPOOL_BACKEND_NODES_FILE=/not/1\nPGPOOL_POSTGRES_CUSTOM_USERS_FILE=/not/2\n"
                "PGPOOL_POSTGRES_CUSTOM_PASSWORDS_FILE=/not/3\nPGPOOL_ADMIN_USERNAME_FILE=/not/4\n"
                "PGPOOL_POSTGRES_PASSWORD_FILE=/not/5\nPGPOOL_USER_CONF_FILE=/not/6\nPGPOOL_PATRONI_FILE=/not/7"
            ),
            dict.fromkeys(
                (
                    "PGPOOL_BACKEND_NODES_FILE",
                    "PGPOOL_POSTGRES_CUSTOM_USERS_FILE",
                    "PGPOOL_POSTGRES_CUSTOM_PASSWORDS_FILE",
                    "PGPOOL_ADMIN_USERNAME_FILE",
                    "PGPOOL_PATRONI_FILE",
                ),
                "is not readable here",
            ),
        ),
        (
            "PGPOOL_PARAMS_BACKEND_HOSTNAME0=a\nAPP_USERNAME_FILE=/not/1\nAPP_PASSWORD_FILE=/not/2",
            {"APP_USERNAME_FILE": "is not readable here"},
        ),
    ],
)
def test_what_is_only_in_the_container_is_told_all_at_once(
    content: str, told: dict[str, str], catalogue: Catalogue
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        migrate(read_source(content), catalogue)
    assert {each.setting: each.what for each in refusal.value.problems} == told
    for each in refusal.value.problems:
        assert ("kubectl exec" in each.remedy) == (each.what != "is not readable here")


@pytest.mark.parametrize(
    "content",
    [
        deployment(HOST, *ROLE, {"name": "NODE_NAME", **CONFIG_MAP}, volumeMounts=[{"mountPath": "/configuration"}]),
        deployment(NODES, "PGPOOL_POSTGRES_PASSWORD", volumeMounts=[{"mountPath": "/config"}]),
        json.dumps({"Config": {"Env": ["PGPOOL_PARAMS_BACKEND_HOSTNAME0=a", "A_USERNAME=a", "A_PASSWORD=b"]}}),
    ],
    ids=["official", "bitnami", "docker"],
)
def test_files_of_this_machine_are_not_taken_for_those_of_another_container(
    content: str, tmp_path: Path, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pgpool.conf").write_text("backend_hostname0 = 'of this machine'\n")
    (tmp_path / "pool_hba.conf").write_text("local all all scram-sha-256\n")
    (tmp_path / "1.sh").write_text("exit 1\n")
    monkeypatch.setattr("entrypoint.compat.official.volume", lambda _: tmp_path)
    monkeypatch.setattr("entrypoint.compat.bitnami.INIT_SCRIPTS", tmp_path)
    migration = migrate(read_source(content), catalogue)
    assert migration.settings["PGPOOL_BACKENDS"].startswith("a=a:5432")
    assert str(tmp_path) not in as_text(migration)


def test_mounted_scripts_are_told(catalogue: Catalogue) -> None:
    source = deployment(
        NODES, "PGPOOL_POSTGRES_PASSWORD", volumeMounts=[{"mountPath": "/docker-entrypoint-initdb.d/x"}]
    )
    (line,) = [each for each in migrate(read_source(source), catalogue).differences if "initdb.d/x" in each]
    assert "are not run; set what they change" in line


def test_the_patch_fits_the_container_and_ends_what_belongs_to_the_other_image(catalogue: Catalogue) -> None:
    source = deployment(HOST, *ROLE, args=["--password=a % secret"], lifecycle={"preStop": {}})
    text = as_text(migration := migrate(read_source(source), catalogue))
    _, _, patch, _ = yaml.safe_load_all(text)
    (container,) = patch["spec"]["template"]["spec"]["containers"]
    assert container["name"] == "main"
    fields = ("command", "args", "env", "lifecycle", "startupProbe")
    assert [container[field] for field in fields] == [None] * len(fields)
    (line,) = [each for each in migration.differences if "args, lifecycle" in each]
    assert "are not taken over" in line
    assert "a % secret" not in text


def test_a_role_that_two_variables_take_from_one_key_of_a_secret_is_one_role(catalogue: Catalogue) -> None:
    keys = {"USER": "name", "PASSWORD": "pass"}
    variables = [
        {
            "name": f"PGPOOL_PARAMS_{check}_{what}",
            "valueFrom": {"secretKeyRef": {"name": "check", "key": key}},
        }
        for check in ("SR_CHECK", "HEALTH_CHECK")
        for what, key in keys.items()
    ]
    migration = migrate(read_source(deployment(HOST, *variables)), catalogue)
    assert migration.secrets == {
        "pgpool-user-0": {
            "username": "the value of PGPOOL_PARAMS_SR_CHECK_USER: key name of the Secret check",
            "password": "the value of PGPOOL_PARAMS_SR_CHECK_PASSWORD: key pass of the Secret check",
        }
    }


@pytest.mark.parametrize("form", ["variable", "file"])
def test_each_of_several_roles_is_told_its_part_of_the_list(tmp_path: Path, catalogue: Catalogue, form: str) -> None:
    (tmp_path / "list").write_text("1%p,2%p\n")
    name = "PGPOOL_POSTGRES_CUSTOM_PASSWORDS"
    given = {name: "1%p,2%p"} if form == "variable" else {f"{name}_FILE": f"{tmp_path}/list"}
    words = f"the value of {name}" if form == "variable" else f"the content of {tmp_path}/list"
    env = {**foreign.COMPOSE.environment, "PGPOOL_POSTGRES_CUSTOM_USERS": "one;two", **given}
    users = migrate(Source(env, {}), catalogue).secrets["pgpool-users"]
    assert [users["one"], users["two"]] == [f"part 1 of {words}", f"part 2 of {words}"]


@pytest.mark.parametrize("form", ["variable", "line", "bitnami"])
def test_commands_are_not_printed_for_they_may_hold_a_secret(tmp_path: Path, catalogue: Catalogue, form: str) -> None:
    env = foreign.MINIMAL.environment | {"PGPOOL_PARAMS_SSL_PASSPHRASE_COMMAND": "echo a%secret"}
    words = "the value of PGPOOL_PARAMS_SSL_PASSPHRASE_COMMAND"
    if form == "line":
        env = foreign.MOUNTED.placed(tmp_path)
        conf = tmp_path / "config/pgpool.conf"
        conf.write_text("ssl_passphrase_command = 'echo a%secret'\n" + conf.read_text())
        words = f"the value in line 1 of {conf}"
    elif form == "bitnami":
        env = foreign.COMPOSE.environment | {"PGPOOL_PARAMS_SSL_PASSPHRASE_COMMAND": "echo a%secret"}
    migration = migrate(Source(env, {}), catalogue)
    variable = "PGPOOL_PARAMS_SSL_PASSPHRASE_COMMAND_FILE"
    assert migration.settings[variable] == "/etc/pgpool/parameters/ssl_passphrase_command"
    assert migration.secrets["pgpool-parameters"] == {"ssl_passphrase_command": words}
    assert "a%secret" not in as_text(migration)


def test_a_command_that_is_refused_is_not_printed_either(catalogue: Catalogue) -> None:
    env = foreign.MINIMAL.environment | {"PGPOOL_PARAMS_SSL_PASSPHRASE_COMMAND": "echo 'a%secret'"}
    with pytest.raises(ConfigurationError, match="SSL_PASSPHRASE_COMMAND") as refusal:
        migrate(Source(env, {}), catalogue)
    assert "a%secret" not in str(refusal.value)


@pytest.mark.parametrize("cache", ["off", "on"])
def test_defaults_of_ours_that_go_along_are_told_too(catalogue: Catalogue, cache: str) -> None:
    env = foreign.MINIMAL.environment | {"PGPOOL_PARAMS_MEMORY_CACHE_ENABLED": cache}
    told = "\n".join(migrate(Source(env, {}), catalogue).differences)
    assert "log_pcp_processes is off here" in told
    assert ("memqcache_total_size is 4MB here" in told) == (cache == "off")
    assert ("PGPOOL_PARAMS_MEMQCACHE_TOTAL_SIZE=67108864 keeps a default" in told) == (cache == "on")


def test_our_own_directories_beside_the_other_images_words_are_not_forgotten(
    tmp_path: Path, catalogue: Catalogue
) -> None:
    env = foreign.MINIMAL_TLS.environment | {"PGPOOL_TLS_DIR": "/certs", "PGPOOL_USERS_DIR": "/users"}
    migration = migrate(Source(env, {}), catalogue)
    words = {file: f"the content of /certs/{file}" for file in ("tls.crt", "tls.key", "ca.crt")}
    words["ca.crt"] += ", if it is there"
    assert migration.secrets["pgpool-tls"] == words
    assert migration.mounts["pgpool-users"] == "/etc/pgpool/users"
    assert migration.settings["PGPOOL_TLS_DIR"] == "/etc/pgpool/tls"
    assert any("/users" in each and "pgpool-users" in each for each in migration.differences)


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


def test_lines_of_a_pool_hba_conf_that_will_be_refused_are_told(bare: Site, catalogue: Catalogue) -> None:
    file = bare.file("hba", "local all all trust\nhost all all all scram-sha-256\nhost all all all md5\n")
    env = foreign.COMPOSE.environment | {"PGPOOL_USER_HBA_FILE": str(file)}
    told = [each for each in migrate(Source(env, {}), catalogue).differences if "will be refused" in each]
    assert [each.partition(":")[0] for each in told] == [f"line {line} of {file} will be refused" for line in (1, 3)]
