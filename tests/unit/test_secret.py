"""A secret gives itself away to `reveal` alone."""

import copy
import json
import logging
import pickle
from dataclasses import asdict, dataclass

import pytest

from entrypoint.secret import Secret

VALUE = "pass word 100%"


@dataclass
class Holder:
    secret: Secret


def test_it_reveals_what_it_was_given() -> None:
    assert Secret(VALUE).reveal() == VALUE


def test_nothing_that_makes_text_of_it_shows_it() -> None:
    secret = Secret(VALUE)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s %r" % (secret, secret), str([secret])]  # noqa: UP031
    shown += [repr(Holder(secret)), str({"a": secret}), logging.makeLogRecord({"msg": secret}).getMessage()]
    assert [text for text in shown if VALUE in text or "(secret)" not in text] == []


def test_it_has_no_dictionary_to_look_into() -> None:
    with pytest.raises(TypeError):
        vars(Secret(VALUE))


@pytest.mark.parametrize(
    "way", [pickle.dumps, copy.copy, copy.deepcopy, lambda secret: asdict(Holder(secret)), json.dumps]
)
def test_it_is_not_copied_to_anywhere(way: object) -> None:
    assert callable(way)
    with pytest.raises(TypeError) as raised:
        way(Secret(VALUE))
    assert VALUE not in str(raised.value)


def test_it_is_no_key() -> None:
    with pytest.raises(TypeError):
        hash(Secret(VALUE))


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        (Secret(VALUE), True),
        (Secret(VALUE + " "), False),
        (Secret(""), False),
        (Secret("ü"), False),
        (VALUE, False),
        (None, False),
    ],
)
def test_it_equals_only_a_secret_of_the_same_value(other: object, *, equal: bool) -> None:
    assert (Secret(VALUE) == other) is equal
    assert (Secret(VALUE) != other) is not equal
