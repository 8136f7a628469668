"""The pcp tools' password file, and what is made of their answers."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.errors import ProgramMissingError, ProgramUnusableError
from entrypoint.pcp import PcpAddress, PcpAnswer, _escaped, run_pcp
from entrypoint.secret import Secret
from entrypoint.values import MAX_PCP_PASSWORD_BYTES

PASSWORD = "pcp : pass \\ 100%"
ENV = {"PATH": "/usr/bin:/bin"}
LINELEN = 320


def next_field(line: str, token: str) -> str | None:
    """src/libs/pcp/pcp.c, pwdfMatchesString: what follows the first field when it is `*` or this token."""
    if line.startswith("*:"):
        return line[2:]
    position = matched = 0
    while position < len(line):
        escaped = line[position] == "\\"
        position += escaped
        if line[position : position + 1] == ":" and matched == len(token) and not escaped:
            return line[position + 1 :]
        if matched == len(token) or line[position : position + 1] != token[matched]:
            return None
        position += 1
        matched += 1
    return None


def password_from(line: str, user: str) -> str | None:
    """The same file, PasswordFromFile: the password of the line that matches."""
    rest: str | None = line.encode()[: LINELEN - 1].decode(errors="replace").removesuffix("\n")
    for token in ("/run/pgpool", "9898", user):
        rest = next_field(rest, token) if rest is not None else None
    if rest is None:
        return None
    password = ""
    position = 0
    while position < len(rest) and rest[position] != ":":
        position += rest[position] == "\\" and position + 1 < len(rest)
        password += rest[position]
        position += 1
    return password


@given(
    st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S", "Zs"]), min_size=1)
    | st.text(":\\ %a", min_size=1),
    st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", fullmatch=True),
)
def test_the_tools_read_back_every_password_that_is_allowed(password: str, user: str) -> None:
    if len(password.encode()) <= MAX_PCP_PASSWORD_BYTES:
        line = f"*:*:{_escaped(user)}:{_escaped(password)}\n"
        assert password_from(line, user) == password
        assert password_from(line, f"{user}x") is None


def tool(directory: Path, script: str, mode: int = 0o700) -> str:
    path = directory / "pcp_tool"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)
    return str(path)


def run(command: str, *arguments: str, password: str = PASSWORD, seconds: float = 30, **env: str) -> PcpAnswer:
    address = PcpAddress(Path("/run/my pool"), 9898, "pgpool", Secret(password))
    return run_pcp(command, arguments, address, {**ENV, **env}, seconds=seconds)


def test_the_password_is_in_a_file_of_ours_and_nowhere_else(tmp_path: Path) -> None:
    script = """
        cat "$PCPPASSFILE"; stat -Lc '%a %F' "$PCPPASSFILE"
        for word in "$@"; do printf '<%s>' "$word"; done
        env | grep -c 'pass' >&2; tr '\\0' ' ' </proc/$$/cmdline | grep -c 100% >&2
        exit 3"""
    answer = run(tool(tmp_path, script), "-a", "two words")
    assert answer == PcpAnswer(
        "*:*:pgpool:pcp \\: pass \\\\ 100%\n"
        "600 regular file\n"
        "<-w><-h></run/my pool><-p><9898><-U><pgpool><-a><two words>",
        "0\n0\n",
        3,
    )


def test_a_tool_gets_no_more_of_the_environment_than_it_needs(tmp_path: Path) -> None:
    answer = run(
        tool(tmp_path, "exec env"),
        LC_ALL="C",
        PGPOOL_PCP_PASSWORD=PASSWORD,
        PGPASSWORD="somebody's pass 100%",
        HOME="/",
    )
    names = {line.partition("=")[0] for line in answer.output.splitlines()}
    assert names - {"PWD", "SHLVL", "_"} == {"PATH", "LC_ALL", "PCPPASSFILE"}  # those three are the shell's own


def test_a_password_that_is_no_text_is_passed_on_as_it_is(tmp_path: Path) -> None:
    """What os.environ makes of bytes that are not UTF-8; pgpool is to refuse it, not we to fall over it."""
    assert run(tool(tmp_path, 'cat "$PCPPASSFILE"'), password="ol\udce9").output == "*:*:pgpool:ol\ufffd\n"


def test_a_tool_that_hangs_is_ended(tmp_path: Path) -> None:
    assert run(tool(tmp_path, "exec sleep 100"), seconds=0.05) == PcpAnswer("", "", -1, timed_out=True)


def test_words_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    assert run(tool(tmp_path, r"printf 'ol\351'")).output == "ol\ufffd"


def test_a_tool_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProgramMissingError, match="none is not on PATH; it belongs to pgpool"):
        run(f"{tmp_path}/none")


def test_a_tool_that_cannot_be_executed_is_told(tmp_path: Path) -> None:
    with pytest.raises(ProgramUnusableError, match="cannot be executed: Permission denied"):
        run(tool(tmp_path, "true", mode=0o600))


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    def descriptors() -> set[str]:
        return {entry.name for entry in Path("/proc/self/fd").iterdir() if entry.exists()}

    before = descriptors()
    run(tool(tmp_path, "true"))
    run(tool(tmp_path, "exec sleep 100"), seconds=0.01)
    with pytest.raises(ProgramMissingError):
        run(f"{tmp_path}/none")
    assert descriptors() == before


def test_an_address_shows_no_password() -> None:
    assert "100%" not in repr(PcpAddress(Path("/run"), 1, "pgpool", Secret(PASSWORD)))
