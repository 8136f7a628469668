import ssl
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from support.certificates import Authority, Certificate, KeyType


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


def server_context(certificate: Certificate, directory: Path) -> ssl.SSLContext:
    certificate.write(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key", password=lambda: "")
    return context


def handshake(server: ssl.SSLContext, authority: Authority, name: str) -> None:
    """A client that trusts `authority` and expects `name`, in memory."""
    client = ssl.create_default_context(cadata=authority.certificate.decode())
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version() == "TLSv1.3"


@pytest.mark.parametrize("key_type", ["ec", "rsa"])
@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_a_good_certificate(authority: Authority, tmp_path: Path, key_type: KeyType, name: str) -> None:
    handshake(server_context(authority.issue(key_type=key_type), tmp_path), authority, name)


def test_another_name(authority: Authority, tmp_path: Path) -> None:
    server = server_context(authority.issue(names=["pgpool.n8n.svc"]), tmp_path)
    handshake(server, authority, "pgpool.n8n.svc")
    with pytest.raises(ssl.SSLCertVerificationError, match="localhost"):
        handshake(server, authority, "localhost")


def test_another_authority(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="verify failed"):
        handshake(server_context(Authority("Another").issue(), tmp_path), authority, "localhost")


def test_dates(authority: Authority, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="has expired"):
        handshake(server_context(authority.issue_expired(), tmp_path), authority, "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="not yet valid"):
        handshake(server_context(authority.issue_not_yet_valid(), tmp_path), authority, "localhost")
    good = x509.load_pem_x509_certificate(authority.issue().certificate)
    assert good.not_valid_before_utc < datetime.now(UTC) < good.not_valid_after_utc


def test_a_key_of_another_certificate(authority: Authority, tmp_path: Path) -> None:
    mismatched = authority.issue().with_key_of(authority.issue())
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        server_context(mismatched, tmp_path)


def test_an_encrypted_key(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.issue(passphrase=b"open sesame")
    assert b"ENCRYPTED" in certificate.key
    load_pem_private_key(certificate.key, b"open sesame")
    with pytest.raises(ssl.SSLError):
        server_context(certificate, tmp_path)


def test_files(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.issue()
    certificate.write(tmp_path / "with")
    assert {path.name for path in (tmp_path / "with").iterdir()} == {"tls.crt", "tls.key", "ca.crt"}
    assert (tmp_path / "with/tls.key").stat().st_mode & 0o777 == 0o600
    certificate.write(tmp_path / "without", with_authority=False)
    assert {path.name for path in (tmp_path / "without").iterdir()} == {"tls.crt", "tls.key"}


def test_openssl_agrees(authority: Authority, tmp_path: Path) -> None:
    authority.issue().write(tmp_path)
    command: list[str | Path] = [
        "openssl",
        "verify",
        "-x509_strict",
        "-CAfile",
        tmp_path / "ca.crt",
        tmp_path / "tls.crt",
    ]
    subprocess.run(command, check=True, capture_output=True)
