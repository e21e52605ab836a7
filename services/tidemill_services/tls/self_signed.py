"""The pair that `--tls-self-signed` makes: signed by itself, kept in the data directory, made again in time."""

import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tidemill_services.local_user import write_private
from tidemill_services.tls.pair import CertificateError, Pair, PairFiles, read_pair

LIFETIME = timedelta(days=365)
RENEWED_BEFORE_END = timedelta(days=30)
_CLOCK_DIFFERENCE = timedelta(hours=1)  # of a client that is behind


def self_signed_files(data_dir: Path) -> PairFiles:
    """Where the pair lies."""
    return PairFiles(data_dir / "tls" / "certificate.pem", data_dir / "tls" / "key.pem", "TIDEMILL_TLS")


def names_of_server(hosts: Iterable[str]) -> frozenset[str]:
    """What the pair is for: this machine, by every name that is known here, and where it listens."""
    addresses = (ip_address(host) for host in hosts if host != "localhost")
    named = (str(address) for address in addresses if not address.is_unspecified)
    own_name = socket.gethostname()
    return frozenset({"localhost", "127.0.0.1", "::1", *named, *({own_name} if own_name.isascii() else ())} - {""})


def self_signed_pair(data_dir: Path, names: frozenset[str], now: datetime | None = None) -> Pair:
    """The pair in the data directory; a new one where there is none, it nears its end, or it is for other names.

    Raises OSError when it cannot be written.
    """
    now = now or datetime.now(UTC)
    files = self_signed_files(data_dir)
    try:
        kept = read_pair(files)
    except CertificateError:
        kept = None
    if kept is None or kept.names != names or not kept.not_before <= now < kept.not_after - RENEWED_BEFORE_END:
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(files.key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
        write_private(files.certificate, _certificate(key, names, now).public_bytes(Encoding.PEM).decode())
    return read_pair(files)


def _certificate(key: ec.EllipticCurvePrivateKey, names: frozenset[str], now: datetime) -> x509.Certificate:
    public_key = key.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Tidemill")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_DIFFERENCE)
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([_general_name(each) for each in sorted(names)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public_key), critical=False)
        .sign(key, hashes.SHA256())
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)
