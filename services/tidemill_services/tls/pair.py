"""A certificate and its key, as PEM files, and whether they can be used."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.settings import Settings


class CertificateError(CannotStartError):
    """A certificate or its key cannot be used; the sentence names the variable and the file."""


@dataclass(frozen=True, slots=True)
class PairFiles:
    """Where a certificate and its key lie."""

    certificate: Path  # the server's own first, then what leads to its CA
    key: Path
    setting: str  # what the variables that name them begin with

    def certificate_says(self, what: str) -> str:
        """A sentence about the certificate."""
        return f"{self.setting}_CERTIFICATE is {self.certificate}, {what}"

    def key_says(self, what: str) -> str:
        """A sentence about the key."""
        return f"{self.setting}_KEY is {self.key}, {what}"


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key that belong together."""

    files: PairFiles
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    names: frozenset[str]  # host names and addresses that it is for
    not_before: datetime
    not_after: datetime


def server_files(settings: Settings) -> PairFiles | None:
    """The pair that the settings name for the ports."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return None
    return PairFiles(settings.tls_certificate, settings.tls_key, "TIDEMILL_TLS")


def replica_files(settings: Settings) -> PairFiles | None:
    """The pair that the settings name for the way to replicas."""
    if settings.replica_tls_certificate is None or settings.replica_tls_key is None:
        return None
    return PairFiles(settings.replica_tls_certificate, settings.replica_tls_key, "TIDEMILL_REPLICA_TLS")


def read_pair(files: PairFiles) -> Pair:
    """Read a pair. Raises CertificateError when it cannot be read, or the two do not belong together."""
    certificate_pem = _read(files.certificate, files.certificate_says)
    key_pem = _read(files.key, files.key_says)
    try:
        certificate = x509.load_pem_x509_certificates(certificate_pem)[0]
        names, public_key = _names(certificate), _public_bytes(certificate)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        raise CertificateError(files.certificate_says("which holds no certificate in PEM.")) from None
    if _public_bytes(_load_key(key_pem, files)) != public_key:
        raise CertificateError(files.key_says(f"which is not the key of {files.certificate}."))
    return Pair(
        files, certificate_pem, key_pem, names, certificate.not_valid_before_utc, certificate.not_valid_after_utc
    )


def read_valid_pair(files: PairFiles) -> Pair:
    """Read a pair that is valid now. Raises CertificateError."""
    pair = read_pair(files)
    now = datetime.now(UTC)
    if now > pair.not_after:
        raise CertificateError(
            files.certificate_says(f"which expired at {pair.not_after:%Y-%m-%d %H:%M} UTC: renew it.")
        )
    if now < pair.not_before:
        raise CertificateError(
            files.certificate_says(
                f"which is not valid before {pair.not_before:%Y-%m-%d %H:%M} UTC: look at the clock."
            )
        )
    return pair


def _read(path: Path, says: Callable[[str], str]) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(says(f"which cannot be read: {error.strerror}.")) from error


def _load_key(key_pem: bytes, files: PairFiles) -> PrivateKeyTypes:
    try:
        return load_pem_private_key(key_pem, password=None)
    except TypeError:
        raise CertificateError(files.key_says("which is encrypted: give a key without a password.")) from None
    except (ValueError, UnsupportedAlgorithm):
        raise CertificateError(files.key_says("which holds no private key in PEM.")) from None


def _public_bytes(owner: x509.Certificate | PrivateKeyTypes) -> bytes:
    return owner.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return frozenset()  # the common name is not looked at by anyone any more
    addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
    return frozenset((*found.get_values_for_type(x509.DNSName), *addresses))
