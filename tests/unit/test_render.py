"""The files, byte for byte."""

import re
from pathlib import Path

import pytest

from entrypoint.credentials import aes_decrypter
from entrypoint.secret import Secret
from entrypoint.settings import TABLE
from entrypoint.tree import Tree
from support.certificates import Authority
from support.secret_volume import SecretVolume
from unit.conftest import CHECK_KEY, NOW, Site

GOLDEN = Path(__file__).parent / "golden"
FILES = ("pgpool.conf", "pool_hba.conf", "pool_passwd", "pcp.conf")
KEY = "a fixed key 100%\n"


@pytest.fixture
def proof_of_concept(site: Site) -> Site:
    """Three nodes, the roles n8n and sr_check, a fixed key."""
    site.env["PGPOOL_RUN_DIR"] = "/run/pgpool"
    site.env["PGPOOLKEYFILE"] = str(site.file("key", KEY))
    return site


@pytest.mark.parametrize("name", FILES)
def test_the_proof_of_concept_is_rendered_as_it_always_was(proof_of_concept: Site, name: str) -> None:
    assert proof_of_concept.tree().files[name].decode() == (GOLDEN / "proof_of_concept" / name).read_text()


@pytest.mark.parametrize("name", ["pgpool.conf", "pool_passwd", "pool_hba.conf"])
def test_every_option_at_once_is_rendered_as_it_always_was(site: Site, name: str) -> None:
    site.user('o"dd : ro\\le', "pass : \\ 100%")
    site.env |= {
        "PGPOOL_BACKENDS": (
            "a=pg-a.db.svc:5433?weight=0.5&flag=ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER, b=[fd00::1]:6432?weight=0"
        ),
        "PGPOOL_RUN_DIR": "/run/my pool 100%",
        "PGPOOL_HBA_FILE": str(site.file("hba", "# ours\nhost all all 10.0.0.0/8 scram-sha-256\r\n\n")),
        "PGPOOL_PARAMS_PORT": "5432",
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD": "1min",
        "PGPOOL_PARAMS_HEALTH_CHECK_PERIOD1": "1min",
        "PGPOOL_PARAMS_UNIX_SOCKET_PERMISSIONS": "0770",
        "PGPOOL_PARAMS_FAILOVER_COMMAND": 'my "pool" 100% # \\',
        "PGPOOL_PARAMS_ALLOW_SQL_COMMENTS": "YES",
        "PGPOOL_PARAMS_CLIENT_MIN_MESSAGES": "Warning",
    }
    assert site.tree().files[name].decode() == (GOLDEN / "every_option" / name).read_bytes().decode()


def test_the_golden_directories_hold_nothing_else() -> None:
    assert sorted(path.name for path in (GOLDEN / "proof_of_concept").iterdir()) == sorted(FILES)
    assert sorted(path.name for path in GOLDEN.iterdir()) == ["every_option", "proof_of_concept"]


def test_pgpool_conf_stays_readable(proof_of_concept: Site) -> None:
    assert len(proof_of_concept.tree().files["pgpool.conf"].splitlines()) <= 60


def test_nothing_was_never_rendered(proof_of_concept: Site) -> None:
    for name, content in proof_of_concept.tree().files.items():
        assert b"None" not in content, name
        assert b"{" not in content, name
        assert content.endswith(b"\n"), name
        assert not content.endswith(b"\n\n"), name


def test_every_setting_line_has_one_form(proof_of_concept: Site) -> None:
    lines = proof_of_concept.tree().files["pgpool.conf"].decode().splitlines()
    names = [line.partition(" = ")[0] for line in lines if line and not line.startswith("#")]
    assert len(names) == len(set(names))
    assert all(name.replace("_", "").isalnum() for name in names)


def test_equal_inputs_give_equal_trees(proof_of_concept: Site) -> None:
    assert proof_of_concept.tree() == proof_of_concept.tree()
    assert proof_of_concept.tree().digest == proof_of_concept.tree().digest


