"""Clients are served over TLS with the certificate that is mounted, and never without it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from support.certificates import Authority, Certificate
from support.pgpool_process import Pgpool
from support.pod import APP_PASSWORD, APP_ROLE, NewPod, Pod

GARBAGE = b"-----BEGIN CERTIFICATE-----\nnot base64 %\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def serving(authority: Authority, new_pod: NewPod) -> Iterator[tuple[Pod, Pgpool]]:
    """A pgpool whose certificate lives for 13 days and whose key the group may read, as in a Secret volume."""
    pod = new_pod()
    directory = authority.issue(valid_for=timedelta(days=13, hours=5)).write(pod.directory / "tls")
    (directory / "tls.key").chmod(0o640)
    pod.environment["PGPOOL_TLS_DIR"] = str(directory)
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD, sslmode="require")
        yield pod, pgpool


@pytest.fixture
def root_certificate(authority: Authority, tmp_path: Path) -> Path:
    file = tmp_path / "ca.crt"
    file.write_bytes(authority.certificate)
    return file


def test_a_client_verifies_name_and_authority(serving: tuple[Pod, Pgpool], root_certificate: Path) -> None:
    _, pgpool = serving
    parameters = {"host": "localhost", "sslmode": "verify-full", "sslrootcert": str(root_certificate)}
    with pgpool.connect(APP_ROLE, APP_PASSWORD, require_auth="scram-sha-256", **parameters) as connection:
        assert connection.pgconn.ssl_in_use
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_client_that_trusts_another_authority_stays_away(serving: tuple[Pod, Pgpool], tmp_path: Path) -> None:
    _, pgpool = serving
    stranger = tmp_path / "other.crt"
    stranger.write_bytes(Authority("A stranger").certificate)
    with pytest.raises(psycopg.OperationalError, match="certificate verify failed"):
        pgpool.connect(APP_ROLE, APP_PASSWORD, sslmode="verify-full", sslrootcert=str(stranger))


def test_a_client_without_tls_is_refused(serving: tuple[Pod, Pgpool]) -> None:
    _, pgpool = serving
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        pgpool.connect(APP_ROLE, APP_PASSWORD, sslmode="disable")


def test_a_wrong_password_is_refused_over_tls_too(serving: tuple[Pod, Pgpool]) -> None:
    _, pgpool = serving
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        pgpool.connect(APP_ROLE, "a wrong % password", sslmode="require")


def test_the_socket_in_the_run_directory_needs_no_tls(serving: tuple[Pod, Pgpool]) -> None:
    pod, pgpool = serving
    assert pgpool.can_log_in(APP_ROLE, APP_PASSWORD, host=str(pod.run_dir))


def test_less_than_14_days_are_worth_a_warning(serving: tuple[Pod, Pgpool]) -> None:
    pod, pgpool = serving
    assert f"warning: {pod.directory}/tls/tls.crt expires at 20" in pgpool.log


def test_an_authority_that_the_servers_are_judged_by_as_well_is_worth_a_warning(serving: tuple[Pod, Pgpool]) -> None:
    pod, pgpool = serving
    assert (
        f"warning: {pod.directory}/tls/ca.crt also decides which certificates of the PostgreSQL servers pgpool "
        "accepts; mount only tls.crt and tls.key if another authority signed theirs"
    ) in pgpool.log


def test_the_key_is_copied_so_that_its_owner_alone_can_read_it(serving: tuple[Pod, Pgpool]) -> None:
    pod, pgpool = serving
    modes = {file.name: file.stat().st_mode & 0o777 for file in pod.generation.iterdir()}
    assert modes["tls.key"] == 0o600
    assert set(modes.values()) == {0o600}
    assert pod.generation.stat().st_mode & 0o777 == 0o700
    assert "has group or world access" not in pgpool.log


def test_own_rules_may_let_clients_in_without_tls(authority: Authority, pod: Pod) -> None:
    pod.environment["PGPOOL_TLS_DIR"] = str(authority.issue(valid_for=timedelta(days=15)).write(pod.directory / "tls"))
    rules = "local all all scram-sha-256\nhost all all 127.0.0.0/8 scram-sha-256\n"
    pod.environment["PGPOOL_HBA_FILE"] = str(pod.write("hba", rules))
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD, sslmode="disable")
        assert pgpool.can_log_in(APP_ROLE, APP_PASSWORD, sslmode="require")
        assert "expires" not in pgpool.log


def test_an_rsa_certificate_serves_as_well(pod: Pod, root_certificate: Path, authority: Authority) -> None:
    certificate = authority.issue(key_type="rsa")
    pod.environment["PGPOOL_TLS_DIR"] = str(certificate.write(pod.directory / "tls", with_authority=False))
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD, sslmode="verify-full", sslrootcert=str(root_certificate))


def test_what_openssl_accepts_pgpool_accepts(pod: Pod, authority: Authority) -> None:
    pod.environment |= {
        "PGPOOL_TLS_DIR": str(authority.issue().write(pod.directory / "tls")),
        "PGPOOL_PARAMS_SSL_CIPHERS": "ECDHE+AESGCM",
        "PGPOOL_PARAMS_SSL_ECDH_CURVE": "secp384r1",
        "PGPOOL_PARAMS_SSL_CRL_FILE": str(pod.write("crl", authority.revoke())),
    }
    with pod.pgpool() as pgpool:
        pgpool.wait_until_login(APP_ROLE, APP_PASSWORD, sslmode="require")
        assert "could not load" not in pgpool.log


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("SSL_CIPHERS", "nonsense", "'nonsense' selects no cipher"),
        ("SSL_ECDH_CURVE", "nonsense", "'nonsense' is no elliptic curve that pgpool can use"),
        ("SSL_ECDH_CURVE", "X25519", "'X25519' is no elliptic curve that pgpool can use"),
        ("SSL_CRL_FILE", "/nonexistent", "OpenSSL cannot load /nonexistent: No such file or directory"),
        ("SSL_DH_PARAMS_FILE", "/etc/hostname", "OpenSSL cannot load /etc/hostname: no start line"),
    ],
)
def test_a_parameter_without_which_pgpool_would_do_is_refused(
    pod: Pod, authority: Authority, name: str, value: str, what: str
) -> None:
    pod.environment[f"PGPOOL_PARAMS_{name}"] = value
    directory = authority.issue().write(pod.directory / "tls")
    assert_refused(pod, directory, f"PGPOOL_PARAMS_{name} (environment)\n      {what}")


def certificate_of(kind: str, authority: Authority) -> Certificate:
    match kind:
        case "expired":
            return authority.issue_expired()
        case "not yet valid":
            return authority.issue_not_yet_valid()
        case "mismatched":
            return authority.issue().with_key_of(authority.issue())
        case "weak":
            return authority.issue(key_type="weak rsa")
        case "encrypted":
            return authority.issue(passphrase=b"a % passphrase")
        case _:
            return authority.issue()


@pytest.mark.parametrize(
    ("kind", "file", "what"),
    [
        ("expired", "tls.crt", "expired at"),
        ("not yet valid", "tls.crt", "is not valid before"),
        ("mismatched", "tls.crt", "does not belong to tls.key"),
        ("encrypted", "tls.key", "is protected by a passphrase"),
        ("weak", "tls.crt", "OpenSSL refuses it together with tls.key: ee key too small"),
    ],
)
def test_a_pair_that_cannot_serve_is_refused(pod: Pod, authority: Authority, kind: str, file: str, what: str) -> None:
    directory = certificate_of(kind, authority).write(pod.directory / "tls")
    assert_refused(pod, directory, f"PGPOOL_TLS_DIR ({directory}/{file})\n      {what}")


@pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("content", [GARBAGE, b"\xff\x00 %", b"\n"], ids=["garbage", "binary", "blank"])
def test_a_file_that_is_no_pem_is_refused(pod: Pod, authority: Authority, file: str, content: bytes) -> None:
    directory = authority.issue().write(pod.directory / "tls")
    (directory / file).write_bytes(content)
    assert_refused(pod, directory, f"PGPOOL_TLS_DIR ({directory}/{file})\n      holds no ")


@pytest.mark.parametrize("file", ["tls.crt", "tls.key"])
def test_a_missing_file_is_refused(pod: Pod, authority: Authority, file: str) -> None:
    directory = authority.issue().write(pod.directory / "tls")
    (directory / file).unlink()
    assert_refused(pod, directory, f"PGPOOL_TLS_DIR ({directory}/{file})\n      does not exist")


@pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
def test_a_file_that_cannot_be_read_is_refused(pod: Pod, authority: Authority, file: str) -> None:
    directory = authority.issue().write(pod.directory / "tls")
    (directory / file).chmod(0)
    assert_refused(pod, directory, f"{directory}/{file} is not readable for user id")


def test_a_missing_directory_is_refused(pod: Pod) -> None:
    assert_refused(pod, pod.directory / "nowhere", f"{pod.directory}/nowhere does not exist")


def assert_refused(pod: Pod, directory: Path, problem: str) -> None:
    result = pod.run("run", PGPOOL_TLS_DIR=str(directory))
    assert result.returncode == 78, result.stderr
    assert problem in result.stderr
    assert "1 problem in the configuration; nothing was started or changed" in result.stderr
    assert not list(pod.run_dir.iterdir())
