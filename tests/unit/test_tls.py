"""Certificates that pgpool would meet with a mere warning."""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from entrypoint import tls
from entrypoint.errors import Problem, Problems
from support.certificates import Authority, KeyType
from unit.conftest import Site

BOTH_ROLES = (
    "/tls/ca.crt also decides which certificates of the PostgreSQL servers pgpool accepts; "
    "mount only tls.crt and tls.key if another authority signed theirs"
)
ISSUE = "mount a Secret of type kubernetes.io/tls there, or unset PGPOOL_TLS_DIR"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def check(files: dict[str, bytes], *, after: timedelta = timedelta()) -> tuple[list[tuple[str, str, str]], list[str]]:
    problems = Problems()
    warnings = tls.check(files, "/tls", datetime.now(UTC) + after, problems)
    found: list[Problem] = problems._found  # noqa: SLF001
    assert {each.setting for each in found} <= {"PGPOOL_TLS_DIR"}
    return [(each.origin, each.what, each.remedy) for each in found], warnings


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
@pytest.mark.parametrize("with_authority", [False, True])
def test_a_good_pair_has_no_problem(authority: Authority, key_type: KeyType, *, with_authority: bool) -> None:
    certificate = authority.issue(key_type=key_type)
    assert check(certificate.files(with_authority=with_authority)) == ([], [BOTH_ROLES] if with_authority else [])


def test_a_chain_counts_by_its_first_certificate(authority: Authority) -> None:
    certificate = authority.issue()
    files = certificate.files(with_authority=False)
    assert check({**files, "tls.crt": certificate.certificate + authority.certificate}) == ([], [])
    problems, _ = check({**files, "tls.crt": authority.certificate + certificate.certificate})
    assert problems == [
        ("/tls/tls.crt", "does not belong to tls.key", "store certificate and key of one issue together")
    ]


def test_files_that_are_missing_or_empty_are_told(authority: Authority) -> None:
    files = authority.issue().files(with_authority=False)
    assert check({}) == (
        [("/tls/tls.crt", "does not exist", ISSUE), ("/tls/tls.key", "does not exist", ISSUE)],
        [],
    )
    assert check({**files, "tls.key": b""}) == ([("/tls/tls.key", "is empty", ISSUE)], [])


@pytest.mark.parametrize(
    "junk", [b"junk 100%", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", b"\xff"]
)
def test_junk_is_told_for_each_file(authority: Authority, junk: bytes) -> None:
    files = authority.issue().files(with_authority=False)
    assert check({**files, "tls.crt": junk}) == (
        [("/tls/tls.crt", "holds no certificate in PEM", "put the certificate and its chain there")],
        [],
    )
    assert check({**files, "tls.key": junk}) == (
        [("/tls/tls.key", "holds no private key in PEM", "put the certificate's key there")],
        [],
    )
    assert check({**files, "ca.crt": junk}) == (
        [("/tls/ca.crt", "holds no certificate in PEM", "put the authority's certificate there, or remove it")],
        [],
    )


def of_version_6(certificate: bytes) -> bytes:
    der = x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)
    broken = der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x05", 1)
    assert broken != der
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(broken) + b"-----END CERTIFICATE-----\n"


def test_certificates_of_a_version_that_is_none_are_told(authority: Authority) -> None:
    files = authority.issue().files()
    for name in ("tls.crt", "ca.crt"):
        problems, _ = check({**files, name: of_version_6(files[name])})
        assert [(where, what) for where, what, _ in problems] == [(f"/tls/{name}", "holds no certificate in PEM")]
    problems, _ = check({**files, "tls.crt": files["tls.crt"] + of_version_6(authority.certificate)})
    assert [where for where, _, _ in problems] == ["/tls/tls.crt"]


def test_an_empty_authority_counts_as_none(authority: Authority) -> None:
    assert check({**authority.issue().files(), "ca.crt": b""}) == ([], [])