def test_the_order_of_the_inputs_does_not_matter(proof_of_concept: Site, tmp_path: Path) -> None:
    parameters = {
        "PGPOOL_PARAMS_FAILOVER_COMMAND": "x %",
        "PGPOOL_PARAMS_LOG_CONNECTIONS": "on",
        "PGPOOL_PARAMS_MAX_POOL": "2",
    }
    forwards = proof_of_concept.tree(**parameters)
    (other := tmp_path / "other").mkdir()
    for role in ("sr_check", "n8n"):  # written the other way round, and partly as Secrets
        password = (proof_of_concept.users / role).read_bytes()
        SecretVolume(other / f"z-{role}").write({"username": role.encode(), "password": password})
    proof_of_concept.env = dict(reversed({**proof_of_concept.env, **parameters}.items()))
    proof_of_concept.env["PGPOOL_USERS_DIR"] = str(other)
    assert proof_of_concept.tree() == forwards


def test_where_a_value_stood_does_not_matter(proof_of_concept: Site) -> None:
    before = proof_of_concept.tree()
    for setting in TABLE:
        if value := proof_of_concept.env.pop(setting.name, None):
            proof_of_concept.env[f"{setting.name}_FILE"] = str(
                proof_of_concept.file(f"in/{setting.name}", f"{value}\n")
            )
    assert len(proof_of_concept.env) == 4
    assert proof_of_concept.tree() == before


@pytest.mark.parametrize(
    "env",
    [
        {"PGPOOL_CHECK_USER": "n8n"},
        {"PGPOOL_PCP_USER": "other"},
        {"PGPOOL_PCP_PASSWORD": "other pass 100%"},
        {"PGPOOL_RUN_DIR": "/run/other"},
        {"PGPOOL_PARAMS_MAX_POOL": "2"},
        {"PGPOOL_BACKENDS": "postgres-1=10.100.2.5"},
    ],
)
def test_another_input_gives_another_digest(proof_of_concept: Site, env: dict[str, str]) -> None:
    assert proof_of_concept.tree(**env).digest != proof_of_concept.tree().digest


# --- the marker -----------------------------------------------------------------------------------------------------


def marker(tree: Tree) -> str:
    before, last = tree.files["pgpool.conf"].decode().removesuffix("\n").rsplit("\n", 1)
    assert "syslog_ident" not in before
    assert re.fullmatch("syslog_ident = 'generation-[0-9a-f]{12}'", last)
    return last


def test_the_last_line_of_pgpool_conf_is_the_same_for_equal_inputs_alone(proof_of_concept: Site) -> None:
    site = proof_of_concept
    site.now = NOW.now(NOW.tzinfo)
    SecretVolume(site.root / "tls").write(Authority().issue().files())
    SecretVolume(site.root / "other").write(Authority().issue().files())
    tls = {"PGPOOL_TLS_DIR": f"{site.root}/tls"}
    hba = str(site.file("hba", "local all all reject\n"))
    trees = [
        site.tree(),
        site.tree(PGPOOL_PARAMS_MAX_POOL="2"),
        site.tree(PGPOOL_HBA_FILE=hba),
        site.tree(PGPOOL_PCP_PASSWORD="other pass 100%"),
        site.tree(**tls),
        site.tree(PGPOOL_TLS_DIR=f"{site.root}/other"),
        site.tree(**tls, PGPOOL_HBA_FILE=hba),
    ]
    assert marker(site.tree()) == marker(trees[0])
    assert marker(site.tree(**tls)) == marker(trees[4])
    site.user("n8n", "n8n pass 51 %")
    trees.append(site.tree())
    assert len({marker(tree) for tree in trees}) == len(trees)


def test_parameters_that_were_given_stand_before_the_marker(proof_of_concept: Site) -> None:
    marker(proof_of_concept.tree(PGPOOL_PARAMS_WD_PRIORITY="1", PGPOOL_PARAMS_UNIX_SOCKET_GROUP="x %"))


# --- secrets --------------------------------------------------------------------------------------------------------


def test_the_check_roles_password_is_encrypted_with_the_key_or_else_with_one_that_was_made_up(site: Site) -> None:
    key = str(site.file("key", KEY))
    for entry, used in (
        (site.conf()["sr_check_password"], CHECK_KEY),
        (site.conf(PGPOOLKEYFILE=key)["sr_check_password"], KEY.removesuffix("\n")),
    ):
        assert aes_decrypter(used)(entry.strip("'")) == "check pass 100%"
    site.check_key = None
    assert "sr_check_password" not in site.conf()
    assert "sr_check_password" in site.conf(PGPOOLKEYFILE=key)


