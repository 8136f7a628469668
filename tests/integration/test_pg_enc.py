"""What stands in pool_passwd for an encrypted password is what pgpool's own pg_enc would have written."""

import re
import string
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entrypoint.credentials import MAX_AES_BYTES, MAX_KEY_BYTES, aes_encrypter
from support.pod import Pod

KEY = "a pool % key"
ENTRY = re.compile(r"^pool_passwd string: (.*)$", re.MULTILINE)

AWKWARD = [
    "-dash % first",
    "--help %",
    "'\"\\:&$ %",
    " % ",
    "AES %",
    "TEXT % x",
    "md5 % x",
    "tab\t % \x01\x7f",
    "Größe % 密碼 🐘",
    "e\u0301 % \u00a0",
    "% ends in a backslash \\",
]
KEYS = {
    "spaces": "  a key % with spaces ",
    "utf-8": "schlüssel % 鍵 🔑",
    "quotes": "'\"\\:&$%",
    "dash": "-k % dash",
    "tab": "tab\t% tab",
    "one byte": "%",
    "254 bytes": "% " + "k" * 252,
    "255 bytes": "% " + "k" * 253,
}
CHARACTERS = st.characters(codec="utf-8", exclude_characters="\0")


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pg_enc") / "key"


def pg_enc(pgpool_bin: Path, key_file: Path, password: str) -> str:
    """The entry that the real program writes, with its key from a file as pgpool reads it."""
    command: list[str | Path] = [pgpool_bin / "pg_enc", "-k", key_file, "--", password]
    result = subprocess.run(command, capture_output=True, check=True, encoding="utf-8", stdin=subprocess.DEVNULL)
    match = ENTRY.search(result.stdout)
    assert match, result
    return match[1]


def write_key(key_file: Path, key: str) -> None:
    key_file.write_bytes(f"{key}\n".encode())
    key_file.chmod(0o600)


def assert_equal(pgpool_bin: Path, key_file: Path, key: str, passwords: list[str]) -> None:
    write_key(key_file, key)
    encrypt = aes_encrypter(key)
    with ThreadPoolExecutor(4) as pool:
        theirs = list(pool.map(lambda password: pg_enc(pgpool_bin, key_file, password), passwords))
    assert [encrypt(password) for password in passwords] == theirs


def test_every_length_equals_pg_enc(pgpool_bin: Path, key_file: Path) -> None:
    text = "% " + string.ascii_letters + string.digits + string.punctuation
    passwords = [text[:length] for length in range(1, MAX_AES_BYTES + 1)]
    assert {len(password) for password in passwords} == set(range(1, 80))
    assert_equal(pgpool_bin, key_file, KEY, passwords)


def test_every_length_of_utf_8_equals_pg_enc(pgpool_bin: Path, key_file: Path) -> None:
    assert_equal(pgpool_bin, key_file, KEY, ["ü" * length for length in range(1, 40)])


def test_awkward_passwords_equal_pg_enc(pgpool_bin: Path, key_file: Path) -> None:
    assert_equal(pgpool_bin, key_file, KEY, AWKWARD)


@pytest.mark.parametrize("name", KEYS)
def test_any_key_equals_pg_enc(pgpool_bin: Path, key_file: Path, name: str) -> None:
    assert_equal(pgpool_bin, key_file, KEYS[name], ["a % password", *AWKWARD[:3]])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.text(CHARACTERS.filter(lambda each: each not in "\r\n"), min_size=1, max_size=MAX_KEY_BYTES).filter(
        lambda key: len(key.encode()) <= MAX_KEY_BYTES
    ),
    password=st.text(CHARACTERS, min_size=1).filter(lambda password: len(password.encode()) <= MAX_AES_BYTES),
)
def test_any_text_equals_pg_enc(pgpool_bin: Path, key_file: Path, key: str, password: str) -> None:
    assert_equal(pgpool_bin, key_file, key, [password])


def test_the_rendered_file_equals_pg_enc(pgpool_bin: Path, pod: Pod) -> None:
    passwords = {f"role {number}": password for number, password in enumerate(AWKWARD) if "\u00a0" not in password}
    for role, password in passwords.items():
        pod.write_user(role, f"{password}\n")
    key_file = pod.encrypt(KEYS["utf-8"])
    target = pod.directory / "rendered"
    result = pod.run("render", "--to", str(target))
    assert result.returncode == 0, result.stderr
    lines = (target / "pool_passwd").read_text(encoding="utf-8").splitlines()
    for role, password in passwords.items():
        assert f"{role}:{pg_enc(pgpool_bin, key_file, password)}" in lines
