"""The grammar of PGPOOL_BACKENDS."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.backends import DEFAULT_PORT, Backend, BackendsError, parse_backends


def faults(value: str) -> list[str]:
    with pytest.raises(BackendsError) as raised:
        parse_backends(value)
    return raised.value.faults


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a=h", [Backend(name="a", host="h")]),
        ("a=h:1024", [Backend(name="a", host="h", port=1024)]),
        ("a=h:65535", [Backend(name="a", host="h", port=65535)]),
        (
            "a=10.100.2.5,b=10.100.2.6:6432",
            [Backend(name="a", host="10.100.2.5"), Backend(name="b", host="10.100.2.6", port=6432)],
        ),
        (" a=h ,, b=i\n\tc=j, ", [Backend(name=name, host=host) for name, host in ("ah", "bi", "cj")]),
        ("a=[::1]", [Backend(name="a", host="::1")]),
        ("a=[fe80::1%eth0]:6432", [Backend(name="a", host="fe80::1%eth0", port=6432)]),
        ("A.b_c-1=pg_1.default.svc.", [Backend(name="A.b_c-1", host="pg_1.default.svc.")]),
        ("a=h?weight=0", [Backend(name="a", host="h", weight=0.0)]),
        (
            "a=h:5433?weight=2.5&flag=ALWAYS_PRIMARY",
            [Backend(name="a", host="h", port=5433, weight=2.5, flags=("ALWAYS_PRIMARY",))],
        ),
        (
            "a=h?flag=ALWAYS_PRIMARY|DISALLOW_TO_FAILOVER",
            [Backend(name="a", host="h", flags=("ALWAYS_PRIMARY", "DISALLOW_TO_FAILOVER"))],
        ),
        ("a=h:5432,b=h:5433", [Backend(name="a", host="h"), Backend(name="b", host="h", port=5433)]),
        ("n" * 62 + "=h", [Backend(name="n" * 62, host="h")]),
        ("a=" + "h" * 252, [Backend(name="a", host="h" * 252)]),
    ],
)
def test_a_list_gives_backends_in_its_order(value: str, expected: list[Backend]) -> None:
    assert parse_backends(value) == tuple(expected)


BAD_NAME = "the name must be letters, digits, '.', '_' or '-', at most 62"
BAD_HOST = "the host is neither a host name nor an address (IPv6 goes in brackets)"
NO_FLAG = "is not a flag; there are ALLOW_TO_FAILOVER, DISALLOW_TO_FAILOVER, ALWAYS_PRIMARY, joined by '|'"
EXCLUSIVE = "ALLOW_TO_FAILOVER and DISALLOW_TO_FAILOVER exclude each other"
BAD_IPV4 = "the host has digits and dots only, but is not an IPv4 address"
BAD_IPV6 = "what stands in brackets is not an IPv6 address"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ["names no backend"]),
        (" ,\n, ", ["names no backend"]),
        ("h", ["'h': is not of the form name=host[:port]"]),
        ("=h", ["'=h': is not of the form name=host[:port]"]),
        ("a=[::1]x", ["'a=[::1]x': is not of the form name=host[:port]"]),
        ("a=", [f"'a=': {BAD_HOST}"]),
        ("a=::1", [f"'a=::1': {BAD_HOST}", "'a=::1': the port ':1' is not a number from 1024 to 65535"]),
        ("a=[]", [f"'a=[]': {BAD_IPV6}"]),
        ("a=[10.0.0.1]", [f"'a=[10.0.0.1]': {BAD_IPV6}"]),
        ("a=-h", [f"'a=-h': {BAD_HOST}"]),
        ("a=h'x", [f'"a=h\'x": {BAD_HOST}']),
        ("a=/tmp", [f"'a=/tmp': {BAD_HOST}"]),
        ("a=10.100.2.300", [f"'a=10.100.2.300': {BAD_IPV4}"]),
        ("a=10.100.2:5432", [f"'a=10.100.2:5432': {BAD_IPV4}"]),
        ("a=4", [f"'a=4': {BAD_IPV4}"]),
        ("a=010.0.0.1", [f"'a=010.0.0.1': {BAD_IPV4}"]),
        ("a=10.100.2.5.", [f"'a=10.100.2.5.': {BAD_IPV4}"]),
        ("a=höst", [f"'a=höst': {BAD_HOST}"]),
        ("a=" + "h" * 253, [f"'a={'h' * 253}': {BAD_HOST}"]),
        ("n" * 63 + "=h", [f"'{'n' * 63}=h': {BAD_NAME}"]),
        ("-a=h", [f"'-a=h': {BAD_NAME}"]),
        ("ä=h", [f"'ä=h': {BAD_NAME}"]),
        ("a'b=h", [f'"a\'b=h": {BAD_NAME}']),
        ("a=h:", ["'a=h:': the port '' is not a number from 1024 to 65535"]),
        ("a=h:1023", ["'a=h:1023': the port '1023' is not a number from 1024 to 65535"]),
        ("a=h:65536", ["'a=h:65536': the port '65536' is not a number from 1024 to 65535"]),
        ("a=h:05432", ["'a=h:05432': the port '05432' is not a number from 1024 to 65535"]),
        ("a=h:٥٤٣٢", ["'a=h:٥٤٣٢': the port '٥٤٣٢' is not a number from 1024 to 65535"]),
        ("a=h:5432:5433", ["'a=h:5432:5433': the port '5432:5433' is not a number from 1024 to 65535"]),
        ("a=h?", ["'a=h?': '' is not an option; there are weight and flag"]),
        ("a=h?wait=1", ["'a=h?wait=1': 'wait' is not an option; there are weight and flag"]),
        ("a=h?weight=-1", ["'a=h?weight=-1': the weight '-1' is not a number of 0 or more"]),
        ("a=h?weight=", ["'a=h?weight=': the weight '' is not a number of 0 or more"]),
        ("a=h?weight=nan", ["'a=h?weight=nan': the weight 'nan' is not a number of 0 or more"]),
        ("a=h?weight=1e3", ["'a=h?weight=1e3': the weight '1e3' is not a number of 0 or more"]),
        ("a=h?weight=1&weight=2", ["'a=h?weight=1&weight=2': the option weight is given twice"]),
        (
            "a=h?flag=",
            [f"'a=h?flag=': '' {NO_FLAG}"],
        ),
        (
            "a=h?flag=always_primary",
            [f"'a=h?flag=always_primary': 'always_primary' {NO_FLAG}"],
        ),
        (
            "a=h?flag=ALLOW_TO_FAILOVER|DISALLOW_TO_FAILOVER",
            [f"'a=h?flag=ALLOW_TO_FAILOVER|DISALLOW_TO_FAILOVER': {EXCLUSIVE}"],
        ),
        ("a=h,a=i", ["the name 'a' is given twice"]),
        ("a=h,b=h:5432", ["the address 'h:5432' is given twice"]),
        ("a=h?flag=ALWAYS_PRIMARY,b=i?flag=ALWAYS_PRIMARY", ["more than one backend has the flag ALWAYS_PRIMARY"]),
    ],
)
def test_a_bad_list_is_refused_with_the_entry_and_the_reason(value: str, expected: list[str]) -> None:
    assert faults(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        "postgres://u:s3cr3t@h/db",
        "a=postgres://u:s3cr3t@h:5432/db",
        "a=h,b=u:s3cr3t@h",
        "postgresql://u:s3cr3t,s3cr3t@h/db",  # a comma begins an entry of its own
        "a=h?password=s3cr3t@x",
        "postgres://h/db?password=s3cr3t",
    ],
)
def test_what_looks_like_a_url_is_not_repeated(value: str) -> None:
    assert faults(value) == ["has '@' or '://' in it: a server is neither a URL nor has it a user"]


def test_all_faults_of_all_entries_are_told_at_once() -> None:
    assert len(faults("-=-:1?weight=x&flag=y, b=h:0, c")) == 7


def test_pgpool_takes_128_backends_and_no_more() -> None:
    entries = [f"n{number}=h{number}" for number in range(129)]
    assert len(parse_backends(",".join(entries[:128]))) == 128
    assert faults(" ".join(entries)) == ["names 129 backends; pgpool takes 128"]


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,61}", fullmatch=True)
hosts = (
    st.from_regex(r"[A-Za-z_]([A-Za-z0-9._-]{0,100}[A-Za-z0-9_])?|[0-9]+[a-z]", fullmatch=True)
    | st.ip_addresses(v=4).map(str)
    | st.ip_addresses(v=6).map(str)
)
entries = st.builds(
    Backend,
    name=names,
    host=hosts,
    port=st.integers(1024, 65535),
    weight=st.integers(0, 99_999_999).map(float),
    flags=st.sampled_from([("ALLOW_TO_FAILOVER",), ("DISALLOW_TO_FAILOVER",), ("ALLOW_TO_FAILOVER", "ALWAYS_PRIMARY")]),
)


def written(backend: Backend) -> str:
    host = f"[{backend.host}]" if ":" in backend.host else backend.host
    return f"{backend.name}={host}:{backend.port}?weight={backend.weight:.0f}&flag={'|'.join(backend.flags)}"


@given(entries, st.sampled_from([",", " ", "\n", ", \t"]), entries)
def test_what_is_written_is_read_back(first: Backend, separator: str, second: Backend) -> None:
    value = separator.join([written(first), written(second)])
    if first.name == second.name or (first.host, first.port) == (second.host, second.port):
        assert faults(value)
    elif "ALWAYS_PRIMARY" in first.flags and "ALWAYS_PRIMARY" in second.flags:
        assert faults(value) == ["more than one backend has the flag ALWAYS_PRIMARY"]
    else:
        assert parse_backends(value) == (first, second)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=60) | st.text("a=h:[]?&|.-,5 \n\0'", max_size=40))
def test_any_text_is_parsed_or_refused(value: str) -> None:
    try:
        backends = parse_backends(value)
    except BackendsError:
        return
    assert all("'" not in backend.host + backend.name for backend in backends)
    assert all(backend.port >= 1024 for backend in backends)


def test_the_default_port_is_postgresqls() -> None:
    assert DEFAULT_PORT == 5432
