"""Names and values of pgpool's parameters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.catalogue import SUCCESSORS, Catalogue, InvalidValueError, UnknownParameterError, load_catalogue
from entrypoint.errors import ProgramUnusableError

CATALOGUE = load_catalogue("4.6")


def refusal(name: str, value: str) -> tuple[str, str]:
    with pytest.raises(InvalidValueError) as raised:
        CATALOGUE.assign(name, value)
    return raised.value.what, raised.value.remedy


def test_a_version_without_catalogue_is_an_error() -> None:
    with pytest.raises(ProgramUnusableError, match=r"pgpool 3\.7 .* known here: 4\.6\n"):
        load_catalogue("3.7")


@pytest.mark.parametrize("version", ["4.6", "4.6.1", "4.6.10", "4.6devel"])
def test_a_catalogue_serves_every_release_of_its_series(version: str) -> None:
    assert load_catalogue(version).parameters == CATALOGUE.parameters


def test_the_catalogue_of_4_6_holds_its_parameters_in_lower_case() -> None:
    assert CATALOGUE.minor == "4.6"
    assert len(CATALOGUE.parameters) > 150
    assert all(name.islower() and name == parameter.name for name, parameter in CATALOGUE.parameters.items())
    assert CATALOGUE.parameters["delegate_ip"].type == "string"


def test_parameters_that_hold_a_password_are_marked_secret() -> None:
    assert {name for name, parameter in CATALOGUE.parameters.items() if parameter.secret} == {
        "health_check_password",
        "recovery_password",
        "sr_check_password",
        "wd_authkey",
        "wd_lifecheck_password",
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("port", ("port", None)),
        ("PORT", ("port", None)),
        ("Health_Check_Period", ("health_check_period", None)),
        ("health_check_period0", ("health_check_period", 0)),
        ("HEALTH_CHECK_PERIOD127", ("health_check_period", 127)),
        ("backend_hostname10", ("backend_hostname", 10)),
        ("delegate_IP", ("delegate_ip", None)),
        ("ssl_crl_file", ("ssl_crl_file", None)),
    ],
)
def test_a_name_is_found_in_any_case_and_with_its_index(name: str, expected: tuple[str, int | None]) -> None:
    parameter, index = CATALOGUE.find(name)
    assert (parameter.name, index) == expected


@pytest.mark.parametrize(
    ("name", "what", "remedy"),
    [
        ("prot", "pgpool 4.6 has no parameter 'prot'", "did you mean port?"),
        ("NUM_INIT_CHILDRENS", "pgpool 4.6 has no parameter 'num_init_childrens'", "did you mean num_init_children?"),
        ("max_connections", "pgpool 4.6 has no parameter 'max_connections'", "did you mean child_max_connections?"),
        ("", "pgpool 4.6 has no parameter ''", "see the parameter list in pgpool's manual"),
        ("port0", "pgpool 4.6 has no parameter 'port0'", "did you mean port?"),
        ("health_check_period128", "index 128 is too high", "health_check_period takes indexes from 0 to 127"),
        (
            "health_check_period01",
            "pgpool 4.6 has no parameter 'health_check_period01'",
            "did you mean health_check_period?",
        ),
        (
            "backend_hostname",
            "backend_hostname exists once per node, so its name ends in a node id",
            "write backend_hostname0 to backend_hostname127",
        ),
        ("port = 1\nssl", "pgpool 4.6 has no parameter 'port = 1\\nssl'", "see the parameter list in pgpool's manual"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name: str, what: str, remedy: str) -> None:
    assert refusal(name, "1") == (what, remedy)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        *((value, "on") for value in ("on", "On", "ON", "true", "TRUE", "yes", "t", "y", "1")),
        *((value, "off") for value in ("off", "OFF", "false", "False", "no", "f", "n", "0")),
    ],
)
def test_a_boolean_is_written_as_on_or_off(value: str, encoded: str) -> None:
    assignment = CATALOGUE.assign("load_balance_mode", value)
    assert (assignment.encoded, assignment.number) == (encoded, int(encoded == "on"))


@pytest.mark.parametrize(
    "value", ["", " ", "on ", "2", "of", "o", "disable", "disabled", "none", "-1", "00", "\u017f", "on\n"]
)
def test_what_pgpool_would_take_for_true_by_default_is_no_boolean(value: str) -> None:
    assert refusal("load_balance_mode", value) == ("is not a boolean", "write on or off")


@pytest.mark.parametrize(
    ("name", "value", "encoded", "number"),
    [
        ("port", "9999", "9999", 9999),
        ("num_init_children", "1", "1", 1),
        ("child_life_time", "0", "0", 0),
        ("child_life_time", "2147483647", "2147483647", 2147483647),
        ("child_life_time", "300s", "'300s'", 300),
        ("child_life_time", "5min", "'5min'", 300),
        ("child_life_time", "2 h", "'2h'", 7200),
        ("child_life_time", "1d", "'1d'", 86400),
        ("child_life_time", "3000ms", "'3000ms'", 3),
        ("child_life_time", "2000000us", "'2000000us'", 2),
        ("log_rotation_age", "2d", "'2d'", 2880),
        ("delay_threshold_by_time", "10s", "'10s'", 10_000),
        ("memqcache_total_size", "4MB", "'4MB'", 4 * 2**20),
        ("memqcache_total_size", "1 GB", "'1GB'", 2**30),
        ("memqcache_total_size", "4096", "4096", 4096),
        ("log_rotation_size", "2048B", "'2048B'", 2),
        ("delay_threshold", "9223372036854774784", "9223372036854774784", 9223372036854774784),
        # pgpool reads health_check_period = '1min' without a node id as 1, so only bare numbers are written there.
        ("health_check_period", "1min", "60", 60),
        ("health_check_period", "30 s", "30", 30),
        ("connect_timeout", "10s", "10000", 10_000),
        ("health_check_period0", "1min", "'1min'", 60),
        ("connect_timeout2", "10s", "'10s'", 10_000),
        ("health_check_max_retries", "24", "24", 24),
    ],
)
def test_a_whole_number_is_taken_in_its_unit(name: str, value: str, encoded: str, number: int) -> None:
    assignment = CATALOGUE.assign(name, value)
    assert (assignment.encoded, assignment.number) == (encoded, number)


UNITS_OF_TIME = "in s, or with a unit (us, ms, s, min, h, d)"
LIFE_TIME = f"give a whole number from 0 to 2147483647, {UNITS_OF_TIME}"


@pytest.mark.parametrize(
    ("name", "value", "what", "remedy"),
    [
        *(
            ("child_life_time", value, "is not a whole number", LIFE_TIME)
            for value in ("", " 1", "1 ", "010", "0x10", "1.5", "1e3", "+1", "--1", "1_000", "٣", "1  s", "1s s", "1\n")
        ),
        ("child_life_time", "-1", "is out of range", LIFE_TIME),
        ("child_life_time", "2147483648", "is out of range", LIFE_TIME),
        ("child_life_time", "99999999999999999999", "is not a whole number", LIFE_TIME),
        ("child_life_time", "30000d", "is out of range (2592000000 s)", LIFE_TIME),
        ("child_life_time", "1m", "has an unknown unit 'm'", "the units are us, ms, s, min, h, d"),
        ("child_life_time", "1S", "has an unknown unit 'S'", "the units are us, ms, s, min, h, d"),
        ("child_life_time", "1MB", "has an unknown unit 'MB'", "the units are us, ms, s, min, h, d"),
        ("child_life_time", "1500ms", "is no whole number of s; pgpool would round it", "give a multiple of 1 s"),
        ("memqcache_total_size", "1mb", "has an unknown unit 'mb'", "the units are B, kB, MB, GB, TB"),
        ("log_rotation_size", "100B", "is no whole number of kB; pgpool would round it", "give a multiple of 1 kB"),
        ("port", "80s", "has the unit 's', but port takes none", "give a whole number from 1024 to 65535"),
        ("port", "1023", "is out of range", "give a whole number from 1024 to 65535"),
        ("port", "65536", "is out of range", "give a whole number from 1024 to 65535"),
        ("num_init_children", "0", "is out of range", "give a whole number from 1 to 2147483647"),
    ],
)
def test_a_number_that_pgpool_would_read_differently_is_refused(name: str, value: str, what: str, remedy: str) -> None:
    assert refusal(name, value) == (what, remedy)


@pytest.mark.parametrize(("value", "number"), [("0770", 0o770), ("0600", 0o600), ("0000", 0), ("0777", 0o777)])
@pytest.mark.parametrize("name", ["unix_socket_permissions", "log_file_mode"])
def test_a_file_mode_is_written_in_octal_as_it_was_given(name: str, value: str, number: int) -> None:
    assignment = CATALOGUE.assign(name, value)
    assert (assignment.encoded, assignment.number) == (value, number)


@pytest.mark.parametrize("value", ["770", "0o770", "0880", "07777", "", "0 770", "504"])
def test_a_file_mode_in_any_other_form_is_refused(value: str) -> None:
    expected = ("is not a file mode", "write it in octal with a leading zero, such as 0770")
    assert refusal("unix_socket_permissions", value) == expected


@pytest.mark.parametrize("value", ["0", "1", "2.5", "0.000000001", "100000000"])
def test_a_weight_is_a_decimal_number(value: str) -> None:
    assert CATALOGUE.assign("backend_weight0", value).encoded == value


@pytest.mark.parametrize("value", ["", "-1", "1e3", ".5", "1.", "nan", "inf", "0x1", "1,5", "1234567890"])
def test_a_weight_in_any_other_form_is_refused(value: str) -> None:
    assert refusal("backend_weight0", value) == ("is not a number", "give a number from 0 to 1e+08")


@pytest.mark.parametrize("value", ["100000001", "100000000.5", "999999999"])
def test_a_weight_out_of_range_is_refused(value: str) -> None:
    assert refusal("backend_weight0", value) == ("is out of range", "give a number from 0 to 1e+08")


@pytest.mark.parametrize(
    ("name", "value", "encoded"),
    [
        ("backend_clustering_mode", "streaming_replication", "'streaming_replication'"),
        ("backend_clustering_mode", "RAW", "'raw'"),
        ("client_min_messages", "debug", "'debug'"),  # pgpool hides it, but reads it
        ("check_temp_table", "off", "'off'"),
    ],
)
def test_one_of_the_values_is_taken_in_any_case(name: str, value: str, encoded: str) -> None:
    assert CATALOGUE.assign(name, value).encoded == encoded


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("check_temp_table", "catalogue", "did you mean catalog? choose from catalog, trace, none, on, off"),
        ("check_temp_table", "", "choose from catalog, trace, none, on, off"),
        ("process_management_mode", "'dynamic'", "did you mean dynamic? choose from static, dynamic"),
        ("process_management_mode", "static ", "did you mean static? choose from static, dynamic"),
    ],
)
def test_a_value_that_is_none_of_them_is_refused_with_a_suggestion(name: str, value: str, remedy: str) -> None:
    assert refusal(name, value) == ("is not one of its values", remedy)


@pytest.mark.parametrize(
    "value",
    ["", " ", "a b", "100%", 'say "hi"', "back\\slash", "# no comment", "tab\t", "ünïcödé 🐘", "a=b;c", "$_IP_$"],
)
def test_a_string_is_written_between_quotes_as_it_is(value: str) -> None:
    assert CATALOGUE.assign("failover_command", value).encoded == f"'{value}'"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ("it's", "contains a single quote, which pgpool.conf cannot express"),
        ("\\'", "contains a single quote, which pgpool.conf cannot express"),
        ("a\nssl = off", "contains a newline"),
        ("a\r", "contains a carriage return"),
        ("a\0b", "contains a NUL character"),
    ],
)
def test_a_string_that_pgpool_conf_cannot_hold_is_refused(value: str, what: str) -> None:
    assert refusal("failover_command", value) == (
        what,
        "change the value; for a command, put it into a script and name that",
    )


def test_an_assignment_is_named_with_its_index() -> None:
    assert CATALOGUE.assign("HEALTH_CHECK_PERIOD1", "5").name == "health_check_period1"
    assert CATALOGUE.assign("HEALTH_CHECK_PERIOD", "5").name == "health_check_period"


def test_every_default_of_pgpools_own_is_accepted_again(catalogue: Catalogue) -> None:
    strange = {"log_file_mode", "unix_socket_permissions"}  # written in octal, so not as the number they are
    for parameter in catalogue.parameters.values():
        if parameter.default is None or parameter.name in strange:
            continue
        name = parameter.name + ("0" if parameter.index_max is not None else "")
        value = str(parameter.default)
        expected = parameter.default if isinstance(parameter.default, int) else None
        assert (
            catalogue.assign(name, value.lower() if isinstance(parameter.default, bool) else value).number == expected
        )


@given(
    st.sampled_from(sorted(CATALOGUE.parameters)),
    st.text(max_size=30) | st.text("0123456789 smhdkMGTB'-\n#", max_size=12),
)
def test_whatever_is_accepted_is_one_token_on_one_line(name: str, value: str) -> None:
    parameter = CATALOGUE.parameters[name]
    try:
        encoded = CATALOGUE.assign(name if parameter.index_max is None else f"{name}7", value).encoded
    except InvalidValueError:
        return
    assert encoded.splitlines()[:1] != [""]
    assert not {"\n", "\r", "\0"} & set(encoded)
    if encoded.startswith("'"):
        assert "'" not in encoded[1:-1]
        assert encoded.endswith("'")
    else:
        assert encoded.replace(".", "").replace("-", "").isalnum()


@pytest.mark.parametrize(("former", "successor"), SUCCESSORS.items())
def test_what_pgpool_has_renamed_is_known_under_the_new_name_alone(former: str, successor: str) -> None:
    CATALOGUE.find(successor)
    for name in (former, f"{former}0"):
        with pytest.raises(UnknownParameterError) as error:
            CATALOGUE.find(name)
        assert error.value.remedy == f"its successor is {successor}"
