"""The catalogue's extraction from small C sources, run as a command; and the catalogue of pgpool 4.6."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import pytest

PROJECT = Path(__file__).parents[2]
COMMITTED = PROJECT / "entrypoint" / "catalogues" / "pgpool-4.6.json"

Json: TypeAlias = dict[str, Any]

STRUCTS = """
struct config_enum_entry { const char *name; int val; bool hidden; };
struct config_generic
{
    const char *name;           /* name of variable - MUST BE FIRST */
    ConfigContext context; config_group group;
    const char *description; config_type vartype;
    bool        dynamic_array_var;  // with an index
    int         flags;
    int         max_elements;
};
struct config_bool { struct config_generic gen; bool *variable; bool boot_val; AssignFunc assign_func; };
struct config_int { struct config_generic gen; int *variable; int boot_val; int min; int max; };
struct config_long { struct config_generic gen; int64 *variable; int64 boot_val; int64 min; int64 max; };
struct config_double
{
    struct config_generic gen; double *variable; double boot_val; double min; double max;
};
struct config_string { struct config_generic gen; char **variable; const char *boot_val; };
struct config_string_list
{
    struct config_generic gen; char ***variable; int *list_elements_count; const char *boot_val;
    const char *separator; bool compute_regex;
};
struct config_enum
{
    struct config_generic gen; int *variable; int boot_val; const struct config_enum_entry *options;
};
struct config_int_array
{
    struct config_generic gen; int **variable; int boot_val; int min; int max;
    struct config_int config_no_index;
};
struct config_string_array
{
    struct config_generic gen; char ***variable; const char *boot_val; struct config_string config_no_index;
};
"""

CONSTANTS = """
#define MAX_NUM_BACKENDS 128
#define MAX_NODES (MAX_NUM_BACKENDS * 2)
#define DEFAULT_DIR "/tmp"      /* unless
                                 * packagers say otherwise */
#define TWICE 1
#define TWICE 2
#define UNSIGNED(x) (x)
#define EMPTY_GENERIC {NULL, 0, 0, NULL, 0, false, 0, 0}
#define END {EMPTY_GENERIC}
#define END_OF_RANGE {EMPTY_GENERIC, NULL, 0, 0, 0}
#define END_OF_STRING {EMPTY_GENERIC, NULL, NULL}
#define END_OF_STRING_LIST {EMPTY_GENERIC, NULL, NULL, NULL, NULL, false}
#define END_OF_ENUM {EMPTY_GENERIC, NULL, 0, NULL}
#define END_OF_ARRAY {EMPTY_GENERIC, NULL, 0, 0, 0, \\
                      END_OF_RANGE}
