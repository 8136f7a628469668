"""What a server says while somebody logs in, and whether it had accepted the password by then."""

import pytest

from sidecar.libpq import accepts_in, refusal_of

FULL = "53300"
CHALLENGE = b"R" + (12).to_bytes(4) + (11).to_bytes(4) + b"r=.."
FINAL = b"R" + (12).to_bytes(4) + (12).to_bytes(4) + b"v=.."
OK = b"R" + (8).to_bytes(4) + (0).to_bytes(4)
ERROR = b"E\0\0\0\x1aC53300\0Mno\0Dbecause\0\0"


@pytest.mark.parametrize(
    ("stream", "accepted"),
    [
        (FINAL + OK + ERROR, True),
        (CHALLENGE + FINAL + OK, True),
        (ERROR, False),
        (CHALLENGE + ERROR, False),
        (OK + ERROR, False),  # `trust`: nobody has asked for the password
        (FINAL[:8], False),
        (b"N", False),
        (b"", False),
    ],
)
def test_the_end_of_scram_says_that_the_password_was_right(stream: bytes, accepted: bool) -> None:  # noqa: FBT001  # a parameter of the test
    assert accepts_in(stream) is accepted


@pytest.mark.parametrize(
    ("words", "after"),
    [
        ('too many connections for role "app"', True),
        ('too many connections for database "app"', True),
        ("remaining connection slots are reserved for roles with the SUPERUSER attribute", True),
        ("sorry, too many clients already", False),
        ("tut uns leid, es gibt schon zu viele Clients", False),
    ],
)
def test_where_tls_hides_it_postgresqls_words_say_so(words: str, after: bool) -> None:  # noqa: FBT001  # a parameter of the test
    assert refusal_of(FULL, words).after_password is after


def test_a_full_server_that_had_accepted_the_password_says_so_in_any_language() -> None:
    assert refusal_of(FULL, "zu viele Verbindungen", accepted=True).after_password
    assert not refusal_of("28000", "die Rolle darf sich nicht anmelden", accepted=True).after_password
    assert refusal_of("3D000", "keine solche Datenbank").after_password
