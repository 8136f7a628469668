"""Clients log in through pgpool with SCRAM, whatever role names and passwords look like."""

import re
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from entrypoint.credentials import MAX_AES_BYTES
from entrypoint.rules import MAX_ROLE_BYTES
from entrypoint.saslprep import prepared
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, NewPod
from support.postgres import SUPERUSER, SUPERUSER_PASSWORD, PostgresServer

# PostgreSQL takes every text for a password except the empty one (which stands for none), one with a NUL
# character, and a well-formed hash (which it stores as it is). Line ends are pool_passwd's own limit.
PASSWORDS = {
    "single-quote": "it's 50% mine",
    "double-quote": 'so "called" % secret',
    "backslash": r"back\slash % here\there",
    "trailing-backslash": "100% ends in one \\",
    "two-backslashes": "100% ends in two \\\\",
    "colon": "a:b % c::d",
    "leading-colon": ": % colon first",
    "trailing-colon": "% colon last :",
    "escaped-looking": r"\: % \\: \a",
    "ampersand": "R & D, 100% &amp;",
    "dollar": "$HOME % $(id) ${x} $$ $1",
    "percent": "100 % sure, %s %d %n %%",
    "backquote": "`id` % `",
    "template": "{{ 7 * 7 }} {% raw %} {# % #}",
    "hash": "# % no comment",
    "leading-dash": "-p % no option",
    "leading-at": "@file % of it",
    "leading-blank": "  leading % blanks",
    "trailing-blank": "trailing % blanks  ",
    "only-blank-and-percent": " % ",
    "equals": "a = 'b' % c",
    "tab": "tab\tand % tab\t",
    "control": "bell\x07 % escape\x1b[31m \x01\x7f",
    "vertical-space": "vertical\x0b tab % form\x0c feed",
    "looks-like-aes": "AES % of something",
    "looks-like-aes-entry": "AESbm90IGVuY3J5cHRlZCA= %",
    "looks-like-text": "TEXT % of something",
    "text-twice": "TEXTTEXT % x",
    "looks-like-md5": "md5 % of something",
    "looks-like-scram": "SCRAM-SHA-256 % of something",
    "lower-case-prefix": "aes % text",
    "german": "Größe % Übermaß",
    "chinese": "密 % 码",
    "emoji": "elephant 🐘 % pool",
    "hebrew": "סיסמה % סיסמה",
    "right-to-left-and-left-to-right": "סיסמה % ﬁ",
    "combining": "e\u0301 % decomposed",
    "no-break-space": "no\u00a0break % space",
    "ideographic-space": "wide\u3000space % here",
    "ligature": "ﬁne % ﬂuid",
    "soft-hyphen": "soft\u00adhyphen % zero\u200dwidth",
    "fullwidth-colon": "wide\uff1acolon % wide\uff3cbackslash",
    "roman-numeral": "chapter Ⅳ % ①",
    "prohibited-and-mapped": "prohibited \u2028 % beside\u00a0mapped",
    "unassigned-and-mapped": "new 🫠 % beside\u00a0mapped",
    "byte-order-mark": "\ufeffmark % first",
    "79-bytes": f"79 % {'x' * 73}9",
    "79-bytes-of-utf-8": f"79 % {'ü' * 37}",
}
TEXT_PASSWORDS = {
    "80-bytes": f"80 % {'x' * 75}",
    "124-bytes": f"124 % {'x' * 117}4",
    "124-bytes-to-be-escaped": f"124 % {':' * 59}{chr(92) * 59}",
    "124-bytes-of-utf-8": f"124 % {'ü' * 59}",
}