#define END_OF_STRING_ARRAY {EMPTY_GENERIC, NULL, NULL, END_OF_STRING}
"""

OPTIONS = """
static const struct config_enum_entry colour_options[] = {
    {"debug", GREY, true},      /* only for us */
    {"grey", GREY, false},
    {"red", RED, false},
    {NULL, 0, false}
};
"""

END_MARKERS = {
    "config_bool": "{EMPTY_GENERIC, NULL, false, NULL}",
    "config_int": "END_OF_RANGE",
    "config_long": "END_OF_RANGE",
    "config_double": "END_OF_RANGE",
    "config_string": "END_OF_STRING",
    "config_string_list": "END_OF_STRING_LIST",
    "config_enum": "END_OF_ENUM",
    "config_int_array": "END_OF_ARRAY",
    "config_string_array": "END_OF_STRING_ARRAY",
}


def make_source(directory: Path, tables: str, *, structs: str = STRUCTS, version: str = "4.6.1") -> Path:
    """An unpacked release with nothing in it but what the catalogue is made of."""
    for path in ["src/config", "src/include"]:
        (directory / path).mkdir(parents=True, exist_ok=True)
    (directory / "configure.ac").write_text(f"AC_INIT([pgpool-II], [{version}], [pgpool-hackers@pgpool.net])\n")
    (directory / "src/include/pool_config.h").write_text(CONSTANTS)
    (directory / "src/include/pool_config_variables.h").write_text(structs)
    (directory / "src/config/pool_config_variables.c").write_text(tables)
    return directory


def table(struct: str, *records: str) -> str:
    return f"static struct {struct} ConfigureNames[] =\n{{\n{', '.join([*records, END_MARKERS[struct]])}\n}};\n"


def braces(*values: str) -> str:
    return "{" + ", ".join(values) + "}"


def gen(name: str = "it", context: str = "CFGCXT_RELOAD", flags: str = "0", elements: str = "0") -> str:
    """The part that all records have in common."""
    return braces(f'"{name}", {context}, SOME_CONFIG, "What it is.", SOME_TYPE, false, {flags}, {elements}')


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "image.extract_catalogue", *map(str, arguments)]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


def extracted(source: Path) -> Json:
    finished = run(source)
    assert finished.returncode == 0, finished.stderr
    catalogue: Json = json.loads(finished.stdout)
    return catalogue


@pytest.mark.parametrize(
    ("struct", "record", "expected"),
    [
        ("config_bool", braces(gen(), "&it, true, NULL"), {"type": "bool", "default": True}),
        (
            "config_int",
            braces(gen(flags="GUC_UNIT_S"), "&it, 60, 0, INT_MAX"),
            {"type": "int", "default": 60, "min": 0, "max": 2**31 - 1, "unit": "s"},
        ),
        (
            "config_int",
            braces(gen(flags="GUC_UNIT_KB"), "&it, 10 * 1024, -1, INT_MAX/1024,"),
            {"type": "int", "default": 10240, "min": -1, "max": 2097151, "unit": "kB"},
        ),
        (
            "config_int",
            braces(gen(), "&it, 0600, 0000, 0x1ff"),
            {"type": "int", "default": 0o600, "min": 0, "max": 0o777},
        ),
        (
            "config_int",
            braces(gen(), "&it, MAX_NODES, 1, (1000)"),
            {"type": "int", "default": 256, "min": 1, "max": 1000},
        ),
        (
            "config_long",
            braces(gen(flags="GUC_UNIT_BYTE"), "&it, (int64) 67108864, 0, LONG_MAX"),
            {"type": "long", "default": 67108864, "min": 0, "max": 2**63 - 1024, "unit": "B"},
        ),
        (
            "config_double",
            braces(gen(), "&it, 0, 0.0, 1.5e2"),
            {"type": "double", "default": 0.0, "min": 0.0, "max": 150.0},
        ),
        ("config_string", braces(gen(), "&it, DEFAULT_DIR"), {"type": "string", "default": "/tmp"}),
        (
            "config_string",
            braces(gen(), r'&it, "a \"b\", {c} /* d */ " "e"'),
            {"type": "string", "default": 'a "b", {c} /* d */ e'},
        ),
        ("config_string", braces(gen(), "&it, NULL"), {"type": "string"}),
        (
            "config_string_list",
            braces(gen(), '&it, &its, (const char *) DEFAULT_DIR, ",", false'),
            {"type": "string_list", "default": "/tmp", "separator": ","},
        ),
        (
            "config_enum",
            braces(gen(), "(int *) &it, GREY, colour_options"),
            {"type": "enum", "default": "grey", "options": ["grey", "red"], "hidden_options": ["debug"]},
        ),
        (
            "config_int_array",
            braces(gen(elements="MAX_NUM_BACKENDS"), "NULL, 0, 1024, 65535, END_OF_RANGE"),
            {"type": "int", "min": 1024, "max": 65535, "index_max": 127},
        ),
        (
            "config_int_array",
            braces(gen(flags="GUC_UNIT_S", elements="8"), "NULL, 5, 0, 9", braces(gen(), "&it, 5, 0, 9")),
            {"type": "int", "default": 5, "min": 0, "max": 9, "unit": "s", "index_max": 7, "bare": True},
        ),
        (
            "config_int_array",
            braces(
                gen(flags="GUC_UNIT_S", elements="8"),
                "NULL, 5, 0, 9",
                braces(gen(flags="GUC_UNIT_MS"), "&it, 5, 0, 9"),
            ),
            {"type": "int", "default": 5, "min": 0, "max": 9, "unit": "s"}
            | {"index_max": 7, "bare": True, "bare_unit": "ms"},
        ),
        (
            "config_string_array",
            braces(gen(elements="MAX_NODES"), 'NULL, "", END_OF_STRING'),
            {"type": "string", "default": "", "index_max": 255},
        ),
    ],
)
def test_a_record_becomes_a_parameter(tmp_path: Path, struct: str, record: str, expected: Json) -> None:
    source = make_source(tmp_path, OPTIONS + table(struct, record))
    described = {"context": "RELOAD", "description": "What it is."}
    assert extracted(source)["parameters"] == {"it": expected | described}


@pytest.mark.parametrize(
    ("name", "flags", "secret"),
    [
        ("sr_check_password", "VAR_HIDDEN_VALUE", True),
        ("recovery_password", "VAR_PART_OF_GROUP | VAR_HIDDEN_VALUE", True),
        ("wd_authkey", "0", True),  # pgpool does not hide it
        ("pool_passwd", "VAR_HIDDEN_VALUE", False),  # pgpool hides the name of a file
        ("ssl_key", "0", False),
    ],
)
def test_secrets_are_marked(tmp_path: Path, name: str, flags: str, *, secret: bool) -> None:
    source = make_source(tmp_path, table("config_string", braces(gen(name, flags=flags), '&it, ""')))
    assert extracted(source)["parameters"][name].get("secret", False) is secret


def test_the_tables_of_all_kinds_are_merged_and_sorted_by_name(tmp_path: Path) -> None:
    booleans = table("config_bool", *(braces(gen(name), "&it, false, NULL") for name in ["zebra", "ant"]))
    strings = table("config_string", braces(gen("mule"), '&it, ""'))
    assert list(extracted(make_source(tmp_path, booleans + strings))["parameters"]) == [
        "ant",
        "mule",
        "zebra",
    ]


def test_groups_are_no_parameters(tmp_path: Path) -> None:
    records = braces(braces(gen("backend"), "-1, NULL"), "END")
    groups = f"static struct config_grouped_array_var ConfigureVarGroups[] = {records};"
    source = make_source(tmp_path, groups + table("config_bool", braces(gen(), "&it, true, NULL")))
    assert list(extracted(source)["parameters"]) == ["it"]


@pytest.mark.parametrize(
    ("version", "minor"), [("4.6.1", "4.6"), ("4.7.0", "4.7"), ("4.7devel", "4.7"), ("5.0beta1", "5.0")]
)
def test_the_release_is_the_one_that_the_source_says_it_is(tmp_path: Path, version: str, minor: str) -> None:
    source = make_source(tmp_path, table("config_bool", braces(gen(), "&it, true, NULL")), version=version)
    catalogue = extracted(source)
    assert (catalogue["pgpool"], catalogue["generated_from"]) == (minor, f"pgpool-II-{version}")


def test_a_second_record_that_only_adds_an_empty_default_is_the_same_parameter(tmp_path: Path) -> None:
    values = ['"ALLOW_TO_FAILOVER"', '""']
    records = [braces(gen("backend_flag", elements="8"), f"NULL, {value}, END_OF_STRING") for value in values]
    source = make_source(tmp_path, table("config_string_array", *records))
    assert extracted(source)["parameters"]["backend_flag"]["default"] == "ALLOW_TO_FAILOVER"


def integer(values: str, **generic: str) -> str:
    return table("config_int", braces(gen(**generic), f"&it, {values}"))


def string(value: str, **generic: str) -> str:
    return table("config_string", braces(gen(**generic), f"&it, {value}"))


@pytest.mark.parametrize(
    ("tables", "complaint"),
    [
        (integer("60, 0, FORTY_TWO"), "ConfigureNames: it: unknown macro FORTY_TWO"),
        (integer("60, 0, TWICE"), "it: TWICE is defined as 1 or as 2"),
        (integer("60, 0, UNSIGNED(7)"), "it: UNSIGNED is a macro with arguments"),
        (integer("60, 0, 1 << 8"), "it: not arithmetic: 1"),
        (integer("60, 0, 1.5"), "it: not an integer"),
        (integer("60, 0"), "no value for max of config_int"),
        (integer("60, 0, 100, NULL"), "6 values for the 5 fields"),
        (integer("101, 0, 100"), "it: the default 101 is not within 0 and 100"),
        (integer("60, .min = 0, 100"), "unexpected '='"),
        (integer("60, 0, 100", flags="GUC_UNIT_BLOCKS"), "it: unknown flag GUC_UNIT_BLOCKS"),
        (
            integer("60, 0, 100", flags="GUC_UNIT_S | GUC_UNIT_MS"),
            "type int with the unit GUC_UNIT_MS, GUC_UNIT_S",
        ),
        (integer("60, 0, 100", context="CFGCXT_SUPERUSER"), "it: unknown context CFGCXT_SUPERUSER"),
        (integer("60, 0,\n#ifdef BIG\n100\n#endif\n"), "the preprocessor changes a table: #ifdef BIG"),
        (string('_("translated")'), "it: unknown macro _"),
        (string("60"), "it: not a string: 60"),
        (string('"\\x41"'), "unknown escape"),
        (string('""', name="new_password"), "new_password: is it a secret?"),
        (string('""', flags="GUC_UNIT_S"), "type string with the unit"),
        (string('""') + string('"other"'), "it is there twice, and differs"),
        (table("config_bool", braces(gen(), "&it, maybe, NULL")), "it: not a boolean: maybe"),
        (
            table("config_enum", braces(gen(), "&it, BLUE, colour_options")),
            "the default ('BLUE',) is 0 times",
        ),
        (
            table("config_enum", braces(gen(), "&it, GREY, size_options")),
            "unknown table of options size_options",
        ),
        (
            table("config_string_list", braces(gen(), '&it, &its, "", NULL, false')),
            "a list without a separator",
        ),
        (
            table("config_int_array", braces(gen(), "NULL, 5, 0, 9, END_OF_RANGE")),
            "it: an array of 0 elements",
        ),
        (
            table("config_int_array", braces(gen(elements="8"), "NULL, 5, 0, 9", braces(gen(), "&it, 6, 0, 9"))),
            "it: the form without an index differs",
        ),
        ("static struct config_bool ConfigureNames[] = {};", "ConfigureNames: no end marker"),
        ("static struct config_bool ConfigureNames[] = { {", "ConfigureNames: a closing brace is missing"),
        ("static struct config_bool ConfigureNames[] = { MORE };", "ConfigureNames: unknown macro MORE"),
        (
            "static struct config_uuid ConfigureNames[] = { END };",
            "unknown kind of table, struct config_uuid",
        ),
        ("int nothing;", "no parameters found"),
    ],
)
def test_what_it_does_not_understand_is_an_error(tmp_path: Path, tables: str, complaint: str) -> None:
    finished = run(make_source(tmp_path, OPTIONS + tables))
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert complaint in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("int min;", "int min; int step;", "struct config_int has an unknown field step"),
        ("int min;", "", "struct config_int has no min"),
        ("int min;", "int min[2];", "unknown shape of a struct's field: 'int min[2]'"),
    ],
)
def test_a_struct_with_other_fields_is_an_error(tmp_path: Path, old: str, new: str, complaint: str) -> None:
    structs = STRUCTS.replace(old, new, 1)
    finished = run(make_source(tmp_path, integer("60, 0, 100"), structs=structs))
    assert finished.returncode == 1
    assert complaint in finished.stderr


def test_a_directory_without_the_source_is_an_error(tmp_path: Path) -> None:
    finished = run(tmp_path)
    assert finished.returncode == 1
    assert "pool_config_variables.c: No such file or directory" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_the_output_has_one_parameter_on_each_line(tmp_path: Path) -> None:
    source = make_source(tmp_path / "source", table("config_bool", braces(gen(), "&it, true, NULL")))
    output = tmp_path / "catalogue.json"
    assert run(source, "-o", output).returncode == 0
    assert output.read_text().splitlines() == [
        "{",
        '"pgpool": "4.6",',
        '"generated_from": "pgpool-II-4.6.1",',
        '"parameters": {',
        '"it": {"type": "bool", "context": "RELOAD", "default": true, "description": "What it is."}',
        "}}",
    ]
    assert output.read_text().endswith("}}\n")


@pytest.mark.parametrize(
    ("version", "default", "difference"),
    [
        ("4.6.1", "60", []),
        ("4.6.9", "60", []),
        ("4.6.1", "61", ['"default": 60', '"default": 61']),
        ("4.7.0", "60", ['-"pgpool": "4.6"', '+"pgpool": "4.7"', '+"generated_from": "pgpool-II-4.7.0"']),
    ],
    ids=["the same source", "another patch release", "another default", "another minor release"],
)
def test_check_shows_what_differs(tmp_path: Path, version: str, default: str, difference: list[str]) -> None:
    committed = tmp_path / "catalogue.json"
    run(make_source(tmp_path / "before", integer("60, 0, 100")), "-o", committed)
    before = committed.read_bytes()
    after = make_source(tmp_path / "after", integer(f"{default}, 0, 100"), version=version)

    finished = run(after, "--check", committed)

    assert finished.returncode == (1 if difference else 0), finished.stderr
    assert bool(finished.stdout) is bool(difference)
    for line in difference:
        assert line in finished.stdout
    assert committed.read_bytes() == before


def committed_parameters() -> dict[str, Json]:
    parameters: dict[str, Json] = json.loads(COMMITTED.read_text())["parameters"]
    return parameters


def test_the_committed_catalogue_has_all_180_parameters_of_4_6_in_order() -> None:
    names = list(committed_parameters())
    assert len(names) == 180
    assert names == sorted(names)


def test_every_committed_default_is_a_value_that_the_parameter_may_have() -> None:
    types = {
        "bool": bool,
        "int": int,
        "long": int,
        "double": float,
        "string": str,
        "string_list": str,
        "enum": str,
    }
    for name, parameter in committed_parameters().items():
        if "default" not in parameter:
            continue
        default = parameter["default"]
        assert type(default) is types[parameter["type"]], name
        if "min" in parameter:
            assert parameter["min"] <= default <= parameter["max"], name
        if "options" in parameter:
            assert default in parameter["options"], name


def test_the_committed_catalogue_marks_exactly_the_secrets() -> None:
    assert {name for name, parameter in committed_parameters().items() if parameter.get("secret")} == {
        "health_check_password",
        "recovery_password",
        "sr_check_password",
        "wd_authkey",
        "wd_lifecheck_password",
    }


def test_exactly_the_health_check_parameters_are_accepted_with_and_without_an_index() -> None:
    assert {name for name, parameter in committed_parameters().items() if parameter.get("bare")} == {
        "connect_timeout",
        "health_check_database",
        "health_check_max_retries",
        "health_check_password",
        "health_check_period",
        "health_check_retry_delay",
        "health_check_timeout",
        "health_check_user",
    }
