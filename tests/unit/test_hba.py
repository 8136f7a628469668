"""A user's own pool_hba.conf."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entrypoint.hba import _fields, faults

METHODS = "scram-sha-256, cert, pam, reject"


def told(content: str, *, tls: bool = True, authority: bool = True) -> list[tuple[int, str]]:
    return list(faults(content, tls=tls, authority=authority))


@pytest.mark.parametrize(
    "line",
    [
        "local all all scram-sha-256",
        "local\tall\tall\tscram-sha-256",
        " \t local  all   all scram-sha-256 \t",
        "local all all scram-sha-256\r",
        "local all all reject",
        "local all all scram-sha-256# comment",
        "local all all scram-sha-256 # 'comment' \"",
        "host all all all scram-sha-256",
        "host all all samehost scram-sha-256",
        "host all all samenet scram-sha-256",
        "host all all 0.0.0.0/0 scram-sha-256",
        "host all all 10.100.2.5/24 scram-sha-256",
        "host all all ::/0 scram-sha-256",
        "host all all 10.100.2.0 255.255.255.0 scram-sha-256",
        "host all all fe80:: ffff:: scram-sha-256",
        "host all all db.example.com scram-sha-256",
        "host all all .example.com scram-sha-256",
        "hostssl all all all cert",
        "hostssl all all all scram-sha-256",
        "hostnossl all all all reject",
        "host all all all pam pamservice=pgpool",
        "host all all all pam pamservice=pgpool pam_use_hostname=1",
        'host all all all pam "pamservice=my service 100%"',
        "host postgres,n8n app_a,app_b all scram-sha-256",
        "host postgres, n8n app_a,,app_b all scram-sha-256",
        "host all, all all all scram-sha-256",
        'host "a b" "with ""quotes""" all scram-sha-256',
        'host "#1" "a,b" all scram-sha-256',
        'host "" all all scram-sha-256',
        '"local" all all "scram-sha-256"',
        "local sameuser +group scram-sha-256",
        "local " + "d" * 255 + " all scram-sha-256",
        "local all all scram-sha-256 #" + "x" * 8160,
    ],
)
def test_a_safe_line_has_no_fault(line: str) -> None:
    assert told(line) == []


TRUST = "the method trust lets everybody in as any role whose password pgpool holds; use scram-sha-256"
PASSWORD = "the method password is unsafe in pgpool, and has the password sent in clear text; use scram-sha-256"
MD5 = "the method md5 does not work with SCRAM on the servers; use scram-sha-256"
INCLUDES = "includes another file with '@', which pgpool would look for beside the rendered one"
TYPES = "is not a connection type; there are local, host, hostssl, hostnossl"
LONG_LINE = "is longer than 8189 bytes or holds a NUL character"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("local all all trust", TRUST),
        ("host all all all trust", TRUST),
        ("host all all 127.0.0.1/32 trust", TRUST),
        ("host all all 127.0.0.1 255.255.255.255 trust", TRUST),
        ("host all all localhost trust", TRUST),
        ('local all all "trust"', TRUST),
        ('local all all tr"us"t', TRUST),
        ("local all all trust# scram-sha-256", TRUST),
        ("local all all,reject trust", TRUST),
        ("local all, all all trust", TRUST),
        ("local all, trust all trust", TRUST),
        ("local,all all trust scram-sha-256", f"'local,all' {TYPES}"),
        ("local all all password", PASSWORD),
        ("host all all all md5", MD5),
        ("local all all TRUST", f"'TRUST' is not a method; there are {METHODS}"),
        ("local all all scram-sha-256,trust", f"'scram-sha-256,trust' is not a method; there are {METHODS}"),
        ("local all all peer", f"'peer' is not a method; there are {METHODS}"),
        ("local all all ldap", f"'ldap' is not a method; there are {METHODS}"),
        ('local all all ""', f"'' is not a method; there are {METHODS}"),
        ("Local all all scram-sha-256", f"'Local' {TYPES}"),
        ("hostgssenc all all all scram-sha-256", f"'hostgssenc' {TYPES}"),
        ("include other.conf", f"'include' {TYPES}"),
        ("\ufefflocal all all scram-sha-256", f"'\\ufefflocal' {TYPES}"),
        ("\x0blocal all all scram-sha-256", f"'\\x0blocal' {TYPES}"),
        ("local", "ends before the authentication method"),
        ("local all all", "ends before the authentication method"),
        ('local all all "scram-sha-256', None),
        ("local all all #scram-sha-256", "ends before the authentication method"),
        ("host", "ends before the address"),
        ("host all all", "ends before the address"),
        ("host all all all", "ends before the authentication method"),
        ("host all all 10.0.0.1 scram-sha-256", "the address '10.0.0.1' has no mask; write 10.0.0.1/32"),
        ("host all all 10.0.0.1", "the address '10.0.0.1' has no mask; write 10.0.0.1/32"),
        ("host all all ::1 scram-sha-256", "the address '::1' has no mask; write ::1/128"),
        ("host all all ::1 255.255.255.255 scram-sha-256", "the address '::1' has no mask; write ::1/128"),
        ("host all all 10.0.0.1/33 scram-sha-256", "'10.0.0.1/33' is not an address with a mask"),
        ("host all all 10.0.0/8 scram-sha-256", "'10.0.0/8' is not an address with a mask"),
        ("host all all 10.0.0.0/ scram-sha-256", "'10.0.0.0/' is not an address with a mask"),
        ("host all all 10.0.0.0/255.0.0.0 scram-sha-256", "'10.0.0.0/255.0.0.0' is not an address with a mask"),
        ("host all all db.example.com/24 scram-sha-256", "'db.example.com/24' is not an address with a mask"),
        ("host all all 10.1 scram-sha-256", "'10.1' is not an address"),
        ("host all all 10.0.0.256 scram-sha-256", "'10.0.0.256' is not an address"),
        ("host all all 10.0.0.1,10.0.0.2 scram-sha-256", "has several addresses; pgpool takes one a line"),
        ("local @databases all scram-sha-256", INCLUDES),
        ("local all @roles scram-sha-256", INCLUDES),
        ("local all a,@roles scram-sha-256", INCLUDES),
        ("local all all scram-sha-256 clientcert", "'clientcert' is not an option of the form name=value"),
        ("local all all scram-sha-256 clientcert=1", "'clientcert=1' is not an option of the method scram-sha-256"),
        ("host all all all pam service=pgpool", "'service=pgpool' is not an option of the method pam"),
        ("hostssl all all all cert map=users", "'map=users' is not an option of the method cert"),
        ("local " + "d" * 256 + " all scram-sha-256", "has a word of more than 255 bytes"),
        ("local " + "ü" * 128 + " all scram-sha-256", "has a word of more than 255 bytes"),
        ("local all all scram-sha-256 #" + "x" * 8161, LONG_LINE),
        ("local all all scram-sha-256 # " + "ü" * 4090, LONG_LINE),
        ("local all all\0 scram-sha-256", LONG_LINE),
    ],
)
def test_an_unsafe_or_unreadable_line_is_told(line: str, fault: str | None) -> None:
    # A quote that is never closed takes the rest of the line, as in pgpool.
    expected = [(1, fault)] if fault else []
    assert told(line) == expected


