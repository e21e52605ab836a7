"""What TLS at an address is like, asked as a client would."""

import socket
import ssl
from dataclasses import dataclass

from tidemill.connection import Connection

HANDSHAKE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Trusted:
    """The one certificate that a port should present, and a name that it is for."""

    certificate_pem: bytes
    name: str

    def context(self) -> ssl.SSLContext:
        """For one connection; only that certificate passes, so that its name needs no look."""
        context = ssl.create_default_context(cadata=self.certificate_pem.decode("ascii", "ignore"))
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whoever signed it
        context.check_hostname = False
        return context


def speaks_tls(host: str, port: int) -> bool:
    """Whether TLS is spoken there, with whatever certificate; nothing is said on the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _handshake(host, port, context) is None


def tls_trouble(server: Connection) -> str | None:
    """Why a client with these settings would not get through to a server that listens; None when it would."""
    host, _, port = server.target.rpartition(":")
    host = host.strip("[]")
    if not server.is_tls:
        if speaks_tls(host, int(port)):
            return "it speaks TLS, and the file says plaintext. Start that server anew, which writes the file."
        return None
    try:
        context = ssl.create_default_context(cafile=server.ca_file or None)
    except OSError as unusable:  # ssl's are of that kind
        return f"the CA file {server.ca_file} cannot be used: {unusable}. Start that server anew, which writes both."
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC does
    if (error := _handshake(host, int(port), context)) is None:
        return None
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "") or str(error)
    return f"no secure connection could be made ({reason}). Start that server anew, which writes the file."


def _handshake(host: str, port: int, context: ssl.SSLContext) -> OSError | None:
    try:
        with (
            socket.create_connection((host, port), timeout=HANDSHAKE_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except OSError as error:
        return error