# PostgreSQL has no role with an empty name, NUL, a name of more than 63 bytes, one that begins with pg_, nor
# `none` and `public`. A file's name has no slash, and the kubelet makes none that begins with two dots.
ROLES = {
    "colon": "a:b c%d",
    "colons-around": ":role: %",
    "backslash": r"back\slash %",
    "trailing-backslash": "last % \\",
    "double-quote": 'the "role" %',
    "single-quote": "o'brien %",
    "blank": " blanks %  around ",
    "percent": "% %s %n",
    "dash": "-d % x",
    "hash": "#role %",
    "comma": "a, b % c",
    "at": "@all %",
    "ampersand": "R & D $x %",
    "upper-case": "Upper % Case",
    "keyword": "all",
    "tab": "tab\t% role",
    "utf-8": "Jürgen % 象 🐘",
    "decomposed": "e\u0301 % role",
    "no-break-space": "no\u00a0break % role",
    "63-bytes": f"63 % {'x' * 57}3",
    "63-bytes-of-utf-8": f"63 % {'ü' * 29}",
    "like-an-entry": "x:TEXTy %",
    "username": "username",
}
# No name of a file: a slash, and what we or the kubelet take for hidden.
ROLES_FOR_BASIC_AUTH = {
    "slash": "a/b % c",
    "dot": ".hidden % role",
    "two-dots": "..",
}


PASSWORD_OF = {f"of {name}": password for name, password in (PASSWORDS | TEXT_PASSWORDS).items()} | {
    role: f"100% {name}'s own" for name, role in (ROLES | ROLES_FOR_BASIC_AUTH).items()
}


@pytest.fixture(scope="module")
def roles(postgres: PostgresServer) -> Iterator[None]:
    postgres.create_roles(PASSWORD_OF)
    yield
    postgres.drop_roles(PASSWORD_OF)


@pytest.fixture(scope="module")
def aes(roles: None, new_pod: NewPod) -> Iterator[Pgpool]:
    """Serves all that can be encrypted, each role from a file of its name."""
    pod = new_pod()
    pod.encrypt("a key: 'with' \"quotes\" & % ü")
    for role in [*(f"of {name}" for name in PASSWORDS), *ROLES.values()]:
        pod.write_user(role, PASSWORD_OF[role])
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        yield pgpool


@pytest.fixture(scope="module")
def text(roles: None, new_pod: NewPod) -> Iterator[Pgpool]:
    """Serves all of them in clear, each role from a basic-auth Secret."""
    pod = new_pod()
    for number, (role, password) in enumerate(PASSWORD_OF.items()):
        pod.write_basic_auth(f"secret-{number}", role, password)
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        yield pgpool


@pytest.mark.parametrize("name", PASSWORDS)
def test_a_password_of_any_kind_logs_in_when_it_is_encrypted(aes: Pgpool, name: str) -> None:
    assert_logs_in(aes, f"of {name}", PASSWORDS[name])


@pytest.mark.parametrize("name", [*PASSWORDS, *TEXT_PASSWORDS])
def test_a_password_of_any_kind_logs_in_when_it_is_not_encrypted(text: Pgpool, name: str) -> None:
    assert_logs_in(text, f"of {name}", PASSWORD_OF[f"of {name}"])


@pytest.mark.parametrize("name", ROLES)
def test_a_role_of_any_name_logs_in_from_a_file(aes: Pgpool, name: str) -> None:
    assert_logs_in(aes, ROLES[name], PASSWORD_OF[ROLES[name]])


@pytest.mark.parametrize("name", [*ROLES, *ROLES_FOR_BASIC_AUTH])
def test_a_role_of_any_name_logs_in_from_a_basic_auth_secret(text: Pgpool, name: str) -> None:
    role = (ROLES | ROLES_FOR_BASIC_AUTH)[name]
    assert_logs_in(text, role, PASSWORD_OF[role])


@pytest.mark.parametrize(
    "wrong",
    ["", " ", "a wrong % password", APP_PASSWORD.upper(), APP_PASSWORD + " ", APP_PASSWORD[:-1], "TEXT" + APP_PASSWORD],
)
def test_a_wrong_password_is_refused(aes: Pgpool, wrong: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"authentication failed|no password supplied"):
        aes.connect(APP_ROLE, wrong)


def test_the_entry_in_pool_passwd_is_no_password(aes: Pgpool) -> None:
    entries = pool_passwd(aes)
    for entry in (entries[APP_ROLE], entries[APP_ROLE].removeprefix("AES").removeprefix("TEXT") + " "):
        assert not aes.can_log_in(APP_ROLE, entry)


