"""One generation under way: on a replica, on another one when that refused it, until its end."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Self

from tidemill_services.domain.errors import (
    ApiKeyInvalidError,
    DrainingError,
    ReaderTooSlowError,
    ReplicaLostError,
    TidemillError,
    WaitExceededError,
)
from tidemill_services.domain.generation import FinishReason, Usage
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.domain.token_billing import token_cost
from tidemill_services.engine_client import (
    EngineFinish,
    EngineOutput,
    EngineStream,
    OnBehalf,
    OnText,
    ReplicaRejectedError,
)
from tidemill_services.faults import log_fault
from tidemill_services.generation_admission import Admitted
from tidemill_services.generation_events import Delta, End, Event, Waiting
from tidemill_services.metrics import Times
from tidemill_services.scaler.replicas import Lease, Replicas
from tidemill_services.session_streams import RunningStream, StopReason
from tidemill_services.slot_waits import SlotWait, SlotWaits
from tidemill_telemetry.call_record import Origin

logger = logging.getLogger(__name__)

WAITING_SIGN_SECONDS = 1.0  # while a model wakes, so that a progress bar moves
SILENCE_SIGN_SECONDS = 15.0  # while an answer is being made
NUM_TRIES = 3  # replicas that may refuse or be lost before anything was shown


class _SilenceWatch:
    """Nudges the reader of a stream whenever nothing came for a while; closes the stream at the end of a `with` block.

    One timer for all of the stream: one for each token would cost a tenth of what the token costs.
    """

    def __init__(self, stream: EngineStream) -> None:
        self.heard = time.monotonic()  # when something came last
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(SILENCE_SIGN_SECONDS, self._look)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._stream.close()

    def _look(self) -> None:
        left = self.heard + SILENCE_SIGN_SECONDS - time.monotonic()
        if left <= 0:
            self._stream.nudge()
            left = SILENCE_SIGN_SECONDS
        self._timer = self._loop.call_later(left, self._look)


class GenerationRun:
    """One generation under way, and its stopwatch. Times are on the clock of `time.monotonic`."""

    def __init__(
        self,
        admitted: Admitted,
        replicas: Replicas,
        waits: SlotWaits,
        deadline: float | None,
        token_gaps: Times,
        origin: Origin | None = None,
    ) -> None:
        """`origin` is the call that it is for, which the replica is told."""
        self.admitted = admitted
        self.arrived = admitted.arrived
        self.taken: float | None = None
        self.first_text: float | None = None
        self.has_shown = False  # whether the caller got anything of the answer
        self.num_tokens = 0
        self.num_cached_prompt_tokens = 0
        self.finish_reason = FinishReason.CANCELLED  # unless it ends in another way
        self._replicas = replicas
        self._waits = waits
        self._wait: SlotWait | None = None
        self._lease: Lease | None = None
        self._deadline = deadline
        self._token_gaps = token_gaps
        self._origin = origin
        self._last_tokens: float | None = None  # when they came
        self._wait_until = time.monotonic() + admitted.wait.max_wait_seconds

    async def events(self, running: RunningStream) -> AsyncGenerator[Event]:
        """Lease a replica and stream from it; another one when it refused, or was lost before anything was shown."""
        for tries_left in reversed(range(NUM_TRIES)):
            try:
                if not self._has_place_now(running):
                    async with aclosing(self._wait_for_lease(running)) as signs:
                        async for sign in signs:
                            yield sign
                if running.stopped or self._lease is None:  # without a stop there is one
                    yield self._stopped_end(running.stopped or StopReason.CANCELLED)
                    return
                stream = await self._begin(self._lease, running)
                with _SilenceWatch(stream) as watch:
                    if running.on_text is not None:
                        stream.forward(partial(self._forward, running.on_text, watch))
                    async for output in stream:
                        for event in self._events_of(output, running, watch):
                            yield event
            except (ReplicaRejectedError, ReplicaLostError) as error:
                self._require_another_try(error, tries_left)
            else:
                return
            finally:
                self._give_back()

    def end(self, finish_reason: FinishReason, error: TidemillError | None = None) -> End:
        """The last event."""
        self.finish_reason = finish_reason
        return End(finish_reason, self.usage(), error)

    def _require_another_try(self, error: ReplicaRejectedError | ReplicaLostError, tries_left: int) -> None:
        if self.has_shown or not tries_left:
            logger.warning("a generation of %s ends: %s", self.admitted.model, error)
            raise type(error)(retry_after_seconds=error.retry_after_seconds) from error  # without our addresses

    def _give_back(self) -> None:
        self._end_wait()
        if self._lease is not None:
            self._lease.give_back()

    def _has_place_now(self, running: RunningStream) -> bool:
        model, account_id = self.admitted.model, self.admitted.account_id
        self._lease = None if running.stopped else self._replicas.lease_now(model, account_id)
        if self.admitted.session_id and (self._lease is None or not self._lease.has_slot):
            self._wait = self._waits.begin(self.admitted.session_id)
        return self._lease is not None

    async def _begin(self, lease: Lease, running: RunningStream) -> EngineStream:
        """Send it to the replica."""
        if lease.has_slot:
            self._end_wait()
        self.taken = time.monotonic()
        if running.before_start is not None:
            await running.before_start()
        stream = lease.client.generate(self.admitted.request, self._on_behalf(lease))
        stream.on_end(lease.give_back)  # however slowly the answer is read
        running.on_stop(stream.abort)
        return stream

    async def _wait_for_lease(self, running: RunningStream) -> AsyncGenerator[Waiting]:
        """Signs of life until there is a lease, or it is stopped. Raises why there is none."""
        if running.before_wait is not None:
            await running.before_wait()
        leasing = asyncio.create_task(self._wait_for_place(), name="lease")
        running.on_stop(leasing.cancel)
        try:
            while not (await asyncio.wait({leasing}, timeout=WAITING_SIGN_SECONDS))[0]:
                yield Waiting(self._replicas.waiting_status(self.admitted.model))
        finally:
            leasing.cancel()
            await asyncio.wait({leasing})  # so that what it got is known, and given back
        if not running.stopped:
            leasing.result()

    async def _wait_for_place(self) -> None:
        admitted = self.admitted
        until = self._wait_until if self._deadline is None else min(self._wait_until, self._deadline)
        wait = replace(admitted.wait, max_wait_seconds=max(0.0, until - time.monotonic()))
        self._lease = await self._replicas.wait_for_place(admitted.model, admitted.account_id, wait)

    def _events_of(self, output: EngineOutput, running: RunningStream, watch: _SilenceWatch) -> Iterator[Event]:
        if running.on_text is not None and (output.text or output.num_tokens):  # it came with the end
            self._forward(running.on_text, watch, output.text, output.num_tokens, output.logprobs)
        elif output.text or output.num_tokens:
            watch.heard = self._count(output.text, output.num_tokens)
            yield Delta(output.text, output.num_tokens, self._named(output.logprobs))
        elif output.finish_reason is None:
            yield Waiting(self._replicas.waiting_status(self.admitted.model))
        if output.finish_reason is not None:
            yield self._engine_end(output, running)

    def _forward(
        self, on_text: OnText, watch: _SilenceWatch, text: str, num_tokens: int, logprobs: Logprobs | None
    ) -> None:
        watch.heard = self._count(text, num_tokens)
        on_text(text, num_tokens, self._named(logprobs))

    def _named(self, logprobs: Logprobs | None) -> Logprobs | None:
        return None if logprobs is None else logprobs.named(self.admitted.text_of_token)

    def _count(self, text: str, num_tokens: int) -> float:
        """Note that it came now, and say when that is."""
        now = time.monotonic()
        if text and self.first_text is None:
            self.first_text = now
        if not self.has_shown:
            self.has_shown = True
            self._end_wait()
        if num_tokens:
            self.num_tokens += num_tokens
            if self._last_tokens is not None:
                self._token_gaps.add(now - self._last_tokens, num_tokens)
            self._last_tokens = now
        return now

    def _end_wait(self) -> None:
        if self._wait is not None:
            self._wait.end()

    def _engine_end(self, output: EngineOutput, running: RunningStream) -> End:
        self.num_tokens = output.num_completion_tokens
        self.num_cached_prompt_tokens = output.num_cached_prompt_tokens
        if output.finish_reason is EngineFinish.DEADLINE:
            raise WaitExceededError
        if output.finish_reason is EngineFinish.ERROR:
            raise log_fault(output.error, "the engine")
        if output.finish_reason is EngineFinish.CANCELLED:
            if running.stopped is None:  # nor did we cancel it: the replica's own time was over
                raise ReplicaLostError("The replica was put to rest before the answer's end: try again.")
            return self._stopped_end(running.stopped)
        return self.end(FinishReason.STOP if output.finish_reason is EngineFinish.STOP else FinishReason.LENGTH)

    def _stopped_end(self, reason: StopReason) -> End:
        if reason is StopReason.DRAINING:
            raise DrainingError(retry_after_seconds=1)
        if reason is StopReason.READER_TOO_SLOW:
            raise ReaderTooSlowError
        if reason is StopReason.KEY_ENDED:
            raise ApiKeyInvalidError
        return self.end(FinishReason.CANCELLED if reason is StopReason.CANCELLED else FinishReason.SESSION_STOPPED)

    def _on_behalf(self, lease: Lease) -> OnBehalf:
        time_left_seconds = None if self._deadline is None else self._deadline - time.monotonic()
        return OnBehalf(lease.account_salt, self._origin, time_left_seconds)

    def usage(self) -> Usage:
        """What it used until now."""
        num_prompt_tokens, price = self.admitted.num_prompt_tokens, self.admitted.price
        return Usage(
            prompt_tokens=num_prompt_tokens,
            completion_tokens=self.num_tokens,
            cost_microcredits=0 if price is None else token_cost(price, num_prompt_tokens, self.num_tokens),
            queue_seconds=(self.taken or time.monotonic()) - self.arrived,
            time_to_first_token_seconds=None if self.first_text is None else self.first_text - self.arrived,
            total_seconds=time.monotonic() - self.arrived,
            cached_prompt_tokens=self.num_cached_prompt_tokens,
        )
