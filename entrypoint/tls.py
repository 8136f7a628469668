"""The check of a certificate and its key, and of the parameters that go with them.

pgpool meets what it cannot use with a mere warning and then serves everybody in plaintext
(SSL_ServerSide_init, src/utils/pool_ssl.c), so none of it must ever reach pgpool. Our own look at the files has
the clearer words; the same calls to OpenSSL that pgpool will make have the last one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from entrypoint.errors import Problems
from entrypoint.nameless import nameless_file, path_of
from entrypoint.settings import Given

if TYPE_CHECKING:
    import ssl

    from cryptography import x509

REQUIRED = ("tls.crt", "tls.key")
FILES = (*REQUIRED, "ca.crt")
WARN_BEFORE = timedelta(days=14)
BOTH_ROLES = (
    "ca.crt also decides which certificates of the PostgreSQL servers pgpool accepts; "
    "mount only tls.crt and tls.key if another authority signed theirs"
)
"""ssl_ca_cert is for clients and servers alike (init_ssl_ctx, src/utils/pool_ssl.c); cert-manager always adds it."""

_NO_CURVES = ("X25519", "X448")
"""Names that newer versions of Python's ssl take for a curve, and EC_KEY_new_by_curve_name(), so pgpool, does not."""


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


def check_parameters(given: Mapping[str, Given], problems: Problems) -> None:
    """Add what OpenSSL will not take among the user's own parameters, by name, to `problems`."""
    for name, parameter in given.items():
        value = parameter.assignment.encoded[1:-1]
        match name:
            case "ssl_ciphers":
                fault = _ciphers_fault(value)
            case "ssl_ecdh_curve":
                fault = _curve_fault(value)
            case "ssl_crl_file" if value:
                fault = _file_fault(
                    value, "a revocation list", lambda context, path: context.load_verify_locations(path)
                )
            case "ssl_dh_params_file" if value:
                fault = _file_fault(value, "DH parameters", lambda context, path: context.load_dh_params(path))
            case _:
                continue
        if fault is not None:
            problems.add(parameter.variable, parameter.origin, *fault)


def _faults(files: Mapping[str, bytes], now: datetime, warnings: list[str]) -> Iterator[Fault]:
    # Imported here: a start without TLS need not load the X.509 code.
    from cryptography import x509  # noqa: PLC0415

    leaf = None
    try:
        leaf = x509.load_pem_x509_certificates(files["tls.crt"])[0]
    except (ValueError, x509.InvalidVersion):
        yield Fault("tls.crt", "holds no certificate in PEM", "put the certificate and its chain there")
    pair = list(_pair_faults(leaf, files["tls.key"]))
    if leaf is not None and not pair:
        pair += _refused_pair(files)
    yield from pair
    if files.get("ca.crt"):
        try:
            x509.load_pem_x509_certificates(files["ca.crt"])
        except (ValueError, x509.InvalidVersion):
            yield Fault("ca.crt", "holds no certificate in PEM", "put the authority's certificate there, or remove it")
        else:
            yield from _refused_authority(files["ca.crt"])
            warnings.append(BOTH_ROLES)
    if leaf is not None:
        yield from _out_of_time(leaf.not_valid_before_utc, leaf.not_valid_after_utc, now, warnings)


def _pair_faults(leaf: "x509.Certificate | None", key_file: bytes) -> Iterator[Fault]:
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415

    key = None
    try:
        key = load_pem_private_key(key_file, None)
    except TypeError:
        yield Fault("tls.key", "is protected by a passphrase", "store the key without one")
    except ValueError:
        yield Fault("tls.key", "holds no private key in PEM", "put the certificate's key there")
    except UnsupportedAlgorithm:
        yield Fault(
            "tls.key", "is of a kind that is not supported", "issue an RSA or P-256 key and a certificate for it"
        )
    try:
        if leaf is not None and key is not None and leaf.public_key() != key.public_key():
            yield Fault("tls.crt", "does not belong to tls.key", "store certificate and key of one issue together")
    except (UnsupportedAlgorithm, ValueError):
        yield Fault(
            "tls.crt", "has a key of a kind that is not supported", "issue a certificate for an RSA or P-256 key"
        )


def _refused_pair(files: Mapping[str, bytes]) -> Iterator[Fault]:
    # Before any ciphers are set, as in pgpool: their @SECLEVEL comes too late for the pair.
    context = _context()
    try:
        with (
            nameless_file("tls.crt", files["tls.crt"]) as certificate,
            nameless_file("tls.key", files["tls.key"]) as key,
        ):
            # An empty password, so that OpenSSL never asks a terminal for one.
            context.load_cert_chain(path_of(certificate), path_of(key), password="")
    except OSError as error:
        yield Fault(
            "tls.crt",
            f"OpenSSL refuses it together with tls.key: {_reason(error)}",
            "issue a certificate for a P-256 key, or an RSA key of at least 2048 bits, signed with SHA-256",
        )


def _refused_authority(content: bytes) -> Iterator[Fault]:
    try:
        with nameless_file("ca.crt", content) as file:
            _context().load_verify_locations(path_of(file))
    except OSError as error:
        yield Fault(
            "ca.crt", f"OpenSSL refuses it: {_reason(error)}", "put nothing but the authority's certificate there"
        )


def _ciphers_fault(value: str) -> tuple[str, str] | None:
    try:
        _context().set_ciphers(value)
    except OSError:
        return f"{value!r} selects no cipher", "give a list such as HIGH:!aNULL"
    return None


def _curve_fault(value: str) -> tuple[str, str] | None:
    try:
        if value not in _NO_CURVES:
            _context().set_ecdh_curve(value)
            return None
    except (OSError, ValueError):
        pass
    return f"{value!r} is no elliptic curve that pgpool can use", "give one such as prime256v1 or secp384r1"


def _file_fault(path: str, content: str, load: Callable[["ssl.SSLContext", str], None]) -> tuple[str, str] | None:
    if not path.startswith("/"):  # pgpool would look for it in a generation, or wherever it was started
        return f"{path!r} is not an absolute path", "begin it with /"
    try:
        load(_context(), path)
    except OSError as error:
        remedy = f"mount a file with {content} in PEM, or remove the variable"
        return f"OpenSSL cannot load {path}: {_reason(error)}", remedy
    return None


def _out_of_time(begins: datetime, expires: datetime, now: datetime, warnings: list[str]) -> Iterator[Fault]:
    if expires <= now:
        yield Fault("tls.crt", f"expired at {expires:%Y-%m-%d %H:%M} UTC", "issue a new certificate")
    elif begins > now:
        yield Fault("tls.crt", f"is not valid before {begins:%Y-%m-%d %H:%M} UTC", "check clock and certificate")
    elif expires - now < WARN_BEFORE:
        warnings.append(f"tls.crt expires at {expires:%Y-%m-%d %H:%M} UTC")


def _context() -> "ssl.SSLContext":
    import ssl  # noqa: PLC0415  # a start without TLS need not load OpenSSL

    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def _reason(error: OSError) -> str:
    """OpenSSL's own words, such as `ee key too small`."""
    reason = getattr(error, "reason", None)
    return reason.replace("_", " ").lower() if reason else error.strerror or str(error)