# openssl ecparam -name brainpoolP160r1 -genkey -noout >key; openssl req -x509 -key key -days 36500 -subj /CN=x
ODD_KEY = b"""-----BEGIN EC PRIVATE KEY-----
MFQCAQEEFEE9ssai+vDRup3nldPicGLs+CahoAsGCSskAwMCCAEBAaEsAyoABKJt
JLLMdu2mebyMFXcQl7XxkidJO3RCrbF2HDWVUbqv1wn7EN0IUsI=
-----END EC PRIVATE KEY-----
"""
ODD_CERTIFICATE = b"""-----BEGIN CERTIFICATE-----
MIIBPzCB/qADAgECAhQs4d5evI0eG22QOF1sjY+aQluJCTAKBggqhkjOPQQDAjAM
MQowCAYDVQQDDAF4MCAXDTI2MTEyMzE3MjUyOVoYDzIxMjYxMDMwMTcyNTI5WjAM
MQowCAYDVQQDDAF4MEIwFAYHKoZIzj0CAQYJKyQDAwIIAQEBAyoABKJtJLLMdu2m
ebyMFXcQl7XxkidJO3RCrbF2HDWVUbqv1wn7EN0IUsKjUzBRMB0GA1UdDgQWBBRm
lAkqKDXXWxF0K80S5mZnjeHESTAfBgNVHSMEGDAWgBRmlAkqKDXXWxF0K80S5mZn
jeHESTAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCAzAAMC0CFQDKrC3SqzEz
y2qvdYdqsHh1jNuTaQIUYi1oyPoNiT0PbXZHQTwFA8WI5Vs=
-----END CERTIFICATE-----
"""


def test_keys_of_a_kind_that_nobody_uses_are_told(authority: Authority) -> None:
    files = authority.issue().files(with_authority=False)
    problems, _ = check({**files, "tls.key": ODD_KEY})
    assert [(where, what) for where, what, _ in problems] == [("/tls/tls.key", "is of a kind that is not supported")]
    problems, _ = check({**files, "tls.crt": ODD_CERTIFICATE})
    assert [(where, what) for where, what, _ in problems] == [
        ("/tls/tls.crt", "has a key of a kind that is not supported")
    ]


def test_certificate_and_key_of_two_issues_are_told(authority: Authority) -> None:
    pair = authority.issue().with_key_of(authority.issue(key_type="rsa"))
    assert check(pair.files(with_authority=False)) == (
        [("/tls/tls.crt", "does not belong to tls.key", "store certificate and key of one issue together")],
        [],
    )


def test_a_key_with_a_passphrase_is_told(authority: Authority) -> None:
    files = authority.issue(passphrase=b"pass phrase 100%").files(with_authority=False)
    assert check(files) == (
        [("/tls/tls.key", "is protected by a passphrase", "store the key without one")],
        [],
    )


def test_a_certificate_out_of_its_time_is_told(authority: Authority) -> None:
    (expired,), _ = check(authority.issue_expired().files())
    assert expired[1].startswith("expired at 20")
    assert expired[2] == "issue a new certificate"
    (early,), _ = check(authority.issue_not_yet_valid().files())
    assert early[1].startswith("is not valid before 20")
    assert early[2] == "check clock and certificate"


def test_all_problems_are_told_at_once(authority: Authority) -> None:
    pair = authority.issue_expired().with_key_of(authority.issue())
    problems, _ = check({**pair.files(), "ca.crt": b"junk"})
    assert [origin for origin, _, _ in problems] == ["/tls/tls.crt", "/tls/ca.crt", "/tls/tls.crt"]


@pytest.mark.parametrize(
    ("left", "warned"),
    [
        (timedelta(days=90), False),
        (timedelta(days=14, minutes=1), False),
        (timedelta(days=14, minutes=-1), True),
        (timedelta(minutes=1), True),
    ],
)
def test_a_certificate_near_its_end_is_a_warning(authority: Authority, left: timedelta, *, warned: bool) -> None:
    certificate = authority.issue(valid_for=timedelta(days=100))
    expires = x509.load_pem_x509_certificate(certificate.certificate).not_valid_after_utc
    # issue() lets it begin an hour ago
    after = timedelta(days=100, hours=-1) - left
    warnings = [f"/tls/tls.crt expires at {expires:%Y-%m-%d %H:%M} UTC"] if warned else []
    assert check(certificate.files(with_authority=False), after=after) == ([], warnings)


STRONGER = "issue a certificate for a P-256 key, or an RSA key of at least 2048 bits, signed with SHA-256"


def test_a_key_too_weak_for_openssl_is_told(authority: Authority) -> None:
    weak = authority.issue(key_type="weak rsa").files(with_authority=False)
    refused = ("/tls/tls.crt", "OpenSSL refuses it together with tls.key: ee key too small", STRONGER)
    assert check(weak) == ([refused], [])
    beyond_its_end = timedelta(days=100)
    problems, _ = check(weak, after=beyond_its_end)
    assert [what.split(" at ")[0] for _, what, _ in problems] == [refused[1], "expired"]


