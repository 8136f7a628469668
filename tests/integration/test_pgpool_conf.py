"""pgpool's own parser reads from pgpool.conf what was meant, and our catalogue refuses what it would misread."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from entrypoint import defaults, pipeline
from entrypoint.catalogue import InvalidValueError, Parameter, load_catalogue
from entrypoint.errors import ConfigurationError
from entrypoint.program import RejectedError, find_program
from support import oracle
from support.pod import Pod

CATALOGUE = load_catalogue("4.6")
SETTABLE = {name: each for name, each in CATALOGUE.parameters.items() if name not in defaults.RESERVED}
NUMBERS = {name: each for name, each in SETTABLE.items() if each.type in {"int", "long"}}
OCTAL = {"unix_socket_permissions", "log_file_mode"}

TRUE, FALSE = ("on", "true", "yes", "t", "y", "1"), ("off", "false", "no", "f", "n", "0")
TIME = {"us": 1, "ms": 1000, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
MEMORY = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}

# All that a string in pgpool.conf can hold.
STRINGS = st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r'"), max_size=60)

# pgpool reads lists of these as `name:node(weight)`, and its dry run refuses others.
REDIRECTIONS = st.sampled_from(["", "app:primary", "app:standby(0.4),my.*:primary", "a % b:1"])

# Rules across parameters are tested elsewhere: here they are kept.
KEPT = {
    "port": st.just("20001"),
    "pcp_port": st.just("20002"),
    "num_init_children": st.integers(50, 60).map(str),
    "reserved_connections": st.integers(0, 40).map(str),
    "min_spare_children": st.integers(1, 20).map(str),
    "max_spare_children": st.integers(21, 40).map(str),
    "listen_addresses": st.just("127.0.0.1"),
    "log_destination": st.sampled_from(["stderr", "syslog", "stderr,syslog", "syslog, stderr"]),
    "backend_clustering_mode": st.just("streaming_replication"),  # others forbid some of the rest
    "replication_mode": st.just("off"),
    "app_name_redirect_preference_list": REDIRECTIONS,
    "database_redirect_preference_list": REDIRECTIONS,
    "user_redirect_preference_list": REDIRECTIONS,
    "backend_data_directory": st.just("/data"),
    "use_watchdog": st.just("off"),  # else pgpool asks for a file pgpool_node_id, which nobody here writes
}

quick = settings(
    phases=[Phase.explicit, Phase.generate],  # to shrink a file of 150 settings takes minutes
    max_examples=15,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def values(parameter: Parameter) -> st.SearchStrategy[str]:
    """Texts that a user may give for this parameter."""
    if parameter.name in KEPT:
        return KEPT[parameter.name]
    match parameter.type:
        case "bool":
            return st.sampled_from([*TRUE, *FALSE, "ON", "False"])
        case "enum":
            return st.sampled_from(parameter.options).map(str.upper) | st.sampled_from(parameter.options)
        case "int" | "long":
            return numbers(parameter)
        case "double":
            return st.sampled_from(["0", "0.5", "1", "12.25"])
        case _:
            return STRINGS


def numbers(parameter: Parameter) -> st.SearchStrategy[str]:
    low, high = limits(parameter)
    if parameter.name in OCTAL:
        return st.integers(low, high).map(lambda mode: f"0{mode:03o}").filter(lambda text: len(text) == 4)
    plain = st.sampled_from([low, high]) | st.integers(low, high)
    if parameter.unit is None:
        return plain.map(str)
    table = units(parameter)
    base = table[parameter.unit]
    coarse = [unit for unit, size in table.items() if size >= base and low * base <= size <= high * base]
    high = min(high, 2**53)  # what pgpool converts without error
    with_unit = st.sampled_from(coarse).flatmap(
        lambda unit: st.integers(-(-low * base // table[unit]), high * base // table[unit]).map(
            lambda number: f"{number}{unit}"
        )
    )
    return plain.map(str) | with_unit if coarse else plain.map(str)


def limits(parameter: Parameter) -> tuple[int, int]:
    assert parameter.min is not None
    assert parameter.max is not None
    return int(parameter.min), int(parameter.max)


def units(parameter: Parameter) -> Mapping[str, int]:
    return MEMORY if parameter.unit in MEMORY else TIME


def variable_of(parameter: Parameter) -> str:
    """The variable for node 0 where a parameter exists once per node."""
    return f"PGPOOL_PARAMS_{parameter.name.upper()}" + ("0" if parameter.index_max is not None else "")


def meaning(parameter: Parameter, text: str) -> object:
    """What pgpool's manual says a text means for this parameter."""
    match parameter.type:
        case "bool":
            assert text.lower() in TRUE + FALSE
            return text.lower() in TRUE
        case "enum":
            return text.lower()
        case "int" | "long":
            if parameter.name in OCTAL:
                return int(text, 8)
            match = re.fullmatch(r"(-?\d+) ?([A-Za-z]*)", text)
            assert match
            if not match[2]:
                return int(match[1])
            assert parameter.unit
            return int(match[1]) * units(parameter)[match[2]] / units(parameter)[parameter.unit]
        case "double":
            return float(text)
        case _:
            return text


