"""What this process and the replicas show each other, where they speak TLS."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from tidemill_services.settings import Settings
from tidemill_services.tls.pair import CertificateError, Pair, PairFiles, read_valid_pair, replica_files

REPLICA_NAME = "tidemill-replica"
"""What the certificate of every replica is for, wherever it runs."""

_BOTH_SIDES = frozenset({ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH})


@dataclass(frozen=True, slots=True)
class ReplicaTls:
    """Files in PEM. They are read anew for each connection, so that renewed ones are taken up."""

    ca: Path  # signs the certificates of both sides
    files: PairFiles

    def read_credentials(self) -> grpc.ChannelCredentials:
        """For one connection to a replica. Raises OSError; blocks."""
        return grpc.ssl_channel_credentials(
            self.ca.read_bytes(), self.files.key.read_bytes(), self.files.certificate.read_bytes()
        )


def open_replica_tls(settings: Settings) -> ReplicaTls | None:
    """Check the files that the settings name; None for plaintext. Blocks; raises CertificateError."""
    files = replica_files(settings)
    if files is None or settings.replica_tls_ca is None:
        return None
    authorities = _read_authorities(settings.replica_tls_ca)
    if objection := _objection(read_valid_pair(files), authorities):
        raise CertificateError(files.certificate_says(objection))
    return ReplicaTls(settings.replica_tls_ca, files)


def _read_authorities(path: Path) -> list[x509.Certificate]:
    """Those that are valid now. Raises CertificateError when there is none."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise _ca_error(path, f"which cannot be read: {error.strerror}.") from error
    except ValueError:
        raise _ca_error(path, "which holds no certificate in PEM.") from None
    now = datetime.now(UTC)
    valid = [each for each in found if each.not_valid_before_utc <= now <= each.not_valid_after_utc]
    if not valid:
        raise _ca_error(path, "which holds no certificate that is valid today: renew it.")
    return valid


def _ca_error(path: Path, what: str) -> CertificateError:
    return CertificateError(f"TIDEMILL_REPLICA_TLS_CA is {path}, {what}")


def _objection(pair: Pair, authorities: Sequence[x509.Certificate]) -> str:
    """Why the other side would not take the certificate, which it would say only in a handshake; empty if it would."""
    own, *chain = x509.load_pem_x509_certificates(pair.certificate_pem)
    if REPLICA_NAME not in pair.names:
        return f"which is not for the name {REPLICA_NAME}, by which replicas are known: make one that is."
    if not _leads_to(own, chain, authorities):
        return "which no CA in TIDEMILL_REPLICA_TLS_CA has signed: give that of its CA, or have it signed by this one."
    if not _is_for_both_sides(own):
        return "which both sides show: its extended key usage has to allow serverAuth and clientAuth, or be absent."
    return ""


def _leads_to(
    certificate: x509.Certificate, chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> bool:
    """Whether an authority has signed it, or one of the chain that an authority has signed."""
    if any(_has_signed(authority, certificate) for authority in authorities):
        return True
    return any(
        _has_signed(issuer, certificate) and _leads_to(issuer, [*chain[:place], *chain[place + 1 :]], authorities)
        for place, issuer in enumerate(chain)
    )


def _has_signed(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):  # another name, a kind of key that signs nothing, another key
        return False
    return True


def _is_for_both_sides(certificate: x509.Certificate) -> bool:
    try:
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return set(usage) >= _BOTH_SIDES or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in usage
