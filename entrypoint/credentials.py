"""Password values as pgpool stores them. Pure: bytes and text in, text out."""

import hashlib
import stringprep
import unicodedata
from base64 import b64encode
from collections.abc import Callable

from entrypoint.quoting import pool_passwd_field

MAX_AES_BYTES = 79
"""pgpool reads an entry into 128 bytes and cuts the rest without a word (MAX_TOKEN_LEN, src/auth/
pool_passwd.c): `AES` and base64 of 79 bytes fill 111, of 80 bytes 131."""

MAX_TEXT_BYTES = 124
"""The same 128 bytes hold `TEXT` and the password, escapes not counted."""

MAX_KEY_BYTES = 255
"""pgpool reads the key file's first line with fgets into 256 bytes (src/auth/pool_passwd.c)."""


_PROHIBITED = (
    stringprep.in_table_a1,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)
"""What a password to be prepared may not contain (RFC 4013, sections 2.3 and 2.5)."""


def prepared(password: str) -> str:
    """The password in the form that SCRAM works with: no-break spaces, ligatures and so on made plain.

    Clients and PostgreSQL do this (SASLprep, RFC 4013), pgpool does not, so it is to be given the result. As in
    PostgreSQL's src/common/saslprep.c, a password with anything prohibited stays as it is, and prohibited is
    what was so before the normalisation.
    """
    if password.isascii():  # nothing to do, and the rest takes longer than all else that is done for a user
        return password
    spaced = "".join(" " if stringprep.in_table_c12(each) else each for each in password)
    mapped = "".join(each for each in spaced if not stringprep.in_table_b1(each))
    if not mapped or any(prohibits(each) for each in mapped for prohibits in _PROHIBITED):
        return password
    if any(map(stringprep.in_table_d1, mapped)):  # written from right to left
        at_both_ends = stringprep.in_table_d1(mapped[0]) and stringprep.in_table_d1(mapped[-1])
        if not at_both_ends or any(map(stringprep.in_table_d2, mapped)):
            return password
    return unicodedata.normalize("NFKC", mapped)


def aes_encrypter(key: str) -> Callable[[str], str]:
    """A function from password to `AES…` entry, byte for byte what `pg_enc` writes for this key.

    AES-256-CBC with PKCS#7 padding; key and initialisation vector come from OpenSSL's EVP_BytesToKey with
    SHA-1, no salt and one round (src/utils/ssl_utils.c), so equal passwords have equal entries.
    """
    # Imported here: a start without encryption need not load OpenSSL.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    material = _evp_bytes_to_key(key.encode(), 48)
    cipher = Cipher(algorithms.AES(material[:32]), modes.CBC(material[32:]))

    def encrypt(password: str) -> str:
        plain = password.encode()
        padding = 16 - len(plain) % 16
        encryptor = cipher.encryptor()
        sealed = encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()
        return "AES" + b64encode(sealed).decode()

    return encrypt


def text_entry(password: str) -> str:
    """A `TEXT…` entry: the password itself, marked so that no part of it is taken for a type."""
    return pool_passwd_field("TEXT" + password)


def pcp_hash(password: str) -> str:
    """The value of pcp.conf, which knows one form: plain MD5 in hexadecimal (src/pcp_con/pcp_worker.c)."""
    return hashlib.md5(password.encode(), usedforsecurity=False).hexdigest()


def _evp_bytes_to_key(key: bytes, length: int) -> bytes:
    material = digest = b""
    while len(material) < length:
        digest = hashlib.sha1(digest + key, usedforsecurity=False).digest()
        material += digest
    return material[:length]
