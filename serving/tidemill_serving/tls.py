"""The files with which a replica speaks TLS, and whether they can be used."""

import ssl
from dataclasses import dataclass
from pathlib import Path


class TlsInvalidError(Exception):
    """A file cannot be used for TLS, or one is missing; the sentence begins with its option."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files."""

    certificate: Path
    key: Path
    client_ca: Path  # signs the certificates of those who may call


def check_files(certificate: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    """All three, or None when none is given. Raises TlsInvalidError."""
    given = {"--tls-certificate": certificate, "--tls-key": key, "--tls-client-ca": client_ca}
    files = {option: path for option, path in given.items() if path is not None}
    if certificate is None or key is None or client_ca is None:
        if not files:
            return None
        missing = next(option for option in given if option not in files)
        raise TlsInvalidError(f"{missing}: is missing; the three files go together")
    for option, path in files.items():
        try:
            is_encrypted = b"ENCRYPTED" in path.read_bytes()  # OpenSSL would ask the terminal for the password
        except OSError as error:
            raise TlsInvalidError(f"{option}: {path} cannot be read: {error.strerror}") from error
        if is_encrypted:
            raise TlsInvalidError(f"{option}: {path} is encrypted; give a key without a password")
    _load(certificate, key, client_ca)
    return TlsFiles(certificate, key, client_ca)


def _load(certificate: Path, key: Path, client_ca: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        sentence = f"{certificate} and {key} are no certificate and its key in PEM"
        raise TlsInvalidError(f"--tls-certificate: {sentence} ({error.reason or error})") from error
    try:
        context.load_verify_locations(client_ca)
    except ssl.SSLError:
        raise TlsInvalidError(f"--tls-client-ca: {client_ca} holds no certificate in PEM") from None
