"""Exit codes, and problems in the words of the contract."""

import re
from io import StringIO
from pathlib import Path
from typing import NoReturn

import pytest

import entrypoint.program
import sidecar.__main__
from entrypoint.commandline import finish
from entrypoint.errors import (
    ConfigurationError,
    EntrypointError,
    ExitCode,
    Problem,
    Problems,
    ProgramMissingError,
    ProgramUnusableError,
    PublishError,
)
from entrypoint.log import Log


def test_the_exit_codes_are_those_of_the_contract_and_unique() -> None:
    assert {code.name: code.value for code in ExitCode} == {
        "OK": 0,
        "BUG": 1,
        "USAGE": 64,
        "CANNOT_PUBLISH": 73,
        "CONFIGURATION": 78,
        "CANNOT_EXECUTE": 126,
        "NOT_FOUND": 127,
        "INTERRUPTED": 130,
    }
    # __members__ has aliases, too, over which iteration passes
    assert [name for name, code in ExitCode.__members__.items() if name != code.name] == ["NO"]


def test_ctrl_c_ends_as_in_a_shell() -> None:
    def interrupted() -> NoReturn:
        raise KeyboardInterrupt

    stream = StringIO()
    with pytest.raises(SystemExit) as raised:
        finish(interrupted, Log("test", stream))
    assert raised.value.code is ExitCode.INTERRUPTED
    assert stream.getvalue() == ""


def test_the_readme_names_every_exit_code() -> None:
    readme = Path(__file__).parents[2].joinpath("README.md").read_text()
    told = readme.partition("**Exit status.**")[2].partition("After boot")[0]
    assert sorted(map(int, re.findall(r"\b[0-9]+\b", told))) == sorted(ExitCode)


def test_every_error_ends_with_its_own_exit_code() -> None:
    codes = {error.__name__: error.exit_code for error in all_errors(EntrypointError)}
    assert codes == {
        "ConfigurationError": ExitCode.CONFIGURATION,
        "PublishError": ExitCode.CANNOT_PUBLISH,
        "ProgramMissingError": ExitCode.NOT_FOUND,
        "ProgramUnusableError": ExitCode.CANNOT_EXECUTE,
        entrypoint.program.RejectedError.__name__: ExitCode.CONFIGURATION,
        sidecar.__main__.NotBootedError.__name__: ExitCode.CANNOT_PUBLISH,
    }
    assert EntrypointError.exit_code == ExitCode.BUG


def all_errors(root: type[EntrypointError]) -> set[type[EntrypointError]]:
    return {each for child in root.__subclasses__() for each in (child, *all_errors(child))}


def test_a_problem_says_who_what_and_what_to_do() -> None:
    problem = Problem("PGPOOL_X", "environment", "is odd: 100%", "make it even")
    assert str(problem) == "  PGPOOL_X (environment)\n      is odd: 100%\n      → make it even"


def test_an_error_tells_every_problem() -> None:
    problems = Problems()
    problems.add("A", "default", "is odd", "a")
    problems.add("B", "/file", "is odd", "b")
    with pytest.raises(ConfigurationError) as raised:
        problems.raise_if_any()
    assert str(raised.value) == (
        "2 problems in the configuration; nothing was started or changed\n"
        "  A (default)\n      is odd\n      → a\n"
        "  B (/file)\n      is odd\n      → b"
    )


def test_the_same_problem_is_told_once() -> None:
    problems = Problems()
    for remedy in ("a", "a", "b"):
        problems.add("A", "default", "is odd", remedy)
    assert len(problems) == 2


def test_one_problem_is_counted_as_one() -> None:
    assert str(ConfigurationError([Problem("A", "b", "c", "d")])).startswith("1 problem in")


def test_no_problem_is_no_error() -> None:
    problems = Problems()
    problems.raise_if_any()
    assert len(problems) == 0


@pytest.mark.parametrize("error", [PublishError, ProgramMissingError, ProgramUnusableError])
def test_errors_are_told_in_their_own_words(error: type[EntrypointError]) -> None:
    assert str(error("no room for 100%")) == "no room for 100%"
