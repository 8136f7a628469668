"""What was published is read back as it was meant."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entrypoint.credentials import aes_encrypter, text_entry
from entrypoint.model import CURRENT
from entrypoint.publish import GENERATIONS, VERIFIED, mark, publish
from entrypoint.quoting import pool_passwd_field
from entrypoint.secret import Secret
from entrypoint.tree import Tree
from sidecar.generation import Generation, marker, parameters, read_generation
from unit.conftest import Site

KEY, OTHER_KEY = "a fixed key 100%", "another key 100%"
NASTY = [
    "plain 1%",
    "with:colon 1%",
    "back\\slash 1%",
    "\\: % \\\\",
    "ends in a backslash % \\",
    "TEXT 1%",
    "AES 1%",
    "line\u2028separator %",
    "form\x0cfeed and \x1c and \x85 %",
    "пароль %20 слово",
    " blanks around % ",
    "# no comment %",
]


def generation(lines: str, conf: str = "") -> Generation:
    return Generation("digest", Tree({"pgpool.conf": conf.encode(), "pool_passwd": lines.encode()}))


def revealed(generation: Generation, key: str | None) -> dict[str, str] | None:
    roles = generation.roles(None if key is None else Secret(key))
    return None if roles is None else {role: password.reveal() for role, password in roles.passwords.items()}


def written(passwords: dict[str, str], key: str | None) -> Generation:
    encode = text_entry if key is None else aes_encrypter(key)
    return generation("".join(f"{pool_passwd_field(role)}:{encode(each)}\n" for role, each in passwords.items()))


@pytest.mark.parametrize("key", [None, KEY])
def test_roles_and_passwords_come_back_whatever_is_in_them(key: str | None) -> None:
    nasty = {f"role {text}": f"password {text}" for text in NASTY}
    assert revealed(written(nasty, key), key) == nasty


WRITABLE = st.text(st.characters(exclude_characters="\n\r\0", codec="utf-8"), min_size=1, max_size=30)


@settings(max_examples=50)
@given(passwords=st.dictionaries(WRITABLE, WRITABLE, min_size=1, max_size=4), encrypted=st.booleans())
def test_any_roles_and_passwords_come_back(passwords: dict[str, str], encrypted: bool) -> None:  # noqa: FBT001  # Hypothesis fills it in
    key = KEY if encrypted else None
    assert revealed(written(passwords, key), key) == passwords


def test_what_pg_enc_wrote_is_read() -> None:
    # pgpool 4.6.1: printf 'a fixed key 100%%\n' >key; pg_enc -k key -- 'correct horse 100%'
    line = "n8n:AESFKrDa50+ZwboQpsJo+CuhTSUJ9RBOV4OqSP4RMftA0c=\n"
    assert revealed(generation(line), KEY) == {"n8n": "correct horse 100%"}


@pytest.mark.parametrize(
    ("written_with", "read_with"), [(KEY, OTHER_KEY), (KEY, None), (None, KEY)], ids=["other", "none", "needless"]
)
def test_another_key_than_the_one_that_was_used_gives_nothing(written_with: str | None, read_with: str | None) -> None:
    passwords = {"n8n": "n8n pass 100%", "sr_check": "check pass 1%"}
    assert revealed(written(passwords, written_with), read_with) is None


def test_one_entry_of_another_key_spoils_all() -> None:
    lines = "".join(f"{role}:{aes_encrypter(key)('pass 100%')}\n" for role, key in (("a", KEY), ("b", OTHER_KEY)))
    assert revealed(generation(lines), KEY) is None


@pytest.mark.parametrize("line", ["n8n", "n8n:", "n8n:md5abc", "n8n:AES%%%", "n8n:AES"])
def test_a_line_that_is_not_ours_gives_nothing(line: str) -> None:
    assert revealed(generation(f"{line}\n"), KEY) is None
    assert revealed(generation(f"{line}\n"), None) is None


@pytest.mark.parametrize("key", [None, KEY])
def test_what_the_pipeline_renders_is_read_back(site: Site, key: str | None) -> None:
    site.user("we:ird \\ 1%", "pass:word \\ 100%\n")
    if key:
        site.env["PGPOOLKEYFILE"] = str(site.file("key", f"{key}\n"))
    tree = site.tree()
    roles = Generation(tree.digest, tree).roles(None if key is None else Secret(key))
    assert roles is not None
    assert roles.check_user == "sr_check"
    assert {role: password.reveal() for role, password in roles.passwords.items()} == {
        "n8n": "n8n pass 50 %",
        "sr_check": "check pass 100%",
        "we:ird \\ 1%": "pass:word \\ 100%",
    }


def test_parameters_are_read_without_their_quotes() -> None:
    conf = (
        "# a comment = 'no'\n\nport = 9999\nlisten_addresses = '*'\n"
        "failover_command = 'a \"b\" = \x85 100%'\nempty = ''\n"
    )
    tree = generation("", conf).tree
    assert parameters(tree) == {
        "port": "9999",
        "listen_addresses": "*",
        "failover_command": 'a "b" = \x85 100%',
        "empty": "",
    }
    assert marker(tree) == ""
    assert generation("", conf).parameters == parameters(tree)


def test_the_marker_names_the_generation(site: Site) -> None:
    first = site.tree()
    assert marker(first).startswith("generation-")
    site.user("n8n", "another pass 100%")
    assert marker(site.tree()) != marker(first)


def test_a_generation_is_read_from_where_the_symlink_points(tmp_path: Path) -> None:
    first, second = (Tree({"pgpool.conf": b"", "pool_passwd": line}) for line in (b"a:TEXTa 1%\n", b"b:TEXTb 1%\n"))
    assert read_generation(tmp_path, CURRENT) is None
    publish(first, tmp_path)
    mark(tmp_path, VERIFIED, first.digest)
    publish(second, tmp_path)
    assert read_generation(tmp_path, CURRENT) == Generation(second.digest, second)
    assert read_generation(tmp_path, VERIFIED) == Generation(first.digest, first)
    for file in (tmp_path / GENERATIONS / first.digest).iterdir():
        file.unlink()
    (tmp_path / GENERATIONS / first.digest).rmdir()
    assert read_generation(tmp_path, VERIFIED) is None
