"""Throw-away certificates, as good or as bad as a test needs them."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

KeyType = Literal["ec", "rsa", "weak rsa"]
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Certificate:
    """A leaf certificate, its key and its issuer, all PEM."""

    certificate: bytes
    key: bytes
    authority: bytes

    def files(self, *, with_authority: bool = True) -> dict[str, bytes]:
        """The keys of a `kubernetes.io/tls` Secret, ready for `SecretVolume.write`."""
        files = {"tls.crt": self.certificate, "tls.key": self.key}
        return files | {"ca.crt": self.authority} if with_authority else files

    def write(self, directory: Path, *, with_authority: bool = True) -> Path:
        """Put the files into a plain directory, the key readable by its owner alone."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, content in self.files(with_authority=with_authority).items():
            (directory / name).write_bytes(content)
        (directory / "tls.key").chmod(0o600)
        return directory

    def with_key_of(self, other: "Certificate") -> "Certificate":
        """This certificate beside a key that is not its own."""
        return replace(self, key=other.key)


class Authority:
    """A certificate authority that lives as long as the object does."""

    def __init__(self, name: str = "Throw-away test authority", *, key_type: KeyType = "ec") -> None:
        self._key = _new_key(key_type)
        self._name = _distinguished(name)
        now = datetime.now(UTC)
        usage = x509.KeyUsage(
            key_cert_sign=True,
            crl_sign=True,
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=3650))
            .not_valid_after(now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def certificate(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def issue(
        self,
        common_name: str = "localhost",
        *,
        names: Sequence[str] = ("localhost", "127.0.0.1"),
        valid_from: timedelta = timedelta(hours=-1),
        valid_for: timedelta = timedelta(days=90),
        key_type: KeyType = "ec",
        passphrase: bytes | None = None,
    ) -> Certificate:
        """A server certificate; `names` are host names and addresses, `valid_from` counts from now."""
        key = _new_key(key_type)
        start = datetime.now(UTC) + valid_from
        builder = (
            x509.CertificateBuilder()
            .subject_name(_distinguished(common_name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + valid_for)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        encryption: KeySerializationEncryption = BestAvailableEncryption(passphrase) if passphrase else NoEncryption()
        return Certificate(
            certificate=builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM),
            key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
            authority=self.certificate,
        )

    def revoke(self, *serial_numbers: int) -> bytes:
        """A revocation list, PEM."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - timedelta(hours=1))
            .next_update(now + timedelta(days=30))
        )
        for number in serial_numbers:
            revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
            builder = builder.add_revoked_certificate(revoked)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)

    def issue_expired(self) -> Certificate:
        return self.issue(valid_from=timedelta(days=-30), valid_for=timedelta(days=29))

    def issue_not_yet_valid(self) -> Certificate:
        return self.issue(valid_from=timedelta(days=1))


def _new_key(key_type: KeyType) -> PrivateKey:
    if key_type != "ec":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048 if key_type == "rsa" else 1024)
    return ec.generate_private_key(ec.SECP256R1())


def _distinguished(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
