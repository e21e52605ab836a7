"""Generations that outlive their calls: each has a request id, and whoever sends it again attaches to it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from contextvars import Context
from dataclasses import dataclass
from functools import partial

from tidemill_services.domain.errors import (
    DrainingError,
    FieldInvalidError,
    GenerationLostError,
    RequestIdReusedError,
    TidemillError,
)
from tidemill_services.domain.generation import Usage
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.faults import log_fault
from tidemill_services.generation_events import End, Event, Waiting
from tidemill_services.generation_notes import GenerationNotes
from tidemill_services.metrics import Metrics
from tidemill_services.recording import Recording
from tidemill_services.session_streams import RunningStream, SessionStreams, StopReason
from tidemill_services.store.database import Database
from tidemill_services.store.requests import RequestKey
from tidemill_services.token_funds import Reservation

CLOSE_SECONDS = 5.0  # for the last notes to be written

Start = Callable[[RunningStream], AsyncGenerator[Event]]
_Name = tuple[str, str]  # account and request id


@dataclass(frozen=True, slots=True)
class Patience:
    """How long generations are kept, in seconds, and how much of them."""

    # A connection whose network is gone is noticed within 18 s, so this makes 28 until nothing runs for nobody.
    absence: float = 10.0  # that one runs on while no call is attached
    kept: float = 60.0  # that the text of one that ended can still be had
    max_kept_bytes: int = 64 << 20  # of all that ended; the oldest go first


class _Generation:
    """One that runs, or ended a short while ago."""

    def __init__(self, key: RequestKey, notes: GenerationNotes) -> None:
        self.key = key
        self.recording = Recording()
        self.running = RunningStream(
            before_wait=self._require_unknown,
            before_start=self._note_begin,
            on_text=self._add,
            on_charge=self._owe,
        )
        self._owed: tuple[Reservation, Usage] | None = None  # until it is known how much of it was read
        self._notes = notes
        self._is_new = False  # as far as the store was asked
        self._begun: asyncio.Future[None] | None = None  # its note, once a replica has a place for it
        self.num_calls = 0
        self.num_kept_bytes = 0  # once it has ended
        self.timer: asyncio.TimerHandle | None = None  # to its end when nobody is attached; then, until it is forgotten

    @property
    def name(self) -> _Name:
        """What it is found by."""
        return self.key.account_id, self.key.request_id

    async def end(self, end: End) -> None:
        """Show its end and have it noted. Raises as `check_unknown` does, of one that ended before it could start."""
        await self._note_begin()
        self.recording.finish(end)
        self._notes.end(self.key, end.usage)

    async def take_back(self) -> None:
        """Let the same request begin anew, since nothing was shown. Raises as `check_unknown` does."""
        if self._begun is not None:
            await self._notes.take_back(self.key, self._begun)
        elif not self._is_new:
            await self._require_unknown()

    async def _require_unknown(self) -> None:
        """Have a repeat told so before it waits, and wakes a model. One that need not wait is told by its note."""
        await self._notes.require_unknown(self.key)
        self._is_new = True

    def _note_begin(self) -> "asyncio.Future[None]":
        if self._begun is None:
            self._begun = self._notes.begin(self.key)
        return self._begun

    def _add(self, text: str, num_tokens: int, logprobs: Logprobs | None) -> None:
        if not self.recording.add(text, num_tokens, logprobs) and self.running.stopped is None:
            self.running.stop(StopReason.READER_TOO_SLOW)

    def charge(self, *, is_final: bool) -> None:
        """Charge the answer, if it is paid by its tokens, once it was read to its end; or what was read, finally."""
        if self._owed is None or not (self.recording.is_read or is_final):
            return
        (reservation, usage), self._owed = self._owed, None
        num_tokens = usage.completion_tokens if self.recording.is_read else self.recording.num_tokens_taken
        if num_tokens or self.recording.is_read:
            reservation.charge(usage.prompt_tokens, num_tokens)
        else:
            reservation.release()

    def _owe(self, reservation: Reservation, usage: Usage) -> None:
        self._owed = reservation, usage
        self.charge(is_final=False)

    def let_go(self) -> None:
        """It has ended: keep what is read of it, and not what made it, the prompt's tokens above all."""
        self.running.let_go()
        self._begun = None

    def set_timer(self, seconds: float, callback: Callable[[], object]) -> None:
        """Call this after a while, instead of what was set before."""
        self.clear_timer()
        # In no call's context: a timer outlasts the call that sets it, and would keep what is known of it.
        self.timer = asyncio.get_running_loop().call_later(seconds, callback, context=Context())

    def clear_timer(self) -> None:
        """Call nothing."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class ResumableGenerations:
    """Those of this process. Each runs in a task of its own, which `close` waits for."""

    def __init__(
        self, database: Database, streams: SessionStreams, metrics: Metrics, patience: Patience | None = None
    ) -> None:
        self._notes = GenerationNotes(database)
        self._patience = patience or Patience()
        self._streams = streams
        self._generations: dict[_Name, _Generation] = {}
        self._ended: dict[_Name, _Generation] = {}  # in the order of their ends
        self._num_ended_bytes = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_draining = False
        self._metrics = metrics.generations
        self._metrics.watch_resumable(lambda: len(self._generations))

    async def attach(self, key: RequestKey, resume_after: int, start: Start) -> AbstractContextManager[Recording]:
        """Have what the key's generation says, for who went on from a number; begin it with `start` if it is new.

        Whoever reads the recording reads it within the block: that is the time for which a call is attached.

        Raises RequestIdReusedError, and FieldInvalidError for a number that was never sent. The recording raises what
        `start` does before its first text, ReaderTooSlowError, and what `check_unknown` of the notes does.
        """
        generation = self._generations.get((key.account_id, key.request_id))
        if generation is None and resume_after:
            await self._notes.require_unknown(key)
            raise GenerationLostError
        if generation is None:
            generation = self._begin(key, start)
        else:
            if generation.key.body_hash != key.body_hash:
                raise RequestIdReusedError(field="request_id")
            self._metrics.attached()
        last = generation.recording.last_taken
        if resume_after > last:
            raise FieldInvalidError(
                f"resume_after is {resume_after}; the last message that was sent is {last}.", field="resume_after"
            )
        return self._attached(generation)

    def is_here(self, account_id: str, request_id: str) -> bool:
        """Whether a call with this request id begins nothing: it attaches."""
        return (account_id, request_id) in self._generations

    def cancel(self, account_id: str, request_id: str) -> bool:
        """End a generation; False when none of that name runs."""
        generation = self._generations.get((account_id, request_id))
        if generation is None or generation.recording.is_over:
            return False
        generation.running.stop(StopReason.CANCELLED)
        return True

    def drain(self) -> None:
        """End what nobody is attached to: no call can attach any more."""
        self._is_draining = True
        for generation in self._generations.values():
            if not generation.num_calls:
                generation.running.stop(StopReason.CANCELLED)

    async def close(self) -> None:
        """End what is still there, wait a little for the last notes, and forget all."""
        for generation in self._generations.values():
            generation.running.stop(StopReason.DRAINING)
        if self._tasks:
            _, left = await asyncio.wait(self._tasks, timeout=CLOSE_SECONDS)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)
        await self._notes.close(CLOSE_SECONDS)
        for generation in self._generations.values():
            generation.clear_timer()
            generation.charge(is_final=True)
        self._generations.clear()

    def _begin(self, key: RequestKey, start: Start) -> _Generation:
        generation = _Generation(key, self._notes)
        self._generations[generation.name] = generation
        task = asyncio.create_task(self._run(generation, start), name="generation")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return generation

    async def _run(self, generation: _Generation, start: Start) -> None:
        try:
            await self._record(generation, start)
        except asyncio.CancelledError:
            generation.recording.fail(DrainingError(retry_after_seconds=1))
            raise
        except Exception as error:  # noqa: BLE001 -- whatever it is, it is what its callers are told
            refusal = error if isinstance(error, TidemillError) else log_fault(error, "a generation")
            try:
                await generation.take_back()
            except TidemillError as known:
                refusal = known
            finally:
                del self._generations[generation.name]
                generation.clear_timer()
                generation.recording.fail(refusal)
        else:
            self._keep(generation)

    async def _record(self, generation: _Generation, start: Start) -> None:
        async with aclosing(start(generation.running)) as events:
            async for event in events:
                if isinstance(event, Waiting):
                    generation.recording.sign(event)
                elif isinstance(event, End):
                    await generation.end(event)
                    return
        raise AssertionError("a generation's events end with its End")

    def _keep(self, generation: _Generation) -> None:
        """Keep its text for a while, as long as there is room."""
        generation.let_go()
        self._ended[generation.name] = generation
        generation.num_kept_bytes = generation.recording.num_bytes
        self._num_ended_bytes += generation.num_kept_bytes
        generation.set_timer(self._patience.kept, partial(self._forget, generation))
        while self._num_ended_bytes > self._patience.max_kept_bytes:
            self._forget(next(iter(self._ended.values())))

    def _forget(self, generation: _Generation) -> None:
        """Let its text go. Calls that are attached still read it."""
        generation.clear_timer()
        generation.charge(is_final=True)
        self._num_ended_bytes -= generation.num_kept_bytes
        del self._ended[generation.name], self._generations[generation.name]

    @contextmanager
    def _attached(self, generation: _Generation) -> Iterator[Recording]:
        """Count a call that reads it; when the last one goes, it has a while until another one comes."""
        if not generation.recording.is_over:
            generation.clear_timer()
        generation.num_calls += 1
        try:
            with self._streams.reading():
                yield generation.recording
        finally:
            generation.num_calls -= 1
            generation.charge(is_final=False)
            if not generation.num_calls and not generation.recording.is_over:
                seconds = 0.0 if self._is_draining else self._patience.absence
                generation.set_timer(seconds, lambda: generation.running.stop(StopReason.CANCELLED))
