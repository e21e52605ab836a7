"""One generation on a replica, as its reader sees it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Self

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_services.domain.errors import ReaderTooSlowError, TidemillError
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.engine_client.types import EngineOutput, ReplicaRejectedError
from tidemill_services.engine_client.wire import FINISHES, read_logprobs

MAX_BUFFERED_BYTES = 1 << 20
_BYTES_OF_A_TOKEN_ID = 4

OnText = Callable[[str, int, Logprobs | None], None]  # text, its number of tokens, their log-probabilities


class Backlog:
    """What came from one replica and waits for its readers."""

    def __init__(self) -> None:
        self.num_bytes = 0


class EngineStream(AsyncIterator[EngineOutput]):
    """Yields what a generation makes: an output for each message while its reader keeps up, several in one when not.

    Ends after the output with a `finish_reason`. Raises ReplicaRejectedError before the first output (nothing ran),
    ReplicaLostError when the replica or the connection went, and ReaderTooSlowError when 1 MiB waited to be read;
    the text that came before is yielded first. One reader at a time; a cancelled `anext` loses nothing.
    """

    def __init__(
        self,
        sequence_id: int,
        send_abort: Callable[[int], None],
        forget: Callable[[int], None],
        backlog: Backlog,
    ) -> None:
        self._sequence_id = sequence_id
        self._send_abort = send_abort
        self._forget = forget
        self._backlog = backlog
        self._texts: list[str] = []
        self._token_ids: list[int] = []
        self._num_bytes = 0
        self._last: pb.SequenceOutput | None = None  # came, with its finish reason
        self._failure: TidemillError | None = None
        self._is_open = True  # more may come
        self._is_over = False  # all was read
        self._is_nudged = False
        self._waiter: asyncio.Future[None] | None = None
        self._on_end: Callable[[], None] | None = None
        self._logprobs: Logprobs | None = None
        self._on_text: OnText | None = None

    def __aiter__(self) -> Self:
        """The stream itself."""
        return self

    async def __anext__(self) -> EngineOutput:
        """Everything that came since the last call; waits for something, or a nudge."""
        if self._is_over:
            raise StopAsyncIteration
        while self._is_open and not self._token_ids and not self._texts and not self._is_nudged:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._failure is not None and not self._texts and not self._token_ids:
            self._is_over = True
            raise self._failure
        if self._is_over:  # closed while we waited
            raise StopAsyncIteration
        return self._take()

    def on_end(self, callback: Callable[[], None]) -> None:
        """Call this once the replica is done with it, which may be long before its reader is."""
        self._on_end = callback
        if not self._is_open:
            callback()

    def forward(self, on_text: OnText) -> None:
        """Hand text, its number of tokens and their log-probabilities over as they come, not as outputs.

        The last output has what came with the end. Who takes them that way is woken for none of the others, and keeps
        them itself.
        """
        self._on_text = on_text

    def nudge(self) -> None:
        """Have the reader look up: it gets an output with nothing in it, if nothing came meanwhile."""
        self._is_nudged = True
        self._wake()

    def abort(self) -> None:
        """End the generation within a step; the stream then ends with CANCELLED."""
        if self._is_open:
            self._send_abort(self._sequence_id)

    def close(self) -> None:
        """End the generation, and the stream at once; fine at any time and twice."""
        self._is_over = True
        self._clear()
        if self._is_open:
            self._send_abort(self._sequence_id)
            self._end()

    def put(self, output: pb.SequenceOutput) -> None:
        """Called by the client with each output of this sequence."""
        text, token_ids, finish_reason = (
            output.text,
            output.token_ids,
            output.finish_reason,
        )  # each read makes an object
        if self._on_text is not None and not finish_reason:
            if text or token_ids:
                self._on_text(text, len(token_ids), read_logprobs(output))
            return
        self._buffer(text, token_ids, read_logprobs(output))
        if finish_reason == pb.FINISH_REASON_REJECTED:
            self.fail(ReplicaRejectedError(retry_after_seconds=1.0))
        elif finish_reason:
            self._last = output
            self._end()
        elif self._num_bytes > MAX_BUFFERED_BYTES:
            self._send_abort(self._sequence_id)
            self.fail(ReaderTooSlowError())
        else:
            self._wake()

    def fail(self, error: TidemillError) -> None:
        """Called by the client: nothing more will come, and this is why."""
        if self._is_open:
            self._failure = error
            self._end()

    def _buffer(self, text: str, token_ids: Sequence[int], logprobs: Logprobs | None) -> None:
        if text:
            self._texts.append(text)
            self._count(len(text) if text.isascii() else len(text.encode()))
        if token_ids:
            self._token_ids.extend(token_ids)
            self._count(_BYTES_OF_A_TOKEN_ID * len(token_ids))
        if logprobs is not None:
            self._count(logprobs.num_bytes)
            if self._logprobs is None:
                self._logprobs = logprobs
            else:
                self._logprobs.extend(logprobs)

    def _take(self) -> EngineOutput:
        text, token_ids, last = "".join(self._texts), tuple(self._token_ids), self._last
        logprobs = self._logprobs
        self._clear()
        self._is_nudged = False
        if last is None:
            return EngineOutput(text, len(token_ids), token_ids, logprobs=logprobs)
        self._is_over = True
        return EngineOutput(
            text,
            len(token_ids),
            token_ids,
            finish_reason=FINISHES[last.finish_reason],
            error=last.error,
            num_prompt_tokens=last.num_prompt_tokens,
            num_completion_tokens=last.num_completion_tokens,
            num_cached_prompt_tokens=last.num_cached_prompt_tokens,
            logprobs=logprobs,
        )

    def _count(self, num_bytes: int) -> None:
        self._num_bytes += num_bytes
        self._backlog.num_bytes += num_bytes

    def _clear(self) -> None:
        self._texts.clear()
        self._token_ids.clear()
        self._logprobs = None
        self._count(-self._num_bytes)

    def _end(self) -> None:
        self._is_open = False
        self._forget(self._sequence_id)
        if self._on_end is not None:
            self._on_end()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
