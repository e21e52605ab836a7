"""What the port shows its callers and asks of them; renewed files are taken up while it is open."""

import logging

import grpc

from tidemill_serving.tls import TlsFiles, TlsInvalidError, check_files

_log = logging.getLogger(__name__)


class Credentials:
    """Of one port. gRPC asks at each handshake, in a thread of its own, whether there is something newer."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._content = self._read()

    def of_port(self) -> grpc.ServerCredentials:
        """For gRPC; a caller must show a certificate that our CA signed."""
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            self._newer,  # type: ignore[arg-type]  # None is for no newer one, says gRPC
            require_client_authentication=True,
        )

    def _newer(self) -> grpc.ServerCertificateConfiguration | None:
        files = self._files
        try:
            content = self._read()
            if content == self._content:
                return None
            check_files(files.certificate, files.key, files.client_ca)
        except (OSError, TlsInvalidError) as error:  # one was replaced, and the others not yet
            _log.warning("the certificate was not renewed, the old one is kept: %s", error)
            return None
        self._content = content
        return self._configuration()

    def _read(self) -> tuple[bytes, bytes, bytes]:
        files = self._files
        return files.key.read_bytes(), files.certificate.read_bytes(), files.client_ca.read_bytes()

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        key, certificate, client_ca = self._content
        return grpc.ssl_server_certificate_configuration([(key, certificate)], root_certificates=client_ca)
