"""What gRPC says of a connection that TLS kept from coming about, as a sentence that says what to do."""

from tidemill.connection import Connection

_CUT = ("socket closed", "endpoint closing", "connection reset", "broken pipe")

# What stands in gRPC's text, the first that fits, and our sentence.
_SENTENCES = (
    (
        "certificate has expired",
        "The certificate of {target} has expired: its operator has to renew it.",
    ),
    (
        "certificate is not yet valid",
        "The certificate of {target} is not valid yet: look at the clocks here and there.",
    ),
    (
        "certificate_verify_failed",
        (
            "The certificate of {target} is signed by nobody that is trusted here ({trusted}): set TIDEMILL_CA_FILE, "
            "or ca_file=, to the file of its CA, or of a self-signed server to a copy of its tls/certificate.pem."
        ),
    ),
    (
        "hostname verification check failed",
        "The certificate of {target} is for another name: call the server by a name that its certificate has.",
    ),
    (
        "wrong_version_number",
        "{target} does not speak TLS: if it is a server on this machine without TLS, write http://{target}.",
    ),
    (
        "handshake failed",
        "No secure connection to {target} could be made: {text}.",
    ),
)


def tls_sentence(text: str, connection: Connection) -> str | None:
    """`text` is gRPC's of a call that ended UNAVAILABLE; None when TLS was not what failed."""
    lowered = text.lower()
    if not connection.is_tls:
        if "failed to connect" in lowered and any(sign in lowered for sign in _CUT):
            return (
                f"{connection.target} does not take plaintext: if it is a server with TLS, write "
                f"https://{connection.target} and set TIDEMILL_CA_FILE to who signed its certificate."
            )
        return None
    trusted = f"only who is in {connection.ca_file}" if connection.ca_file else "the public CAs"
    for sign, sentence in _SENTENCES:
        if sign in lowered:
            return sentence.format(target=connection.target, trusted=trusted, text=text.rstrip("."))
    return None
