"""The decoder engine: one thread that loads a model and then steps whenever there is work."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np

from tidemill_models.errors import ModelPackageError
from tidemill_serving.decoder.admission import Admission, RequestRefusedError
from tidemill_serving.decoder.chunks import SHORTEST_CHUNK, ChunkPolicy
from tidemill_serving.decoder.devices.device import Device, DeviceError, ModelRefusedError
from tidemill_serving.decoder.heartbeat import Heartbeat
from tidemill_serving.decoder.loop import DecoderLoop
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.scheduler import Scheduler
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import (
    EngineBusyError,
    EngineListener,
    EngineStats,
    EngineStoppedError,
    FinishReason,
    GenerationRequest,
    Load,
    Phase,
    SequenceOutput,
    Step,
)
from tidemill_telemetry.logs import about_origin

IDLE_BEAT_S = 1.0  # an idle engine shows life this often
STATS_S = 0.25  # a working one counts together what it did so often
CLOSE_PATIENCE_S = 10.0
LOADED_PROGRESS = 0.8  # share of a start that loading takes; warming is the rest
WARM_LENGTH = SHORTEST_CHUNK  # tokens of the prompt that is run before the first caller's
WARM_ROWS = 2  # one more would show no more
NOTHING_NEW: "tuple[list[GenerationRequest], set[int], bool]" = ([], set(), False)  # nobody changes it

_logger = logging.getLogger(__name__)


class DecoderEngine:
    """See `Engine`. Sequence ids must be unique among the generations that have not ended (else ValueError)."""

    def __init__(
        self,
        model: DecoderModel,
        device: Device,
        settings: DecoderSettings,
        on_idle: Callable[[Scheduler], None] = lambda scheduler: None,
    ) -> None:
        """`on_idle` is called in the engine's thread whenever it runs out of work."""
        self._model = model
        self._device = device
        self._settings = settings
        self._token_budget = settings.token_budget or settings.num_slots * model.limits.context_length
        self._scheduler = Scheduler(
            num_slots=settings.num_slots,
            token_budget=self._token_budget,
            num_cache_slots=settings.num_kept_slots,
        )
        self._chunks = ChunkPolicy(
            inter_token_budget_s=settings.inter_token_budget.total_seconds(),
            max_chunk_length=settings.max_chunk_length,
        )
        self._on_idle = on_idle
        self._loop = DecoderLoop(device, self._scheduler, self._chunks, num_threads=settings.threads())
        self._heartbeat = Heartbeat()
        self._thread = threading.Thread(target=self._live, name="tidemill-engine", daemon=True)
        self._num_steps = 0
        self._next_count = 0.0
        # All below is shared between threads and guarded by `_changed`.
        self._changed = threading.Condition()
        self._inbox: list[GenerationRequest] = []
        self._cancelled: set[int] = set()
        self._unfinished: set[int] = set()
        self._load = self._scheduler.load()
        self._stats = self._loop.stats()
        self._is_closing = False
        self._failure = ""

    def start(self, listener: EngineListener) -> None:
        """Load and warm the model in the engine's own thread, then step whenever there is work."""
        self._listener = listener
        self._heartbeat.begin("load")
        self._thread.start()

    def submit(self, request: GenerationRequest) -> None:
        """Take a generation in. Raises EngineBusyError and EngineStoppedError."""
        with self._changed:
            if self._is_closing or self._failure:
                raise EngineStoppedError(self._failure or "The engine is closed.")
            if request.sequence_id in self._unfinished:
                raise ValueError(f"sequence_id {request.sequence_id} is in use")
            if len(self._unfinished) >= self._settings.num_slots + self._settings.num_waiting_places:
                raise EngineBusyError(f"{len(self._unfinished)} generations are running or waiting")
            self._unfinished.add(request.sequence_id)
            self._inbox.append(request)
            self._changed.notify()

    def abort(self, sequence_id: int) -> None:
        """End a generation within one step, with CANCELLED. Unknown and finished ids are ignored."""
        with self._changed:
            if sequence_id in self._unfinished:
                self._cancelled.add(sequence_id)
                self._changed.notify()

    def load(self) -> Load:
        """How busy the engine is now."""
        with self._changed:
            return replace(self._load, num_waiting=len(self._unfinished) - self._load.num_running)

    def stats(self) -> EngineStats:
        """What it has done, up to a moment ago."""
        with self._changed:
            return self._stats

    def is_responsive(self) -> bool:
        """Whether the engine's thread lives and what it does has not taken too long."""
        is_alive = self._thread.ident is None or self._thread.is_alive()  # it has not begun, or not ended
        return is_alive and self._heartbeat.is_fresh()

    def last_life(self) -> float:
        """When the engine's thread began what it does."""
        return self._heartbeat.last_beat()

    def close(self) -> None:
        """Abort what runs, end the thread, free the model. Returns when the thread has ended (at most 10 s)."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(CLOSE_PATIENCE_S)

    # From here on: the engine's thread.

    def _live(self) -> None:
        try:
            self._admission = self._start_model()
            self._work()
        except ModelRefusedError as error:
            self._fail(f"The model cannot be served: {error}.")
        except Exception as error:
            _logger.exception("the engine's thread failed")
            self._fail(f"The engine failed: {type(error).__name__}: {error}.")
        finally:
            self._device.close()

    def _start_model(self) -> Admission:
        """Load and warm the model. Raises ModelRefusedError."""
        self._tell(Phase.LOADING, 0.0, "The graph is loaded.")
        vocab_size = self._device.load(
            self._model.graph,
            num_slots=self._settings.num_slots + 1 + self._settings.num_kept_slots,
            context_length=self._model.limits.context_length,
            on_progress=lambda progress: self._tell(Phase.LOADING, LOADED_PROGRESS * progress, "The graph is loaded."),
        )
        self._tell(Phase.WARMING, LOADED_PROGRESS, "The first runs are made.")
        self._warm()
        self._await_text()
        self._tell(Phase.READY, 1.0, "The engine takes generations.")
        return Admission(
            self._model.limits,
            vocab_size,
            self._token_budget,
            self._model.open_text,
            prefix_cache=self._settings.prefix_cache,
            shares_prefixes=self._model.shares_prefixes,
        )

    def _warm(self) -> None:
        """See that the model runs, alone and in a batch, and how fast, so that the first chunks start out right.

        It is as little as shows that: later shapes cost the first caller of each no more than any other.
        """
        length = min(WARM_LENGTH, self._model.limits.context_length - 1)
        num_rows = min(WARM_ROWS, self._settings.num_slots)
        try:
            self._device.decode(np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64))  # reads all weights
            start = time.monotonic()
            self._device.extend(0, np.zeros(length, np.int64), 0)
        except DeviceError as error:
            raise ModelRefusedError(f"its first run failed: {error}") from error
        self._chunks.saw_prefill(time.monotonic() - start, length)
        # Callers' prompts come in longer pieces than this, and the first of those must not be taken for a wedge.
        self._heartbeat.expect("prefill", self._chunks.longest_chunk_s)

    def _await_text(self) -> None:
        """Wait until tokens can become text. Raises ModelRefusedError."""
        try:
            self._model.open_text(())
        except ModelPackageError as error:
            raise ModelRefusedError(str(error)) from error

    def _work(self) -> None:
        while True:
            requests, cancelled, is_closing = self._take_inbox()
            outputs = self._admit(requests)
            if is_closing:
                self._publish(outputs + self._loop.cancel_all())
                return
            self._heartbeat.begin("prefill" if self._scheduler.will_prefill else "decode")
            self._publish(outputs + self._loop.step(cancelled))
            if self._loop.failure:
                self._fail(self._loop.failure)
                return
            if not self._scheduler.has_work:
                self._on_idle(self._scheduler)

    def _take_inbox(self) -> tuple[list[GenerationRequest], set[int], bool]:
        """Everything that came in; waits while there is nothing to do at all."""
        is_news = self._inbox or self._cancelled or self._is_closing  # what comes right after it is seen a step later
        if not is_news and self._scheduler.has_work:
            return NOTHING_NEW
        with self._changed:
            while not (self._inbox or self._cancelled or self._is_closing or self._scheduler.has_work):
                self._heartbeat.begin("idle")
                self._changed.wait(IDLE_BEAT_S)
            taken = self._inbox, self._cancelled, self._is_closing
            self._inbox, self._cancelled = [], set()
            return taken

    def _admit(self, requests: Iterable[GenerationRequest]) -> list[SequenceOutput]:
        """Put the requests that can run among the waiting; returns the ends of the others."""
        refused = []
        for request in requests:
            try:
                self._scheduler.add(self._admission.make_sequence(request))
            except RequestRefusedError as error:
                refused.append(_error_output(request, str(error)))
            except Exception:  # one caller's request is not the others' end
                _logger.exception(
                    "sequence %d cannot be taken in", request.sequence_id, extra=about_origin(request.origin)
                )
                refused.append(_error_output(request, "the engine could not take this generation in"))
        return refused

    def _publish(self, outputs: list[SequenceOutput]) -> None:
        """Hand out a step's outputs and the load after it, if there is news."""
        load, before = self._scheduler.load(), self._load
        self._count()
        ended = [output.sequence_id for output in outputs if output.finish_reason is not None]
        if ended or load.num_running != before.num_running:
            with self._changed:
                self._load = load
                self._unfinished.difference_update(ended)
        else:
            self._load = load  # of itself it goes with who is unfinished
        if not outputs and load == before:
            return
        self._num_steps += 1
        try:
            self._listener.on_step(Step(self._num_steps, tuple(outputs), load))
        except Exception:
            _logger.exception("the listener failed")

    def _count(self) -> None:
        """Let others see what was done."""
        now = time.monotonic()
        if now >= self._next_count or not self._scheduler.has_work:
            self._next_count = now + STATS_S
            stats = self._loop.stats()
            with self._changed:
                self._stats = stats

    def _fail(self, sentence: str) -> None:
        """Take nothing more, end what is here, and say why."""
        with self._changed:
            self._failure = sentence
            stranded, self._inbox = self._inbox, []
        self._publish([_error_output(request, sentence) for request in stranded] + self._loop.fail_all(sentence))
        self._tell(Phase.FAILED, 0.0, sentence)

    def _tell(self, phase: Phase, progress: float, detail: str) -> None:
        try:
            self._listener.on_phase(phase, progress, detail)
        except Exception:
            _logger.exception("the listener failed")


def _error_output(request: GenerationRequest, error: str) -> SequenceOutput:
    return SequenceOutput(
        sequence_id=request.sequence_id,
        finish_reason=FinishReason.ERROR,
        error=error,
        num_prompt_tokens=len(request.prompt_tokens),
    )