def test_hostssl_without_a_certificate_can_never_match() -> None:
    line = "hostssl all all all scram-sha-256"
    assert told(line, tls=False) == [(1, "hostssl can never match, because PGPOOL_TLS_DIR is not set")]
    assert told(line, tls=True) == []


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("local all all cert", "local"),
        ("host all all all cert", "host"),
        ("hostnossl all all 10.0.0.0 255.0.0.0 cert", "hostnossl"),
    ],
)
def test_a_client_certificate_needs_tls_in_the_line(line: str, kind: str) -> None:
    fault = f"the method cert needs a connection over TLS, which {kind} does not ask for; write hostssl"
    assert told(line) == [(1, fault)]


def test_a_client_certificate_needs_an_authority() -> None:
    line = "hostssl all all all cert"
    fault = "the method cert can never succeed, because there is no ca.crt in PGPOOL_TLS_DIR"
    assert told(line, authority=False) == [(1, fault)]
    assert told("hostssl all all all scram-sha-256", authority=False) == []


def test_every_bad_line_is_told_with_its_number() -> None:
    content = "# mine\n\nlocal all all trust\r\nhost all all all scram-sha-256\n\thost all all md5 md5 md5\nnope"
    assert told(content) == [
        (3, TRUST),
        (5, MD5),
        (6, f"'nope' {TYPES}"),
    ]


@pytest.mark.parametrize("content", ["", "\n", "\n\n", "# local all all scram-sha-256", " \t\r\n#", ",,,\n"])
def test_a_file_without_any_line_lets_nobody_in(content: str) -> None:
    assert told(content) == [(1, "has no line that lets anybody in")]


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("", []),
        ("a b", [["a"], ["b"]]),
        ("a,b c", [["a", "b"], ["c"]]),
        ("a , b", [["a"], ["b"]]),
        ("a, b", [["a", "b"]]),
        (",,a,,b,", [["a", "b"]]),
        ('"a b" c', [["a b"], ["c"]]),
        ('"a,b#c"', [["a,b#c"]]),
        ('"a""b"', [['a"b']]),
        ('"a""""b"', [['a""b']]),
        ('""', [[""]]),
        ('a"b c"d', [["ab cd"]]),
        ('"a', [["a"]]),
        ("a#b", [["a"]]),
        ("a,#b", [["a"]]),
        ("a\\ b", [["a\\"], ["b"]]),
    ],
)
def test_a_line_is_divided_as_pgpool_does_it(line: str, fields: list[list[str]]) -> None:
    assert _fields(line) == fields


words = st.sampled_from(
    ["local", "host", "hostssl", "all", "trust", "password", "md5", "scram-sha-256", "10.0.0.0/8", "::1", "255.0.0.0",
     ",", '"', '""', "#", "@x", "\t", "\r", "\\", "a=b"]
)  # fmt: skip


@given(st.lists(st.tuples(words, st.sampled_from(["", " "])), max_size=14))
def test_a_line_without_fault_names_no_unsafe_method(parts: list[tuple[str, str]]) -> None:
    """By plain splitting, where no comma, quote or comment is about: what pgpool would take for the method."""
    line = "".join(word + blank for word, blank in parts)
    if told(line) == [] and not set(line) & set(',"#'):
        fields = line.split()
        after = 3 if fields[0] == "local" else 4
        if fields[0] != "local" and fields[3] == "::1":
            after += 1
        assert fields[after] == "scram-sha-256"
