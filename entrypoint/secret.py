"""A value that must not be seen: never printed, never formatted, never pickled by accident."""

import hmac
from typing import NoReturn, final


def may_hold_password(text: str) -> bool:
    """Whether a text looks like a URL, or like `user:password@host`: given for something else, it is not repeated."""
    return "@" in text or "://" in text


@final
class Secret:
    """Wraps a secret text. Deliberately no `str`: only `reveal` gives the value away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; each call is a place to review."""
        return self._value

    def __repr__(self) -> str:
        return "(secret)"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value.encode(), other._value.encode())

    __hash__ = None  # type: ignore[assignment]  # a hash would leak, and invite use as a dictionary key

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled or copied to another process")
