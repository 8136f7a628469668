"""The reference that people read, and the settings in effect."""

import json

import pytest

from entrypoint import defaults, reference
from entrypoint.catalogue import Catalogue
from entrypoint.settings import TABLE, Setting

SECTIONS = [value for value in vars(defaults).values() if isinstance(value, defaults.DefaultSection)]
DEFAULTS = [default for section in SECTIONS for default in section.defaults]


def rows(column: int = 0) -> list[str]:
    lines = reference.markdown().splitlines()
    return [line.strip("|").split(" | ")[column].strip() for line in lines if line.startswith("| `")]


@pytest.mark.parametrize("setting", TABLE, ids=lambda setting: setting.name)
def test_every_setting_has_its_row(setting: Setting[object]) -> None:
    default = "required" if setting.required else f"`{setting.default}`" if setting.default else "unset"
    row = f"| `{setting.name}` | {setting.shape} | {default} | {setting.help} |\n"
    assert reference.markdown().count(row) == 1


@pytest.mark.parametrize("default", DEFAULTS, ids=lambda default: default.name)
def test_every_default_of_ours_has_its_row_and_reason(default: defaults.Default) -> None:
    value = f"`{default.value}`" if default.value else "empty"
    assert reference.markdown().count(f"| `{default.name}` | {value} | {default.why} |\n") == 1
    assert default.why


def test_settings_defaults_and_reserved_parameters_are_all_there_is() -> None:
    expected = [setting.name for setting in TABLE] + [default.name for default in DEFAULTS] + sorted(defaults.RESERVED)
    assert rows() == [f"`{name}`" for name in expected]


def test_no_row_is_broken_by_what_stands_in_it() -> None:
    table = [line for line in reference.markdown().splitlines() if line.startswith("|")]
    assert {line.count(" | ") for line in table if not line.startswith("|--")} == {3, 2}


def test_the_json_says_the_same() -> None:
    document = json.loads(reference.as_json())
    assert [each["name"] for each in document["settings"]] == [setting.name for setting in TABLE]
    assert {each["name"] for each in document["settings"] if each["secret"]} == {"PGPOOL_PCP_PASSWORD"}
    assert [each["name"] for each in document["settings"] if each["required"]] == ["PGPOOL_BACKENDS"]
    assert [(each["name"], each["value"]) for each in document["parameters"]] == [
        (default.name, default.value) for default in DEFAULTS
    ]
    assert list(document["reserved"]) == sorted(defaults.RESERVED)


def test_every_default_and_reserved_parameter_exists(catalogue: Catalogue) -> None:
    names = {default.name for default in DEFAULTS} | set(defaults.RESERVED)
    assert names - set(catalogue.parameters) == set()
    for default in DEFAULTS:
        catalogue.assign(default.name, default.value)


def test_no_default_is_set_twice() -> None:
    names = [default.name for default in DEFAULTS]
    assert len(names) == len(set(names))


def test_every_parameter_that_holds_a_password_is_reserved_or_known_to_be_secret(catalogue: Catalogue) -> None:
    secret = {name for name, parameter in catalogue.parameters.items() if parameter.secret}
    assert secret - set(defaults.RESERVED) == {"wd_authkey"}