def test_a_chain_too_weak_for_openssl_is_told(authority: Authority) -> None:
    files = authority.issue().files(with_authority=False)
    weak = Authority("Weak", key_type="weak rsa").certificate
    problems, _ = check({**files, "tls.crt": files["tls.crt"] + weak})
    assert problems == [("/tls/tls.crt", "OpenSSL refuses it together with tls.key: ca key too small", STRONGER)]


def test_an_authority_that_openssl_cannot_load_is_told(authority: Authority) -> None:
    broken_list = authority.certificate + b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"
    ((where, what, remedy),), _ = check({**authority.issue().files(), "ca.crt": broken_list})
    assert (where, remedy) == ("/tls/ca.crt", "put nothing but the authority's certificate there")
    assert what.startswith("OpenSSL refuses it: ")


def parameter_problems(site: Site, authority: Authority, **env: str) -> list[tuple[str, str, str, str]]:
    site.now = datetime.now(UTC)
    directory = authority.issue().write(site.root / "tls")
    found = site.problems(PGPOOL_TLS_DIR=str(directory), **env)
    return [(each.setting, each.origin, each.what, each.remedy) for each in found]


CURVE = "is no elliptic curve that pgpool can use"
CURVES = "give one such as prime256v1 or secp384r1"


@pytest.mark.parametrize(
    ("name", "value", "what", "remedy"),
    [
        ("SSL_CIPHERS", "nonsense", "'nonsense' selects no cipher", "give a list such as HIGH:!aNULL"),
        ("SSL_CIPHERS", "", "'' selects no cipher", "give a list such as HIGH:!aNULL"),
        ("SSL_ECDH_CURVE", "nonsense", f"'nonsense' {CURVE}", CURVES),
        ("SSL_ECDH_CURVE", "", f"'' {CURVE}", CURVES),
        ("SSL_ECDH_CURVE", "SHA256", f"'SHA256' {CURVE}", CURVES),
        ("SSL_ECDH_CURVE", "X25519", f"'X25519' {CURVE}", CURVES),
        ("SSL_ECDH_CURVE", "P-256", f"'P-256' {CURVE}", CURVES),
    ],
)
def test_a_parameter_that_openssl_refuses_is_told(
    site: Site, authority: Authority, name: str, value: str, what: str, remedy: str
) -> None:
    variable = f"PGPOOL_PARAMS_{name}"
    assert parameter_problems(site, authority, **{variable: value}) == [(variable, "environment", what, remedy)]


FILE_PARAMETERS = {"SSL_CRL_FILE": "a revocation list", "SSL_DH_PARAMS_FILE": "DH parameters"}


@pytest.mark.parametrize("name", FILE_PARAMETERS)
def test_a_file_for_openssl_that_is_no_such_is_told(site: Site, authority: Authority, name: str) -> None:
    variable, content = f"PGPOOL_PARAMS_{name}", FILE_PARAMETERS[name]
    remedy = f"mount a file with {content} in PEM, or remove the variable"
    junk = site.file("junk", "junk 100%")
    closed = site.file("closed", "")
    closed.chmod(0)
    for path, reason in (
        ("/nonexistent", "No such file or directory"),
        (str(closed), "Permission denied"),
        (str(site.root), "Is a directory"),
        (str(junk), "no "),
    ):
        ((setting, origin, told, advice),) = parameter_problems(site, authority, **{variable: path})
        assert (setting, origin, advice) == (variable, "environment", remedy)
        assert told.startswith(f"OpenSSL cannot load {path}: {reason}")
    assert parameter_problems(site, authority, **{variable: "crl.pem"}) == [
        (variable, "environment", "'crl.pem' is not an absolute path", "begin it with /")
    ]


# as in pgpool (FILE_DH2048)
DH_PARAMETERS = b"""-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA9kJXtwh/CBdyorrWqULzBej5UxE5T7bxbrlLOCDaAadWoxTpj0BV
89AHxstDqZSt90xkhkn4DIO9ZekX1KHTUPj1WV/cdlJPPT2N286Z4VeSWc39uK50
T8X8dryDxUcwYc58yWb/Ffm7/ZFexwGq01uejaClcjrUGvC/RgBYK+X0iP1YTknb
zSC0neSRBzZrM2w4DUUdD3yIsxx8Wy2O9vPJI8BD8KVbGI2Ou1WMuF040zT9fBdX
Q6MdGGzeMyEstSr/POGxKUAYEY18hKcKctaGxAMZyAcpesqVDNmWn6vQClCbAkbT
CD1mpF1Bn5x8vYlLIhkmuquiXsNV6TILOwIBAg==
-----END DH PARAMETERS-----
"""


