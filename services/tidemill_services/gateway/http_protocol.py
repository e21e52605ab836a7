"""One HTTP connection: what it may take in time and size before it has made a request."""

import asyncio
import sys
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from tidemill_services.domain.errors import FieldInvalidError
from tidemill_services.gateway.http_errors import HeadTooLargeError, error_response

MAX_HEAD_BYTES = 32 << 10  # request line and headers
HEAD_SECONDS = 20.0  # for all of them to come


def head_too_large() -> HeadTooLargeError:
    """The error with its limit."""
    return HeadTooLargeError(f"The request's line and headers are too large: they may have {MAX_HEAD_BYTES:,} bytes.")


class HttpProtocol(H11Protocol):
    """uvicorn's, which of itself waits for ever, and answers what is no HTTP in words of its own."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Wait for the first request."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Wait on for the rest of a request's head, or no more."""
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._stop_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refuses, in the shape of all errors; called while its error is handled.

        The request's head can have been right, and an answer be under way: of that nothing more is sent. uvicorn alone
        would log both ends of that as faults of ours.
        """
        error = sys.exception()
        too_large = isinstance(error, h11.RemoteProtocolError) and error.error_status_hint == 431
        refusal = head_too_large() if too_large else FieldInvalidError(msg)
        response = error_response(refusal)
        headers = [*response.raw_headers, (b"connection", b"close")]
        events = (
            h11.Response(status_code=response.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        )
        with suppress(h11.LocalProtocolError):  # an answer has begun, or may have no body
            for event in events:
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