def render(pod: Pod, params: Mapping[str, str]) -> Path:
    _, tree = pipeline.prepare({**pod.environment, **params}, None, datetime.now(UTC))
    return pod.write("pgpool.conf", tree.files["pgpool.conf"])


@pytest.fixture(scope="module")
def shared_pod(pgpool_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Pod:
    """Nothing is started here: a server is not needed."""
    pod = Pod(tmp_path_factory.mktemp("conf"), pgpool_bin=pgpool_bin, postgres_port=5432)
    pod.write_user("sr_check", "check % password")
    for name in list(pod.environment):
        if name.startswith("PGPOOL_PARAMS_"):
            del pod.environment[name]
    pod.environment["PGPOOL_RUN_DIR"] = "/run/pgpool"
    return pod


@quick
@given(chosen=st.fixed_dictionaries({name: values(each) for name, each in SETTABLE.items()}))
def test_every_parameter_is_read_as_it_was_meant(pgpool_bin: Path, shared_pod: Pod, chosen: dict[str, str]) -> None:
    conf = render(shared_pod, {variable_of(SETTABLE[name]): value for name, value in chosen.items()})
    parsed = oracle.parsed_settings(pgpool_bin, conf)
    assert oracle.unrecognised_settings(pgpool_bin, conf) == set()
    for name, value in chosen.items():
        parameter = SETTABLE[name]
        in_file = name + ("0" if parameter.index_max is not None else "")
        assert meaning(parameter, parsed[in_file]) == meaning(parameter, value), name


@settings(quick, max_examples=25)
@given(value=STRINGS)
@pytest.mark.parametrize("name", ["failover_command", "log_line_prefix", "reset_query_list"])
def test_any_string_is_read_as_it_was_given(pgpool_bin: Path, shared_pod: Pod, name: str, value: str) -> None:
    conf = render(shared_pod, {f"PGPOOL_PARAMS_{name.upper()}": value})
    assert oracle.parsed_settings(pgpool_bin, conf)[name] == value


@settings(quick, max_examples=40)
@given(
    value=st.text(st.characters(codec="utf-8", exclude_characters="\0") | st.sampled_from("'\n\r\\#= %"), max_size=20)
)
def test_no_string_changes_another_setting(pgpool_bin: Path, shared_pod: Pod, value: str) -> None:
    try:
        conf = render(shared_pod, {"PGPOOL_PARAMS_FAILOVER_COMMAND": value})
    except ConfigurationError:
        assert set(value) & set("'\n\r")
        return
    parsed = oracle.parsed_settings(pgpool_bin, conf)
    plain = oracle.parsed_settings(pgpool_bin, render(shared_pod, {"PGPOOL_PARAMS_FAILOVER_COMMAND": "true"}))
    own = {"failover_command": value, "syslog_ident": parsed["syslog_ident"]}
    assert parsed == {**plain, **own}


def test_pgpool_reads_the_marker_last_and_it_tells_configurations_apart(pgpool_bin: Path, shared_pod: Pod) -> None:
    variants: list[dict[str, str]] = [
        {},
        {"PGPOOL_PARAMS_WD_PRIORITY": "2"},
        {"PGPOOL_PCP_USER": "other"},
        {"PGPOOL_HBA_FILE": str(shared_pod.write("hba", "local all all scram-sha-256\n"))},
    ]
    markers = []
    for variant in variants:
        given = {"PGPOOL_PCP_PASSWORD": "a pcp % password", **variant}
        parsed = [oracle.parsed_settings(pgpool_bin, render(shared_pod, given)) for _ in range(2)]
        assert parsed[0] == parsed[1]
        assert list(parsed[0])[-1] == "syslog_ident"
        assert re.fullmatch("generation-[0-9a-f]{12}", parsed[0]["syslog_ident"])
        markers.append(parsed[0]["syslog_ident"])
    assert len(set(markers)) == len(variants)


def test_every_default_of_ours_is_read_as_it_was_meant(pgpool_bin: Path, shared_pod: Pod) -> None:
    conf = render(shared_pod, {})
    parsed = oracle.parsed_settings(pgpool_bin, conf)
    assert oracle.unrecognised_settings(pgpool_bin, conf) == set()
    written = dict(re.findall(r"^(\w+) = '?(.*?)'?$", conf.read_text(), re.MULTILINE))
    assert parsed == written
    assert parsed["backend_hostname0"] == "127.0.0.1"
    assert parsed["sr_check_user"] == "sr_check"
    assert "sr_check_password" not in parsed


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_the_limits_are_pgpools_own(pgpool_bin: Path, tmp_path: Path, name: str) -> None:
    parameter = NUMBERS[name]
    low, high = limits(parameter)
    in_file = name + ("0" if parameter.index_max is not None else "")

    def accepted(number: int) -> bool:
        conf = tmp_path / "pgpool.conf"
        conf.write_text(f"{in_file} = {f'0{number:o}' if name in OCTAL else number}\n")
        return oracle.accepts(pgpool_bin, conf)[0]

    for number in (low, high):
        assert accepted(number)
    for number in (low - 1, high + 1):
        with pytest.raises(InvalidValueError):
            CATALOGUE.assign(in_file, str(number))
    if low > 0:
        assert not accepted(low - 1)


# What pgpool makes of it: refused, or the text is taken and means something else.
REFUSED_OR_MISREAD = {
    "log_statement": ["maybe", "", "2", "disabled", "o"],
    "num_init_children": ["", "many", "0", "-1", "5s", "1 2", "0x10", "010", "1e3", "3.7"],
    "health_check_period0": ["5 seconds", "5 S", "1.5min", "-1"],
    "connect_timeout": ["10 parsecs"],
    "memqcache_total_size": ["4 mb", "4M", "1k"],
    "backend_clustering_mode": ["", "steaming_replication", "raw "],
    "log_min_messages": ["loud"],
    "port": ["80", "65536", "tcp://10.0.0.1:9999"],
    "unix_socket_permissions": ["777", "0o777", "rwx"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, texts in REFUSED_OR_MISREAD.items() for value in texts]
)
def test_what_the_catalogue_refuses_pgpool_refuses_or_misreads(
    pgpool_bin: Path, tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(InvalidValueError):
        CATALOGUE.assign(name, value)
    conf = tmp_path / "pgpool.conf"
    conf.write_text(f"{name} = '{value}'\n")
    accepted, _ = oracle.accepts(pgpool_bin, conf)
    parameter, _ = CATALOGUE.find(name)
    misread = {
        "bool": "every text that is none is true",
        "int": "bases, rounding and empty text are read as C reads them",
        "long": "the same",
    }
    assert not accepted or parameter.type in misread


@pytest.mark.parametrize("name", ["num_init_childrn", "nonsense", "backend_hostnam0", "PORT"])
def test_pgpool_itself_says_nothing_of_a_name_it_does_not_know(pgpool_bin: Path, tmp_path: Path, name: str) -> None:
    conf = tmp_path / "pgpool.conf"
    conf.write_text(f"{name} = '1'\n")
    assert oracle.accepts(pgpool_bin, conf)[0]
    assert oracle.unrecognised_settings(pgpool_bin, conf) == {name}


@pytest.mark.parametrize(
    "content",
    [b"port = 'a''b'\n", b"port = 10.0.0.1\n", b"port = 99999\n", b"listen_addresses = 'x' extra 'y' =\n= = =\n"],
    ids=["two strings", "no string", "out of range", "no settings"],
)
def test_the_dry_run_rejects_a_broken_file_in_pgpools_words(pgpool_bin: Path, content: bytes) -> None:
    program = find_program({"PATH": str(pgpool_bin)})
    program.dry_run(b"port = 9999\n", {})
    with pytest.raises(RejectedError, match=r"rejects the configuration .*FATAL"):
        program.dry_run(content, {})


def test_the_version_found_is_that_of_the_program(pgpool_bin: Path) -> None:
    program = find_program({"PATH": str(pgpool_bin)})
    assert program.path == pgpool_bin / "pgpool"
    assert re.fullmatch(r"4\.\d+\.\d+", program.version)


def test_a_unit_is_refused_where_pgpool_miscalculates(pgpool_bin: Path, tmp_path: Path) -> None:
    conf = tmp_path / "pgpool.conf"
    conf.write_text("relcache_expire = '9223372036854775807s'\n")
    assert not oracle.accepts(pgpool_bin, conf)[0]
    with pytest.raises(InvalidValueError, match="more than pgpool can convert"):
        CATALOGUE.assign("relcache_expire", "9223372036854775807s")
