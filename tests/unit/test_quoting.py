"""The encoders, and for pool_passwd pgpool's own reader beside them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.quoting import UnrepresentableError, conf_string, pool_passwd_field


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", "''"),
        ("a b 100%", "'a b 100%'"),
        ('"', "'\"'"),
        ("\\", "'\\'"),
        ("a\\nb", "'a\\nb'"),
        ("# x", "'# x'"),
        ("\t\x0b\x0c", "'\t\x0b\x0c'"),
        ("ü 🐘", "'ü 🐘'"),
        ("\u2028\x85", "'\u2028\x85'"),
    ],
)
def test_pgpool_conf_takes_a_value_between_quotes_as_it_is(value: str, expected: str) -> None:
    assert conf_string(value) == expected


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("'", "contains a single quote, which pgpool.conf cannot express"),
        ("pass '%' word", "contains a single quote, which pgpool.conf cannot express"),
        ("pass 100%\n", "contains a newline"),
        ("pass\r100 %", "contains a carriage return"),
        ("pass\0 100%", "contains a NUL character"),
    ],
)
def test_what_pgpool_conf_cannot_hold_is_refused_without_quoting_it(value: str, why: str) -> None:
    with pytest.raises(UnrepresentableError) as raised:
        conf_string(value)
    assert str(raised.value) == why


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("n8n", "n8n"),
        ("pass word 100%", "pass word 100%"),
        (":", "\\:"),
        ("\\", "\\\\"),
        ("\\:", "\\\\\\:"),
        ("a:b:c", "a\\:b\\:c"),
        ("ends in \\", "ends in \\\\"),
        ("'\"#@", "'\"#@"),
        ("ü:🐘", "ü\\:🐘"),
    ],
)
def test_pool_passwd_has_backslash_and_colon_escaped(value: str, expected: str) -> None:
    assert pool_passwd_field(value) == expected


@pytest.mark.parametrize(
    ("value", "why"), [("a\nb", "a newline"), ("a\r", "a carriage return"), ("\0", "a NUL character")]
)
def test_pool_passwd_holds_no_line_ends(value: str, why: str) -> None:
    with pytest.raises(UnrepresentableError) as raised:
        pool_passwd_field(value)
    assert str(raised.value) == f"contains {why}"


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text("'\\:\n\r\0# %a"))
def test_conf_string_is_reversed_by_taking_off_the_quotes(value: str) -> None:
    try:
        encoded = conf_string(value)
    except UnrepresentableError:
        assert set(value) & set("'\n\r\0")
    else:
        assert encoded[1:-1] == value
        assert not set(value) & set("'\n\r\0")
