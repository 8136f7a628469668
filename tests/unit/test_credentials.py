"""Password values, against what pgpool's own pg_enc wrote and a model of how pgpool reads them."""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import pq
from psycopg.pq.abc import PGconn

from entrypoint.credentials import (
    MAX_AES_BYTES,
    MAX_TEXT_BYTES,
    aes_decrypter,
    aes_encrypter,
    pcp_hash,
    text_entry,
)
from entrypoint.quoting import pool_passwd_field
from entrypoint.saslprep import prepared

MAX_TOKEN_LEN = 128
LINE = 1024

# pgpool 4.6.1: printf 'a fixed key 100%%\n' >key; pg_enc -k key -- PASSWORD | sed -n 's/^pool_passwd string: //p'
KEY = "a fixed key 100%"
AES_VECTORS = [
    ("x", "AESzQP3ek2uadS09x35e1kJjw=="),
    ("correct horse 100%", "AESFKrDa50+ZwboQpsJo+CuhTSUJ9RBOV4OqSP4RMftA0c="),
    ('it\'s "quoted" \\ : 50 %', "AESAQwayvUXQGTXNVQG6ekkxuwJ/ctVjmeD1iabWO58p00="),
    ("пароль %20 слово", "AESfCnev9BI8Sm8VOFvQlfVnlbA2geND/ELpJksqq+YEVo="),
    ("0123456789abcde", "AESxATBM6AA3lDj59A/KUutcA=="),
    ("0123456789abcdef", "AESpILQg+IpN3XJwx4x0uqlimGsY0wR/LwlZjrlBq+TrJQ="),
    (
        "a %" * 19 + "ab",
        "AESdmHsSIOPhKBkYHdxj/YhIQ34KgsyE283ZMO0uCNDoiWBSqWHfORRyEE+XIf/XBhPG/HgSupVQoZt7SCONj9wew==",
    ),
    (
        "a %" * 26 + "a",  # 79 bytes, the longest that fits
        "AESdmHsSIOPhKBkYHdxj/YhIQ34KgsyE283ZMO0uCNDoiWBSqWHfORRyEE+XIf/XBhPzu0f5WMPUfZVtthQT8oDs46s/e/i2+97MKoLbVMWKng=",
    ),
]


def get_next_token(buffer: bytes) -> tuple[bytes, bytes | None]:
    """src/auth/pool_passwd.c, getNextToken: the token, and what follows its colon."""
    token = b""
    position = 0
    escaped = False
    while position < len(buffer) and len(token) < MAX_TOKEN_LEN:
        if buffer[position] == ord("\\") and not escaped:
            position += 1
            escaped = True
        if position < len(buffer) and buffer[position] == ord(":") and not escaped:
            return token, buffer[position + 1 :]
        escaped = False
        token += buffer[position : position + 1]
        position += 1
    return token, None


def user_matches_string(buffer: bytes, user: bytes) -> bytes | None:
    """The same file, userMatchesString: what follows the user's name and colon, when it is this user's line."""
    position = matched = 0
    escaped = False
    while position < len(buffer):
        if buffer[position] == ord("\\") and not escaped:
            position += 1
            escaped = True
        if buffer[position : position + 1] == b":" and matched == len(user) and not escaped:
            return buffer[position + 1 :]
        escaped = False
        if matched == len(user) or buffer[position : position + 1] != user[matched : matched + 1]:
            return None
        position += 1
        matched += 1
    return None


def password_of(content: bytes, user: bytes) -> bytes | None:
    """pool_get_user_credentials: line by line through fgets into 1024 bytes, the first match wins."""
    while content:
        end = content.find(b"\n", 0, LINE - 1)
        size = end + 1 if end >= 0 else LINE - 1
        line, content = content[:size].removesuffix(b"\n"), content[size:]
        rest = user_matches_string(line, user)
        if rest is not None:
            token, _ = get_next_token(rest)
            if token:
                return token
    return None


