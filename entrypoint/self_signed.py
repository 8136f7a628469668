"""The certificate that another image makes up when TLS is on without one: it encrypts, and proves nothing."""

from collections.abc import Mapping
from datetime import datetime, timedelta

_VALID = timedelta(days=1825)
_EARLIER = timedelta(days=1)
"""So that a clock that is set back makes no certificate of tomorrow of it."""
_NAME = "self-signed by pgpool-entrypoint"


def is_self_signed(certificate: bytes) -> bool:
    """Whether a certificate in PEM is one of ours."""
    from cryptography import x509  # noqa: PLC0415

    try:
        subject = x509.load_pem_x509_certificate(certificate).subject
    except (ValueError, x509.InvalidVersion):
        return False
    return any(each.value == _NAME for each in subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME))


def self_signed(now: datetime) -> Mapping[str, bytes]:
    """A new pair in PEM, as tls.crt and tls.key; valid for five years, as there."""
    # Imported here: only whoever comes from that image needs it.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.hazmat.primitives import hashes, serialization  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, _NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + _VALID)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return {
        "tls.crt": certificate.public_bytes(serialization.Encoding.PEM),
        "tls.key": key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
