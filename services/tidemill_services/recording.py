"""What one generation has said, for all who attach to it while it runs and for a while after."""

import asyncio
from array import array
from collections.abc import AsyncGenerator
from dataclasses import replace

from tidemill_services.domain.errors import ReaderTooSlowError, TidemillError
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.generation_events import Delta, End, Event, Waiting
from tidemill_services.whole_answer import WholeAnswer

MAX_BYTES = 1 << 20  # of one generation's text
_OWN_BYTES = 3_000  # of a generation that is kept, without its text; measured
_BYTES_OF_A_PIECE = 8


class Recording:
    """What one generation says, in numbered pieces, then its end; one task writes, any number read.

    What no reader has taken is one open piece. It grows until it is taken, and has its number from then on. So a reader
    that keeps up gets every step of the engine, one that does not gets several in one piece, and whoever attaches later
    gets the same pieces under the same numbers.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.last_taken = 0  # the highest number that any reader got
        self.num_tokens_taken = 0  # that any reader got
        self.is_read = False  # to its end, by any reader
        self._max_bytes = max_bytes
        self._text = bytearray()  # UTF-8, of the pieces that are still here
        self._num_dropped = 0  # pieces, the oldest
        self._num_dropped_bytes = 0
        self._piece_ends = array("I")  # of each piece that was taken: bytes of text until its end,
        self._token_ends = array("I")  # and tokens until its end
        self._dropped_token_end = 0
        self._open_from = (0, 0)  # bytes and tokens until the open piece
        self._num_tokens = 0
        self._logprobs: Logprobs | None = None  # of the tokens of the pieces that are still here
        self._end: End | None = None
        self._failure: TidemillError | None = None
        self._sign: Waiting | None = None
        self._num_signs = 0
        self._waiters: list[asyncio.Future[None]] = []
        self._patient: list[asyncio.Future[None]] = []  # of readers who wait for the end

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self._end is not None or self._failure is not None

    @property
    def num_bytes(self) -> int:
        """About what it takes of memory, with all that is kept beside it."""
        return _OWN_BYTES + self._num_text_bytes

    @property
    def _num_text_bytes(self) -> int:
        num_logprob_bytes = 0 if self._logprobs is None else self._logprobs.num_bytes
        return len(self._text) + _BYTES_OF_A_PIECE * len(self._piece_ends) + num_logprob_bytes

    def add(self, text: str, num_tokens: int, logprobs: Logprobs | None = None) -> bool:
        """Add text, with its tokens' log-probabilities if there are any.

        False when so much waits for a reader that the generation has to end.

        Where room is short, the oldest pieces that were taken go.
        """
        self._text += text.encode()
        self._num_tokens += num_tokens
        if logprobs is not None:
            if self._logprobs is None:
                self._logprobs = Logprobs()
            self._logprobs.extend(logprobs)
        if self._waiters:
            self._wake()
        if self._patient and self._num_text_bytes > self._max_bytes // 2:  # before there is no room
            self._wake_patient()
        while self._num_text_bytes > self._max_bytes:
            if not self._piece_ends:
                return False
            self._drop_oldest()
        return True

    def sign(self, waiting: Waiting) -> None:
        """Tell those who are attached now that it lives; a sign is not kept."""
        self._sign = waiting
        self._num_signs += 1
        self._wake()

    def finish(self, end: End) -> None:
        """Add the last event."""
        self._end = end
        self._wake()
        self._wake_patient()

    def fail(self, error: TidemillError) -> None:
        """Have every reader raise this once it has read what is there."""
        self._failure = error
        self._wake()
        self._wake_patient()

    async def read(self, after: int, *, joins_end: bool = False) -> AsyncGenerator[tuple[int, Event]]:
        """Yield the events above a number, each with its own; a sign of life has the number of the event before it.

        Ends with the End, which has the text before it with `joins_end` if both are there. Raises what the generation
        failed with, and ReaderTooSlowError when the next piece is gone.
        """
        number, num_signs = after, self._num_signs
        while True:
            event = self._take(number + 1)
            if event is not None:
                number += 1
                self._note_taken(number, event)
                if joins_end and isinstance(event, Delta) and self._end is not None:
                    end = self._take(number + 1)
                    if isinstance(end, End):
                        number += 1
                        self._note_taken(number, end)
                        event = replace(end, last=event)
                yield number, event
            elif self._failure is not None:
                raise self._failure
            elif self._end is not None:
                return
            elif self._sign is not None and num_signs != self._num_signs:
                num_signs = self._num_signs
                yield number, self._sign
            else:
                await _change(self._waiters)

    async def whole(self) -> WholeAnswer:
        """All of it, once it has ended; its reader is woken for no step before. Raises as `read` does."""
        number, answer = 0, WholeAnswer()
        while True:
            event = self._take(number + 1)
            if event is not None:
                number += 1
                self._note_taken(number, event)
                answer.take(event)
                if isinstance(event, End):
                    return answer
            elif self._failure is not None:
                raise self._failure
            else:
                await _change(self._patient)

    def _note_taken(self, number: int, event: Event) -> None:
        self.last_taken = max(self.last_taken, number)
        if isinstance(event, End):
            self.is_read = True
        elif number == self.last_taken:
            self.num_tokens_taken = self._piece_end(number - self._num_dropped - 1)[1]

    def _take(self, number: int) -> Event | None:
        """The event of this number; None when there is none yet. Taking the open piece closes it."""
        place, num_pieces = number - self._num_dropped - 1, len(self._piece_ends)
        if place == num_pieces:  # each step of the engine comes here, so it looks no further than it must
            return self._close_open_piece() or self._end
        if place > num_pieces:
            return None
        if place < 0:
            raise ReaderTooSlowError
        return self._piece_between(*self._piece_end(place - 1), *self._piece_end(place))

    def _close_open_piece(self) -> Delta | None:
        """What no reader has taken; None when that is nothing."""
        first, first_token = self._open_from
        last, last_token = self._open_from = self._num_dropped_bytes + len(self._text), self._num_tokens
        if last == first and last_token == first_token:
            return None
        self._piece_ends.append(last)
        self._token_ends.append(last_token)
        return self._piece_between(first, first_token, last, last_token)

    def _piece_between(self, first: int, first_token: int, last: int, last_token: int) -> Delta:
        text = self._text[first - self._num_dropped_bytes : last - self._num_dropped_bytes]
        return Delta(text.decode(), last_token - first_token, self._logprobs_between(first_token, last_token))

    def _logprobs_between(self, first_token: int, last_token: int) -> Logprobs | None:
        if self._logprobs is None:
            return None
        return self._logprobs.part(first_token - self._dropped_token_end, last_token - self._dropped_token_end)

    def _piece_end(self, place: int) -> tuple[int, int]:
        """Bytes and tokens until the end of a piece that is here; -1 is the one before them."""
        if place < 0:
            return self._num_dropped_bytes, self._dropped_token_end
        return self._piece_ends[place], self._token_ends[place]

    def _drop_oldest(self) -> None:
        end, token_end = self._piece_end(0)
        self._logprobs = self._logprobs_between(token_end, self._num_tokens)
        self._dropped_token_end = token_end
        del self._text[: end - self._num_dropped_bytes]
        del self._piece_ends[0], self._token_ends[0]
        self._num_dropped_bytes = end
        self._num_dropped += 1

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        _wake(waiters)

    def _wake_patient(self) -> None:
        waiters, self._patient = self._patient, []
        _wake(waiters)


async def _change(waiters: list[asyncio.Future[None]]) -> None:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiters.append(waiter)
    await waiter


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():  # its reader went away
            waiter.set_result(None)