def test_a_made_up_key_encrypts_nothing_else(site: Site) -> None:
    files = site.tree().files
    site.check_key = "another made-up key %"
    other = site.tree().files
    assert {name for name in files if files[name] != other[name]} == {"pgpool.conf"}
    assert b"n8n:TEXTn8n pass 50 %\n" in files["pool_passwd"]
    assert not [name for name, content in files.items() if CHECK_KEY.encode() in content]


def test_the_sidecars_own_settings_change_no_file(proof_of_concept: Site) -> None:
    env = {
        "PGPOOL_SIDECAR_HTTP": ":1",
        "PGPOOL_SIDECAR_REREAD": "1s",
        "PGPOOL_SIDECAR_REMOVAL_GRACE": "1s",
        "PGPOOL_SIDECAR_DATABASE": "other %",
        "PGPOOL_SIDECAR_LOG": "json",
        "PGPOOL_PATRONI": "on",
    }
    assert proof_of_concept.tree(**env) == proof_of_concept.tree()


def test_passwords_stand_in_pool_passwd_alone(site: Site) -> None:
    files = site.tree(PGPOOL_PCP_PASSWORD="pcp pass 100%").files
    holders = {
        name for name, content in files.items() for word in (b"n8n pass", b"check pass", b"pcp pass") if word in content
    }
    assert holders == {"pool_passwd"}
    assert b"pcp pass" not in files["pool_passwd"]


def test_with_a_key_no_password_stands_anywhere(proof_of_concept: Site) -> None:
    for content in proof_of_concept.tree().files.values():
        assert b"pass 100%" not in content
        assert b"pass 50 %" not in content
        assert b"fixed key" not in content


def test_a_password_is_rendered_as_clients_prepare_it(site: Site) -> None:
    site.user("n8n", "no\u00a0break ﬁ 100%")
    assert b"n8n:TEXTno break fi 100%\n" in site.tree().files["pool_passwd"]


@pytest.mark.parametrize(
    ("content", "rendered"),
    [
        ("local all all reject", b"local all all reject\n"),
        ("local all all reject\n", b"local all all reject\n"),
        ("local all all reject\n\n", b"local all all reject\n\n"),
        (
            "# {{ no }} {% template %} %s\nlocal all all reject\r\n",
            b"# {{ no }} {% template %} %s\nlocal all all reject\r\n",
        ),
    ],
)
def test_the_users_pool_hba_conf_is_used_whole(site: Site, content: str, rendered: bytes) -> None:
    assert site.tree(PGPOOL_HBA_FILE=str(site.file("hba", content))).files["pool_hba.conf"] == rendered


def test_values_are_never_taken_for_templates(site: Site) -> None:
    conf = site.conf(PGPOOL_PARAMS_FAILOVER_COMMAND="{{ 7 * 7 }} {% x %} {# y #} 100%")
    assert conf["failover_command"] == "'{{ 7 * 7 }} {% x %} {# y #} 100%'"
    site.user("{{ role }}", "{{ 7 * 7 }} 100%")
    assert b"{{ role }}:TEXT{{ 7 * 7 }} 100%\n" in site.tree().files["pool_passwd"]


# --- the tree -------------------------------------------------------------------------------------------------------


def test_a_digest_counts_names_contents_and_nothing_else() -> None:
    trees = [
        {"a": b"1"},
        {"a": b"2"},
        {"b": b"1"},
        {"a": b"1", "b": b""},
        {"a": b"1", "b": b"2"},
        {"a": b"12", "b": b""},
        {"a": b"", "b": b"12"},
        {"ab": b"12"},
        {"a": b"1\x00b\x001\x002"},
        {},
    ]
    digests = [Tree(files).digest for files in trees]
    assert len(set(digests)) == len(trees)
    assert all(len(digest) == 64 for digest in digests)
    assert Tree({"b": b"2", "a": b"1"}).digest == Tree({"a": b"1", "b": b"2"}).digest


def test_a_tree_shows_no_content() -> None:
    assert "100%" not in repr(Tree({"pool_passwd": b"n8n:TEXTpass 100%"}))


def test_a_secret_is_not_formatted_by_mistake() -> None:
    with pytest.raises(TypeError):
        format(Secret("pass 100%"), ">20")
