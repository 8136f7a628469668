"""One encoder per target format. What a format cannot hold is refused, never bent."""


class UnrepresentableError(Exception):
    """The value cannot be written in the target format; says why, without the value."""


def conf_string(value: str) -> str:
    r"""A string in pgpool.conf: the text between two quotes, as it is.

    pgpool's lexer (src/config/pool_config.l) unescapes nothing: `''` is a syntax error and `\'` keeps its
    backslash, so a quote cannot be written at all. A newline would end the value and begin a setting.
    Raises UnrepresentableError.
    """
    if "'" in value:
        raise UnrepresentableError("contains a single quote, which pgpool.conf cannot express")
    _refuse_line_ends(value)
    return f"'{value}'"


def pool_passwd_field(value: str) -> str:
    r"""A user name or `TEXT…` password in pool_passwd, with `\` and `:` escaped by `\`.

    pgpool reads up to the next bare `:` and takes whatever follows a `\` (src/auth/pool_passwd.c,
    getNextToken and userMatchesString). Raises UnrepresentableError.
    """
    _refuse_line_ends(value)
    return value.replace("\\", r"\\").replace(":", r"\:")


def _refuse_line_ends(value: str) -> None:
    for character, name in (("\n", "a newline"), ("\r", "a carriage return"), ("\0", "a NUL character")):
        if character in value:
            raise UnrepresentableError(f"contains {name}")