@pytest.mark.parametrize(("password", "entry"), AES_VECTORS)
def test_aes_entries_are_byte_for_byte_those_of_pg_enc(password: str, entry: str) -> None:
    assert aes_encrypter(KEY)(password) == entry


def test_one_encrypter_serves_many_passwords() -> None:
    encrypt = aes_encrypter(KEY)
    assert [encrypt(password) for password, _ in AES_VECTORS] == [entry for _, entry in AES_VECTORS]


def test_another_key_gives_another_entry() -> None:
    password, entry = AES_VECTORS[1]
    assert aes_encrypter(f"{KEY} ")(password) != entry


@pytest.mark.parametrize(("password", "entry"), AES_VECTORS)
def test_what_pg_enc_wrote_is_decrypted(password: str, entry: str) -> None:
    assert aes_decrypter(KEY)(entry) == password


@given(st.text(st.characters(codec="utf-8"), max_size=100), st.text(st.characters(codec="utf-8"), min_size=1))
def test_what_was_encrypted_is_decrypted_with_the_same_key(password: str, key: str) -> None:
    assert aes_decrypter(key)(aes_encrypter(key)(password)) == password


@pytest.mark.parametrize(("password", "entry"), AES_VECTORS)
def test_another_key_decrypts_nothing(password: str, entry: str) -> None:
    assert [aes_decrypter(key)(entry) for key in (f"{KEY} ", "", "a fixed key 10%", password)] == [None] * 4


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "AES",
        "AESnot base64 %",
        "AESäöü%",
        "AESQUJD",  # less than a block
        "AES" + b64encode(bytes(17)).decode(),
        "TEXTplain pass 100%",
        "md50123456789abcdef0123456789abcdef",
        *(entry[:-1] for _, entry in AES_VECTORS),
    ],
)
def test_what_is_no_entry_is_not_decrypted(entry: str) -> None:
    assert aes_decrypter(KEY)(entry) is None


def test_the_longest_password_still_fits_into_pgpools_buffer() -> None:
    encrypt = aes_encrypter(KEY)
    assert len(encrypt("x" * MAX_AES_BYTES)) <= MAX_TOKEN_LEN < len(encrypt("x" * (MAX_AES_BYTES + 1)))
    assert password_of(f"u:{text_entry('x' * MAX_TEXT_BYTES)}\n".encode(), b"u") == b"TEXT" + b"x" * MAX_TEXT_BYTES
    assert (
        password_of(f"u:{text_entry('x' * (MAX_TEXT_BYTES + 1))}\n".encode(), b"u") == b"TEXT" + b"x" * MAX_TEXT_BYTES
    )


@pytest.mark.parametrize(
    ("password", "entry"),
    [
        ("pass word 100%", "TEXTpass word 100%"),
        ("AES looks like it 100%", "TEXTAES looks like it 100%"),
        ("md50123456789abcdef0123456789abcdef", "TEXTmd50123456789abcdef0123456789abcdef"),
        ("TEXT %", "TEXTTEXT %"),
        (":%: :", "TEXT\\:%\\: \\:"),
        ("\\ %\\", "TEXT\\\\ %\\\\"),
    ],
)
def test_a_text_entry_is_marked_and_escaped(password: str, entry: str) -> None:
    assert text_entry(password) == entry


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        # printf %s PASSWORD | md5sum
        ("", "d41d8cd98f00b204e9800998ecf8427e"),
        ("made up 100%", "8ae8698697382e697688dcd4851c5602"),
    ],
)
def test_the_pcp_hash_is_plain_md5(password: str, expected: str) -> None:
    assert pcp_hash(password) == expected


one_line = st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0"), min_size=1) | st.text(
    ":\\ %a#", min_size=1
)
roles = one_line.filter(lambda text: len(text.encode()) <= 63)
passwords = one_line.filter(lambda text: len(text.encode()) <= MAX_TEXT_BYTES)


