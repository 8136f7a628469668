"""SASLprep (RFC 4013): the one form of a password that both ends of a SCRAM login must agree on."""

import stringprep
import unicodedata

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
