"""Certificates for tests: authorities, and pairs that they sign."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LOCAL = ("localhost", "127.0.0.1", "::1")


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Authority:
    """One that signs."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    days: float = 30  # that it is valid from now

    def __post_init__(self) -> None:
        self._name = _named(f"CA {x509.random_serial_number()}")
        self._certificate = self._sign(self._name, self.key, is_ca=True, days=self.days)

    @property
    def certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(Encoding.PEM)

    def pair(
        self, *names: str, days: float = 30, days_old: float = 1, usage: Sequence[x509.ObjectIdentifier] = ()
    ) -> tuple[bytes, bytes]:
        """A certificate for these names, valid from `days_old` ago for so many days from now, and its key, as PEM.

        Without a `usage` it is for any.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signed = self._sign(_named("test"), key, names=names, days=days, days_old=days_old, usage=usage)
        return signed.public_bytes(Encoding.PEM), key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    def signed(self) -> tuple["Authority", bytes]:
        """Another authority, signed by this one, and its certificate as PEM."""
        other = Authority()
        return other, self._sign(other._name, other.key, is_ca=True).public_bytes(Encoding.PEM)

    def write(
        self,
        folder: Path,
        *names: str,
        days: float = 30,
        days_old: float = 1,
        usage: Sequence[x509.ObjectIdentifier] = (),
    ) -> "Files":
        """A new pair, and who signed it, as files in `folder`."""
        files = Files(folder / "ca.pem", folder / "certificate.pem", folder / "key.pem")
        folder.mkdir(exist_ok=True)
        certificate, key = self.pair(*names, days=days, days_old=days_old, usage=usage)
        for path, pem in ((files.ca, self.certificate_pem), (files.certificate, certificate), (files.key, key)):
            path.write_bytes(pem)
            path.chmod(0o600)
        return files

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        names: tuple[str, ...] = (),
        days: float = 30,
        days_old: float = 1,
        is_ca: bool = False,
        usage: Sequence[x509.ObjectIdentifier] = (),
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=days_old))
            .not_valid_after(now + timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        if usage:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        return builder.sign(self.key, hashes.SHA256())


@dataclass(frozen=True)
class Files:
    """A pair in PEM, and who signed it."""

    ca: Path
    certificate: Path
    key: Path
