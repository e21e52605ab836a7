"""What only a client can see."""

from collections.abc import Mapping

import grpc

from tidemill.errors.kinds import InternalError, InvalidArgumentError, TidemillError, UnavailableError


class ConfigError(TidemillError):
    """The client's settings on this machine are wrong; no call was made."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "CONFIG"


class UnreachableError(UnavailableError):
    """No Tidemill server answers there, or the connection to it was lost."""

    reason = "UNREACHABLE"
    was_connected: bool = False
    """Whether there was a connection, so that the server may have got the call."""


class TlsError(UnreachableError):
    """No secure connection to the server could be made."""

    reason = "TLS"


class ReceiptUnreadableError(InvalidArgumentError):
    """A file is no receipt, or cannot be read."""

    reason = "RECEIPT_UNREADABLE"


class ProtocolError(InternalError):
    """The server's answer breaks the contract."""

    reason = "PROTOCOL"


class BatchError(TidemillError):
    """Some inputs of a list failed; the others' texts stand.

    Its code and reason are those of the first failure.
    """

    def __init__(self, texts: list[str], failures: Mapping[int, TidemillError]) -> None:
        index, first = min(failures.items())
        super().__init__(
            f"{len(failures)} of {len(texts)} inputs failed; input {index}: {first}",
            code=first.code,
            reason=first.reason,
        )
        self.texts = texts
        """The text of every input in order; of a failed one, what had arrived."""
        self.failures = failures
        """What went wrong, by the input's place."""
