"""Password values as pgpool stores them. Pure: bytes and text in, text out."""

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Callable

from entrypoint.quoting import pool_passwd_field

MAX_AES_BYTES = 79
"""pgpool reads an entry into 128 bytes and cuts the rest without a word (MAX_TOKEN_LEN, src/auth/
pool_passwd.c): `AES` and base64 of 79 bytes fill 111, of 80 bytes 131."""

MAX_TEXT_BYTES = 124
"""The same 128 bytes hold `TEXT` and the password, escapes not counted."""

MAX_KEY_BYTES = 255
"""pgpool reads the key file's first line with fgets into 256 bytes (src/auth/pool_passwd.c)."""


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


def aes_decrypter(key: str) -> Callable[[str], str | None]:
    """The way back: from `AES…` entry to password, None when another key made it.

    A wrong key goes unnoticed less than once in a million times, and then gives nonsense.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415  # as above

    material = _evp_bytes_to_key(key.encode(), 48)
    cipher = Cipher(algorithms.AES(material[:32]), modes.CBC(material[32:]))

    def decrypt(entry: str) -> str | None:
        try:
            decryptor = cipher.decryptor()
            padded = decryptor.update(b64decode(entry.removeprefix("AES"), validate=True)) + decryptor.finalize()
            count = padded[-1]
            if not 1 <= count <= 16 or padded[-count:] != bytes([count]) * count:
                return None
            return padded[:-count].decode()
        except (ValueError, IndexError):
            return None

    return decrypt


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
