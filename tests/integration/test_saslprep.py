"""Passwords are prepared exactly as PostgreSQL prepares them before it hashes them."""

import base64
import hashlib
import hmac
import stringprep
import sys
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from entrypoint.saslprep import prepared
from support.postgres import PostgresServer

Agrees = Callable[[str], bool]

CHANGED = "\u00a0"
"""Shows whether a password was prepared: this becomes a blank, unless something else in it is prohibited."""

ROLE = "prepared % role"


@pytest.fixture(scope="module")
def agrees(postgres: PostgresServer) -> Iterator[Agrees]:
    """Whether PostgreSQL hashes, for a password, what `prepared` makes of it."""
    postgres.create_role(ROLE, "some % password")
    alter = sql.SQL("ALTER ROLE {} PASSWORD {}")
    with postgres.connect() as connection:

        def check(password: str) -> bool:
            connection.execute(alter.format(sql.Identifier(ROLE), sql.Literal(password)))
            rows = connection.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [ROLE]).fetchone()
            assert rows
            return is_verifier_of(rows[0], prepared(password))

        yield check
    postgres.drop_role(ROLE)


def test_every_character_that_may_be_prepared_is(agrees: Agrees) -> None:
    allowed = [each for each in characters() if not is_left_alone(each)]
    left_to_right = [each for each in allowed if not stringprep.in_table_d1(each)]
    right_to_left = [each for each in allowed if stringprep.in_table_d1(each)]
    assert len(left_to_right) > 8_000
    assert len(right_to_left) > 250
    differing = [text for text in [*chunks(left_to_right), *chunks(right_to_left)] if not agrees(text)]
    assert not differing


def test_every_range_of_prohibited_characters_is_left_alone(agrees: Agrees) -> None:
    prohibited = [each for each in characters() if is_left_alone(each)]
    codes = {ord(each) for each in prohibited}
    first = [each for each in prohibited if ord(each) - 1 not in codes and ord(each) < 0x3400]
    sampled = [each for each in prohibited if ord(each) >= 0x3400][::100]
    assert len(first) + len(sampled) > 250
    differing = [f"U+{ord(each):04X}" for each in first + sampled if not agrees(CHANGED + each)]
    assert not differing


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(
        st.characters(codec="utf-8", exclude_characters="\0")
        | st.sampled_from("\u00a0\u00ad\u0627\u05d0\u0661ﬁ①a1 %\u0340\u200b\u2028"),
        min_size=1,
        max_size=30,
    )
)
def test_any_text_is_prepared_as_postgresql_does(agrees: Agrees, password: str) -> None:
    assert agrees(password)


def characters() -> Iterator[str]:
    """All of the lower, motley part of Unicode, and samples of the rest."""
    codes = [*range(1, 0x3400), *range(0x3400, sys.maxunicode, 101)]
    return (chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def is_left_alone(character: str) -> bool:
    """Whether we prepare nothing beside this character."""
    probe = _between(character, CHANGED)
    return prepared(probe) == probe


def chunks(of: list[str], size: int = 2000) -> Iterator[str]:
    for start in range(0, len(of), size):
        yield _between(of[start], CHANGED + "".join(of[start : start + size]))


def _between(character: str, text: str) -> str:
    """What is written from right to left has to stand at both ends."""
    return character + text + (character if stringprep.in_table_d1(character) else "")


def is_verifier_of(verifier: str, password: str) -> bool:
    """Whether `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey` was made from this (RFC 5802)."""
    _, parameters, keys = verifier.split("$")
    iterations, salt = parameters.split(":")
    stored_key = keys.split(":")[0]
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    return base64.b64encode(hashlib.sha256(client_key).digest()).decode() == stored_key
