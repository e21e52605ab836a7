"""The certificates that the settings name: there, valid for a while, with their keys, and the keys closed to others."""

import stat
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tidemill_services.doctor.finding import Finding, ok, warning, wrong
from tidemill_services.doctor.handshake import Trusted
from tidemill_services.settings import Settings

if TYPE_CHECKING:
    from tidemill_services.tls.pair import Pair

_SOON = timedelta(days=14)


def check_certificates(settings: Settings) -> Iterable[Finding]:
    """The ports' pair, and the one for the way to replicas."""
    if not settings.is_tls and settings.replica_tls_certificate is None:
        return
    try:
        # What reads certificates is in the extras, and the packages check says what is missing.
        from tidemill_services.tls.pair import CertificateError, read_valid_pair, server_files  # noqa: PLC0415
        from tidemill_services.tls.replica_tls import open_replica_tls  # noqa: PLC0415
        from tidemill_services.tls.self_signed import self_signed_files  # noqa: PLC0415
    except ImportError as error:
        yield warning("certificate", f"Certificates cannot be checked without {error.name}: install it.")
        return
    own, made = server_files(settings), self_signed_files(settings.data_dir)
    try:
        if own is not None:
            yield _judge("certificate", read_valid_pair(own))
        elif settings.tls_self_signed and made.certificate.exists():
            yield _judge("certificate", read_valid_pair(made))
        elif settings.tls_self_signed:
            yield ok("certificate", f"{made.certificate} is not there yet; the first start makes it.")
    except CertificateError as error:
        remedy = " The next start makes a new pair." if own is None else ""
        yield (warning if own is None else wrong)("certificate", f"{error}{remedy}")
    try:
        if (replica_tls := open_replica_tls(settings)) is not None:
            yield _judge("replica certificate", read_valid_pair(replica_tls.files))
    except CertificateError as error:
        yield wrong("replica certificate", str(error))


def _judge(subject: str, pair: "Pair") -> Finding:
    """A pair that is valid now."""
    key, end = pair.files.key, f"{pair.not_after:%Y-%m-%d %H:%M} UTC"
    mode = stat.S_IMODE(key.stat().st_mode)
    if mode & 0o077:
        return warning(subject, f"Others can reach the key {key} (mode {mode:04o}): run `chmod 600 {key}`.")
    if datetime.now(UTC) > pair.not_after - _SOON:
        return warning(subject, f"{pair.files.certificate} expires at {end}: renew it.")
    names = ", ".join(sorted(pair.names)) or "no name, so that no client takes it"
    return ok(subject, f"{pair.files.certificate} is for {names}, and valid until {end}.")


def trusted_by_settings(settings: Settings) -> Trusted | None:
    """What the ports of a server with these settings present; None for plaintext, or where it cannot be told."""
    try:
        from tidemill_services.tls.pair import CertificateError, read_pair, server_files  # noqa: PLC0415 - as above
        from tidemill_services.tls.self_signed import self_signed_files  # noqa: PLC0415
    except ImportError:
        return None
    files = self_signed_files(settings.data_dir) if settings.tls_self_signed else server_files(settings)
    if files is None:
        return None
    try:
        pair = read_pair(files)
    except CertificateError:
        return None  # the check of the certificates says why
    return Trusted(pair.certificate_pem, min(pair.names, default="").replace("*", "any", 1))