@pytest.mark.parametrize("user", ["nobody % here", APP_ROLE.upper(), f"{APP_ROLE} ", f"{APP_ROLE}:", "*", "all:"])
def test_an_unknown_user_is_refused(aes: Pgpool, user: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        aes.connect(user, APP_PASSWORD)


def test_a_role_that_only_postgresql_has_is_refused(aes: Pgpool, postgres: PostgresServer) -> None:
    postgres.connect(SUPERUSER, SUPERUSER_PASSWORD).close()
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        aes.connect(SUPERUSER, SUPERUSER_PASSWORD)


def test_a_role_that_postgresql_does_not_have_is_refused(postgres: PostgresServer, new_pod: NewPod) -> None:
    pod = new_pod()
    pod.write_user("dropped", "was here % once")
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
        assert not pgpool.can_log_in("dropped", "was here % once")
        assert_logs_in(pgpool, APP_ROLE, APP_PASSWORD)  # nor has the attempt done harm


@pytest.mark.parametrize("asked", ["password", "md5", "none", "gss,sspi"])
def test_pgpool_never_asks_for_anything_but_scram(aes: Pgpool, asked: str) -> None:
    with pytest.raises(psycopg.OperationalError, match=r"SASL|SCRAM|none"):
        aes.connect(APP_ROLE, APP_PASSWORD, require_auth=asked)


def test_clear_text_stays_off_though_a_role_is_unknown(aes: Pgpool) -> None:
    with pytest.raises(psycopg.OperationalError) as refusal:
        aes.connect("nobody % here", APP_PASSWORD, require_auth="password")
    assert "authentication failed" in str(refusal.value) or "SASL" in str(refusal.value)


def generated(most_bytes: int) -> st.SearchStrategy[str]:
    """Text with a blank and a percent sign in it, of at most that many bytes."""
    alphabet = st.characters(codec="utf-8", exclude_characters="\0\n\r")
    parts = st.tuples(st.text(alphabet, max_size=20), st.text(alphabet, max_size=20))
    return parts.map(" %".join).filter(lambda text: len(text.encode()) <= most_bytes)


@settings(
    max_examples=3,
    phases=[Phase.generate],  # the failing roles are listed as they are; each attempt costs a second or more
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(
    by_role=st.dictionaries(
        generated(MAX_ROLE_BYTES),
        generated(MAX_AES_BYTES).filter(lambda password: len(prepared(password).encode()) <= MAX_AES_BYTES),
        min_size=20,
        max_size=40,
    ),
    encrypted=st.booleans(),
)
def test_generated_roles_and_passwords_log_in(
    postgres: PostgresServer, new_pod: NewPod, by_role: dict[str, str], *, encrypted: bool
) -> None:
    pod = new_pod()
    for number, (role, password) in enumerate(by_role.items()):
        pod.write_basic_auth(f"secret-{number}", role, password)
    if encrypted:
        pod.encrypt()
    postgres.create_roles(by_role)
    try:
        with pod.pgpool() as pgpool:
            pgpool.wait_until_login(APP_ROLE, APP_PASSWORD)
            refused = {role: pw for role, pw in by_role.items() if not pgpool.can_log_in(role, pw)}
            assert not refused, pgpool.log
    finally:
        postgres.drop_roles(by_role)


def assert_logs_in(pgpool: Pgpool, role: str, password: str) -> None:
    """A login by SCRAM as this very role."""
    with pgpool.connect(role, password, require_auth="scram-sha-256") as connection:
        assert connection.execute("SELECT current_user").fetchone() == (role,)


def pool_passwd(pgpool: Pgpool) -> dict[str, str]:
    """The entries that are written without escapes, by role."""
    content = Path(pgpool.environment["PGPOOL_RUN_DIR"], "current/pool_passwd").read_text(encoding="utf-8")
    return dict(line.split(":", 1) for line in content.split("\n") if ":" in line and "\\" not in line)


def test_postgresql_meets_scram_alone(aes: Pgpool, postgres: PostgresServer) -> None:
    assert_logs_in(aes, APP_ROLE, APP_PASSWORD)
    methods = re.findall(r'connection authenticated: identity="[^"]*" method=(\S+)', postgres.log)
    assert set(methods) == {"scram-sha-256"}