@given(st.dictionaries(roles, passwords, min_size=1, max_size=5))
def test_pgpool_reads_back_every_password_of_every_role(credentials: dict[str, str]) -> None:
    content = "".join(f"{pool_passwd_field(role)}:{text_entry(password)}\n" for role, password in credentials.items())
    read = {role: password_of(content.encode(), role.encode()) for role in credentials}
    assert read == {role: f"TEXT{password}".encode() for role, password in credentials.items()}


@given(st.dictionaries(roles, passwords, max_size=4), roles)
def test_pgpool_finds_no_password_for_anybody_else(credentials: dict[str, str], stranger: str) -> None:
    content = "".join(f"{pool_passwd_field(role)}:{text_entry(password)}\n" for role, password in credentials.items())
    if stranger not in credentials:
        assert password_of(content.encode(), stranger.encode()) is None


def test_the_model_of_pgpools_reader_sees_what_unescaped_text_would_do() -> None:
    assert password_of(b"u:TEXTa:b\n", b"u") == b"TEXTa"
    assert password_of(b"u:TEXTa\\b\n", b"u") == b"TEXTab"
    assert password_of(b"a:b:TEXTx\n", b"a") == b"b"
    assert password_of(b"u:TEXTone\nu:TEXTtwo\n", b"u") == b"TEXTone"


# --- the form that SCRAM works with -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("password", "expected"),
    [
        ("pass word 100%", "pass word 100%"),
        ("", ""),
        ("\u00a0", " "),  # a no-break space
        ("pass\u00a0word\u2003100\u3000%", "pass word 100 %"),
        ("ﬁ ² ① ㎏ Ⅸ %", "fi 2 1 kg IX %"),
        ("e\u0301 %", "é %"),
        ("\uff1a\uff3c\uff05", ":\\%"),  # the wide forms of what pool_passwd escapes
        ("soft\u00adhyphen zero\u200bwidth %", "softhyphen zero width %"),
        ("\u00ad", "\u00ad"),  # nothing would be left
        ("bell\u0007ﬁ %", "bell\u0007ﬁ %"),  # prohibited, so as it is
        ("ﬁ\u200e %", "ﬁ\u200e %"),
        ("ﬁ\ufffd %", "ﬁ\ufffd %"),
        ("ﬁ\U0001f998 %", "ﬁ\U0001f998 %"),  # not assigned in Unicode 3.2
        ("אבג", "אבג"),
        ("אﬁב", "אﬁב"),  # letters of both directions
        ("אב 1", "אב 1"),
    ],
)
def test_a_password_is_prepared_as_clients_do_it(password: str, expected: str) -> None:
    assert prepared(password) == expected


@given(
    st.text(st.characters(codec="utf-8")) | st.text(st.sampled_from("a%\u00a0ﬁ²\u00ad\u200b\u0007א\u0301\u1e9b\u0323"))
)
def test_what_is_prepared_stays_as_it_is(password: str) -> None:
    assert prepared(prepared(password)) == prepared(password)


@pytest.fixture(scope="module")
def libpq() -> Iterator[PGconn]:
    """A connection to nowhere: libpq needs one to encrypt, but does not use it."""
    connection = pq.PGconn.connect_start(b"host=/nowhere")
    yield connection
    connection.finish()


odd = st.text(
    st.sampled_from("a%\u00a0ﬁ²\u00ad\u200b\u200f\u0007\ufffdאב٣é\u0301\uff1a\U0001f998"), min_size=1, max_size=6
)


@given(odd | st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12))
@settings(max_examples=150)
def test_a_password_is_prepared_as_libpq_does_it(libpq: PGconn, password: str) -> None:
    secret = libpq.encrypt_password(password.encode(), b"u", b"scram-sha-256").decode()
    iterations, salt, stored = re.fullmatch(r"SCRAM-SHA-256\$(\d+):(.*)\$(.*):.*", secret).groups()  # type: ignore[union-attr]
    salted = hashlib.pbkdf2_hmac("sha256", prepared(password).encode(), b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    assert b64encode(hashlib.sha256(client_key).digest()).decode() == stored