def test_good_parameters_for_openssl_are_taken(site: Site, authority: Authority) -> None:
    site.now = datetime.now(UTC)
    env = {
        "PGPOOL_TLS_DIR": str(authority.issue().write(site.root / "tls")),
        "PGPOOL_PARAMS_SSL_CIPHERS": "HIGH:!aNULL:@SECLEVEL=1",
        "PGPOOL_PARAMS_SSL_ECDH_CURVE": "secp384r1",
        "PGPOOL_PARAMS_SSL_CRL_FILE": str(site.file("crl", authority.revoke())),
        "PGPOOL_PARAMS_SSL_DH_PARAMS_FILE": str(site.file("dh", DH_PARAMETERS)),
    }
    assert site.conf(**env)["ssl_crl_file"] == f"'{site.root}/crl'"
    nothing = {"PGPOOL_PARAMS_SSL_CRL_FILE": "", "PGPOOL_PARAMS_SSL_DH_PARAMS_FILE": ""}
    assert site.conf(**{**env, **nothing})["ssl_crl_file"] == "''"


def test_without_tls_its_parameters_do_not_matter(site: Site) -> None:
    assert "ssl_cert" not in site.conf(PGPOOL_PARAMS_SSL_CRL_FILE="/nonexistent", PGPOOL_PARAMS_SSL_CIPHERS="x")


def test_a_weak_key_stays_refused_whatever_the_ciphers_say(site: Site, authority: Authority) -> None:
    """pgpool loads the pair first, and sets the ciphers, with their security level, afterwards."""
    site.now = datetime.now(UTC)
    directory = authority.issue(key_type="weak rsa").write(site.root / "tls")
    problem = site.problem(PGPOOL_TLS_DIR=str(directory), PGPOOL_PARAMS_SSL_CIPHERS="ALL:@SECLEVEL=0")
    assert problem.origin == f"{directory}/tls.crt"


def test_a_pair_reaches_the_rendered_files_and_pgpool_conf(site: Site, authority: Authority) -> None:
    site.now = datetime.now(UTC)
    certificate = authority.issue()
    env = {"PGPOOL_TLS_DIR": str(certificate.write(site.root / "tls"))}
    files = site.tree(**env).files
    assert {name: files[name] for name in tls.FILES} == certificate.files()
    conf = site.conf(**env)
    assert {name: conf[name] for name in conf if name.startswith("ssl")} == {
        "ssl": "on",
        "ssl_cert": f"'{site.run_dir}/current/tls.crt'",
        "ssl_key": f"'{site.run_dir}/current/tls.key'",
        "ssl_ca_cert": f"'{site.run_dir}/current/ca.crt'",
    }


def test_without_an_authority_none_is_configured(site: Site, authority: Authority) -> None:
    site.now = datetime.now(UTC)
    certificate = authority.issue()
    directory = certificate.write(site.root / "tls", with_authority=False)
    (directory / "notes.txt").write_text("of no interest")
    env = {"PGPOOL_TLS_DIR": str(directory)}
    assert "ssl_ca_cert" not in site.conf(**env)
    assert sorted(site.tree(**env).files) == [
        "pcp.conf",
        "pgpool.conf",
        "pool_hba.conf",
        "pool_passwd",
        "tls.crt",
        "tls.key",
    ]


@pytest.mark.parametrize("content", [b"", None])
def test_client_certificates_need_an_authority(site: Site, authority: Authority, content: bytes | None) -> None:
    site.now = datetime.now(UTC)
    tls = authority.issue().write(site.root / "tls", with_authority=False)
    if content is not None:
        (tls / "ca.crt").write_bytes(content)
    path = str(site.file("hba", "hostssl all all all cert"))
    what = "the method cert can never succeed, because there is no ca.crt in PGPOOL_TLS_DIR"
    assert site.problem(PGPOOL_HBA_FILE=path, PGPOOL_TLS_DIR=str(tls)).what == what
    assert "PGPOOL_TLS_DIR is not set" in site.problem(PGPOOL_HBA_FILE=path).what
