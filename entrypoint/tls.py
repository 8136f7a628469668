"""The check of a certificate and its key.

pgpool meets a pair it cannot use with a mere warning and then serves everybody in plaintext
(SSL_ServerSide_init, src/utils/pool_ssl.c), so a bad pair must never reach it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from entrypoint.errors import Problems

REQUIRED = ("tls.crt", "tls.key")
FILES = (*REQUIRED, "ca.crt")
WARN_BEFORE = timedelta(days=14)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one file of the pair."""

    file: str
    what: str
    remedy: str


def check(files: Mapping[str, bytes], directory: str, now: datetime, problems: Problems) -> list[str]:
    """Add what makes the pair unusable to `problems`; return warnings.

    Args:
        files: content by name: tls.crt, tls.key and maybe ca.crt, in PEM.
        directory: where they come from, for messages.
        now: the time to judge validity by, with a time zone.
        problems: collects what is wrong.
    """
    missing = [name for name in REQUIRED if not files.get(name)]
    for name in missing:
        problems.add(
            "PGPOOL_TLS_DIR",
            f"{directory}/{name}",
            "is empty" if name in files else "does not exist",
            "mount a Secret of type kubernetes.io/tls there, or unset PGPOOL_TLS_DIR",
        )
    if missing:
        return []
    warnings: list[str] = []
    for fault in _faults(files, now, warnings):
        problems.add("PGPOOL_TLS_DIR", f"{directory}/{fault.file}", fault.what, fault.remedy)
    return [f"{directory}/{warning}" for warning in warnings]


def _faults(files: Mapping[str, bytes], now: datetime, warnings: list[str]) -> Iterator[Fault]:
    # Imported here: a start without TLS need not load the X.509 code.
    from cryptography import x509  # noqa: PLC0415
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    leaf = key = None
    try:
        leaf = x509.load_pem_x509_certificates(files["tls.crt"])[0]
    except ValueError:
        yield Fault("tls.crt", "holds no certificate in PEM", "put the certificate and its chain there")
    try:
        key = load_pem_private_key(files["tls.key"], None)
    except TypeError:
        yield Fault("tls.key", "is protected by a passphrase", "store the key without one")
    except ValueError:
        yield Fault("tls.key", "holds no private key in PEM", "put the certificate's key there")
    except UnsupportedAlgorithm:
        yield Fault(
            "tls.key", "is of a kind that is not supported", "issue an RSA or P-256 key and a certificate for it"
        )
    if files.get("ca.crt"):
        try:
            x509.load_pem_x509_certificates(files["ca.crt"])
        except ValueError:
            yield Fault("ca.crt", "holds no certificate in PEM", "put the authority's certificate there, or remove it")
    if leaf is None:
        return
    try:
        if key is not None and leaf.public_key() != key.public_key():
            yield Fault("tls.crt", "does not belong to tls.key", "store certificate and key of one issue together")
    except (UnsupportedAlgorithm, ValueError):
        yield Fault(
            "tls.crt", "has a key of a kind that is not supported", "issue a certificate for an RSA or P-256 key"
        )
    yield from _out_of_time(leaf.not_valid_before_utc, leaf.not_valid_after_utc, now, warnings)


def _out_of_time(begins: datetime, expires: datetime, now: datetime, warnings: list[str]) -> Iterator[Fault]:
    if expires <= now:
        yield Fault("tls.crt", f"expired at {expires:%Y-%m-%d %H:%M} UTC", "issue a new certificate")
    elif begins > now:
        yield Fault("tls.crt", f"is not valid before {begins:%Y-%m-%d %H:%M} UTC", "check clock and certificate")
    elif expires - now < WARN_BEFORE:
        warnings.append(f"tls.crt expires at {expires:%Y-%m-%d %H:%M} UTC")
