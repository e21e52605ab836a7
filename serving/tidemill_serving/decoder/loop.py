"""One step of the engine: schedule, run, sample. One decode run for all, and at most one piece of a prompt."""

import logging
import time
from collections.abc import Callable, Iterable

import numpy as np

from tidemill_serving.decoder.batch import NO_VERSION, DecodeBatch
from tidemill_serving.decoder.chunks import ChunkPolicy
from tidemill_serving.decoder.counters import Counters
from tidemill_serving.decoder.devices.device import Device, DeviceError, FloatArray, RemoteLogits
from tidemill_serving.decoder.picker import Picker
from tidemill_serving.decoder.scheduler import Scheduler
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.decoder.shared_prompts import SharedPrompts
from tidemill_serving.decoder.slots import CopyIn, CopyOut, Move, Order
from tidemill_serving.engine import EngineStats, FinishReason, SequenceOutput, TokenLogprobs
from tidemill_telemetry.logs import about_origin

_logger = logging.getLogger(__name__)


class DecoderLoop:
    """Moves all sequences on by one step at a time. Knows nothing of threads."""

    def __init__(
        self,
        device: Device,
        scheduler: Scheduler,
        chunks: ChunkPolicy,
        *,
        num_threads: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`num_threads` may choose tokens at the same time."""
        self.scheduler = scheduler
        self.counters = Counters()
        self._device = device
        self._chunks = chunks
        self._clock = clock
        self._picker = Picker(num_threads)
        self._batch = DecodeBatch([], NO_VERSION)
        self._shared_prompts = SharedPrompts(scheduler)
        self.failure = ""

    def step(self, cancelled: Iterable[int] = ()) -> list[SequenceOutput]:
        """End what is cancelled or overdue, make room, admit, run, sample.

        Sets `failure` to a sentence when the device does not run any more, whatever it is given.
        """
        outputs = self._end_unwanted(frozenset(cancelled))
        self._carry_out(self.scheduler.make_room())
        self._carry_out(self.scheduler.admit())
        outputs += self._decode()
        if self.scheduler.prefilling:
            outputs += self._prefill_shared()
            outputs += self._prefill()
        return outputs

    def stats(self) -> EngineStats:
        """What was done so far, and what is held now."""
        return EngineStats(
            token_budget=self.scheduler.token_budget,
            num_held_tokens=self.scheduler.num_held_tokens,
            num_kept_tokens=self.scheduler.num_kept_tokens,
            num_preemptions=self.scheduler.num_preemptions,
            num_decode_runs=self.counters.num_decode_runs,
            num_decode_tokens=self.counters.num_decode_tokens,
            decode_seconds=self.counters.decode_seconds,
            num_prefill_runs=self.counters.num_prefill_runs,
            num_prefill_tokens=self.counters.num_prefill_tokens,
            prefill_seconds=self.counters.prefill_seconds,
        )

    def cancel_all(self) -> list[SequenceOutput]:
        """End every sequence as its caller would have, without a run."""
        return [self._end(sequence, FinishReason.CANCELLED) for sequence in list(self.scheduler)]

    def fail_all(self, error: str) -> list[SequenceOutput]:
        """End every sequence with ERROR and a sentence, without touching the device."""
        ended = list(self.scheduler)
        for sequence in ended:
            self.scheduler.remove(sequence, keeps=False)
        return [sequence.fail(error) for sequence in ended]

    def _end_unwanted(self, cancelled: frozenset[int]) -> list[SequenceOutput]:
        now = self._clock()
        if not cancelled and now < self.scheduler.earliest_deadline:
            return []  # nearly always
        outputs = []
        for sequence in list(self.scheduler):
            deadline = sequence.request.deadline
            if sequence.request.sequence_id in cancelled:
                outputs.append(self._end(sequence, FinishReason.CANCELLED))
            elif deadline is not None and deadline <= now:
                outputs.append(self._end(sequence, FinishReason.DEADLINE))
        self.scheduler.look_for_deadlines()
        return outputs

    def _decode(self) -> list[SequenceOutput]:
        if not self.scheduler.decoding:
            return []
        batch = self._batch
        if batch.version != self.scheduler.num_joins_and_leaves:
            batch = self._batch = DecodeBatch(list(self.scheduler.decoding), self.scheduler.num_joins_and_leaves)
        start = self._clock()
        try:
            logits = self._device.decode(batch.token_ids, batch.num_past)
        except DeviceError:
            return self._decode_alone(batch.sequences)
        seconds = self._clock() - start
        self._chunks.saw_decode(seconds)
        self.counters.saw_decode(seconds, len(batch.sequences))
        self.scheduler.grow(batch.sequences)
        return self._take(batch, logits)

    def _decode_alone(self, running: list[Sequence]) -> list[SequenceOutput]:
        """A batch failed: run its rows one by one, so that only those which fail by themselves end."""
        self._batch = DecodeBatch([], NO_VERSION)
        outputs: list[SequenceOutput] = []
        for sequence in running:
            token = np.array([sequence.last_token], np.int64)
            try:
                logits = self._device.extend(sequence.slot, token, sequence.num_cached)
            except DeviceError as error:
                outputs.append(self._fail(sequence, f"the model's run failed: {error}"))
            else:
                self.scheduler.grow([sequence])
                outputs += self._take_one(sequence, logits)
        self._check_device()
        return outputs

    def _prefill(self) -> list[SequenceOutput]:
        if not self.scheduler.prefilling:
            return []
        sequence = self.scheduler.prefilling[0]
        self._carry_out(self.scheduler.open_prefill())
        length = self._chunks.length(sequence.num_prompt_left, others_decode=bool(self.scheduler.decoding))
        chunk = sequence.prompt[sequence.num_cached : sequence.num_cached + length]
        start = self._clock()
        try:
            logits = self._device.extend(sequence.slot, chunk, sequence.num_cached)
        except DeviceError as error:
            output = self._fail(sequence, f"the model's run failed: {error}")
            self._check_device()
            return [output]
        seconds = self._clock() - start
        self._chunks.saw_prefill(seconds, length)
        self.counters.saw_prefill(seconds, length)
        sequence.num_cached += length
        if sequence.num_prompt_left:
            return []
        self._shared_prompts.add(sequence, logits)
        return self._begin_answer(sequence, logits)

    def _prefill_shared(self) -> list[SequenceOutput]:
        """Let those answer, first come, first served, whose prompt is in another one's slot."""
        outputs: list[SequenceOutput] = []
        while self.scheduler.prefilling:
            sequence = self.scheduler.prefilling[0]
            self._carry_out(self.scheduler.open_prefill())
            shared = self._shared_prompts.find(sequence)
            if shared is None:
                break
            self._device.move(shared.slot, sequence.slot, len(sequence.prompt))
            sequence.reuse(len(sequence.prompt), len(sequence.prompt))
            self._shared_prompts.add(sequence, shared.logits)
            outputs += self._begin_answer(sequence, shared.logits)
        return outputs

    def _begin_answer(self, sequence: Sequence, logits: FloatArray) -> list[SequenceOutput]:
        self.counters.saw_prompt(len(sequence.prompt), sequence.num_reused)
        self._carry_out(self.scheduler.promote(sequence))
        return self._take_one(sequence, logits)

    def _take_one(self, sequence: Sequence, logits: FloatArray) -> list[SequenceOutput]:
        """Sample the next token of one sequence from `logits` [V]."""
        picks = self._picker.pick([sequence.wish], logits[None])
        return [self._advance(sequence, picks.tokens[0], picks.told.get(0))]

    def _take(self, batch: DecodeBatch, logits: FloatArray | RemoteLogits) -> list[SequenceOutput]:
        """Sample a token for each sequence from its row of `logits` [n, V]."""
        try:
            tokens, told = self._picker.pick(batch.wishes, logits)
        except DeviceError as error:
            failed = [self._fail(sequence, f"the model's run failed: {error}") for sequence in batch.sequences]
            self._check_device()
            return failed
        batch.move_on(tokens)
        rows = enumerate(zip(batch.sequences, tokens, strict=True))
        return [self._advance(sequence, token, told.get(row)) for row, (sequence, token) in rows]

    def _advance(self, sequence: Sequence, token: int, logprobs: TokenLogprobs | None) -> SequenceOutput:
        if token < 0:
            return self._fail(sequence, "the model's logits are not finite")
        try:
            output = sequence.take(token, logprobs)
            if output.finish_reason is not None:
                self._carry_out(self.scheduler.remove(sequence))
        except Exception:  # one generation's trouble is not its neighbours'
            request = sequence.request
            _logger.exception("sequence %d cannot go on", request.sequence_id, extra=about_origin(request.origin))
            return self._fail(sequence, "the engine could not go on with this generation")
        return output

    def _end(self, sequence: Sequence, reason: FinishReason) -> SequenceOutput:
        self._carry_out(self.scheduler.remove(sequence))
        return sequence.end(reason)

    def _fail(self, sequence: Sequence, error: str) -> SequenceOutput:
        self._carry_out(self.scheduler.remove(sequence, keeps=False))
        return sequence.fail(error)

    def _check_device(self) -> None:
        """After a failed run: see in the spare slot whether the device still runs anything at all."""
        try:
            self._device.extend(self.scheduler.spare_slot(), np.zeros(1, np.int64), 0)
        except DeviceError as error:
            self.failure = f"The device does not run any more: {error}."

    def _carry_out(self, orders: list[Order]) -> None:
        for order in orders:
            match order:
                case Move():
                    self._device.move(order.source, order.target, order.num_tokens)
                case CopyOut():
                    order.sequence.saved = self._device.copy_out(order.source, order.num_tokens)
                case CopyIn():
                    self._device.copy_in(order.target, order.saved)
