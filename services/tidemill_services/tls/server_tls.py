"""What all ports of this server present, and how a renewed certificate is taken up while it runs."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc

from tidemill_services.settings import Settings
from tidemill_services.tls.pair import CertificateError, Pair, read_valid_pair, server_files
from tidemill_services.tls.self_signed import names_of_server, self_signed_pair

logger = logging.getLogger(__name__)

LOOK_SECONDS = 10.0  # for a renewed certificate


def open_server_tls(settings: Settings) -> "ServerTls | None":
    """Read or make what the three ports present; None for plaintext. Blocks; raises CertificateError and OSError."""
    if settings.tls_self_signed:
        names = names_of_server((settings.host, settings.admin_host))
        return ServerTls(partial(self_signed_pair, settings.data_dir, names))
    files = server_files(settings)
    return None if files is None else ServerTls(partial(read_valid_pair, files))


class ServerTls:
    """One certificate for the gRPC and the HTTP ports; `run` for the server's life takes up the next one."""

    def __init__(self, read: Callable[[], Pair]) -> None:
        """`read` gives the pair as it is now, and raises CertificateError or OSError; blocks."""
        self._read = read
        self._pair = read()
        self._refused = ""
        self._newer: grpc.ServerCertificateConfiguration | None = None  # that gRPC has not asked for yet
        self.http_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.http_context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.http_context.set_alpn_protocols(["http/1.1"])
        _load_into(self.http_context, self._pair)

    @property
    def names(self) -> frozenset[str]:
        """Host names and addresses that the certificate is for."""
        return self._pair.names

    @property
    def certificate_file(self) -> Path:
        """What a client that trusts nothing else may trust."""
        return self._pair.files.certificate

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For one port; gRPC takes TLS 1.2 at least."""
        # Asked at each handshake, by a thread of gRPC's.
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._pair),
            self._take_newer,  # type: ignore[arg-type]  # None is for no newer one, says gRPC
            require_client_authentication=False,
        )

    async def run(self) -> None:
        """Look for a renewed certificate until cancelled. One that cannot be used is refused, and the old one kept."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Take up the certificate that is there now."""
        try:
            pair = await asyncio.to_thread(self._read)
            if pair == self._pair:
                return
            _load_into(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), pair)  # a try: one that fails leaves half of it behind
            _load_into(self.http_context, pair)  # in the loop, as the handshakes: OpenSSL has no lock for this
        except (CertificateError, OSError) as error:  # ssl's errors are OSErrors
            if str(error) != self._refused:
                logger.warning("the certificate was not renewed, the old one is kept: %s", error)
            self._refused = str(error)
            return
        self._pair, self._newer, self._refused = pair, _configuration(pair), ""
        logger.info("the certificate was renewed; it is valid until %s", f"{pair.not_after:%Y-%m-%d %H:%M} UTC")

    def _take_newer(self) -> "grpc.ServerCertificateConfiguration | None":
        newer, self._newer = self._newer, None
        return newer


def _load_into(context: ssl.SSLContext, pair: Pair) -> None:
    context.load_cert_chain(pair.files.certificate, pair.files.key)


def _configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key_pem, pair.certificate_pem)])
