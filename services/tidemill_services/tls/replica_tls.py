"""What this process and the replicas show each other, where they speak TLS."""

from dataclasses import dataclass
from pathlib import Path

import grpc
from cryptography import x509

from tidemill_services.settings import Settings
from tidemill_services.tls.pair import CertificateError, PairFiles, read_valid_pair, replica_files

REPLICA_NAME = "tidemill-replica"
"""What the certificate of every replica is for, wherever it runs."""


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
    try:
        x509.load_pem_x509_certificates(settings.replica_tls_ca.read_bytes())
    except OSError as error:
        what = f"which cannot be read: {error.strerror}"
        raise CertificateError(f"TIDEMILL_REPLICA_TLS_CA is {settings.replica_tls_ca}, {what}.") from error
    except ValueError:
        what = "which holds no certificate in PEM"
        raise CertificateError(f"TIDEMILL_REPLICA_TLS_CA is {settings.replica_tls_ca}, {what}.") from None
    if REPLICA_NAME not in read_valid_pair(files).names:
        sentence = f"which is not for the name {REPLICA_NAME}, by which replicas are known: make one that is."
        raise CertificateError(files.certificate_says(sentence))
    return ReplicaTls(settings.replica_tls_ca, files)
