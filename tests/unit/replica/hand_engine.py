"""An engine that a test moves by hand: it makes what the test says, when the test says."""

import time

from tidemill_serving.engine import (
    EngineBusyError,
    EngineListener,
    EngineStats,
    FinishReason,
    GenerationRequest,
    Load,
    Phase,
    SequenceOutput,
    Step,
)


class HandEngine:
    """Implements `Engine`; its listener is called from whatever thread the test runs in."""

    def __init__(self, num_places: int = 100) -> None:
        self.num_places = num_places
        self.requests: dict[int, GenerationRequest] = {}  # running, by the engine's id
        self.aborted: list[int] = []
        self.responsive = True
        self.lived_at = time.monotonic()
        self.closed = False
        self.num_free_tokens = 1000
        self._num_steps = 0

    def start(self, listener: EngineListener) -> None:
        self.listener = listener

    def submit(self, request: GenerationRequest) -> None:
        if len(self.requests) >= self.num_places:
            raise EngineBusyError("full")
        self.requests[request.sequence_id] = request

    def abort(self, sequence_id: int) -> None:
        if sequence_id in self.requests:
            self.aborted.append(sequence_id)

    def load(self) -> Load:
        return Load(len(self.requests), 0, self.num_places, self.num_free_tokens)

    def stats(self) -> EngineStats:
        return EngineStats(token_budget=1000, num_held_tokens=1000 - self.num_free_tokens)

    def is_responsive(self) -> bool:
        return self.responsive

    def last_life(self) -> float:
        return self.lived_at

    def close(self) -> None:
        self.closed = True

    # What a test does with it.

    def become(self, phase: Phase, progress: float = 1.0, detail: str = "") -> None:
        self.listener.on_phase(phase, progress, detail)

    def step(self, *outputs: SequenceOutput) -> None:
        """One step that made `outputs`."""
        self._num_steps += 1
        for output in outputs:
            if output.finish_reason is not None:
                self.requests.pop(output.sequence_id, None)
        self.listener.on_step(Step(self._num_steps, outputs, self.load()))

    def make(self, text: str, *sequence_ids: int) -> None:
        """One step that made one token with `text` for each of these, or for all that run."""
        chosen = sequence_ids or tuple(self.requests)
        self.step(*(SequenceOutput(sequence_id, text, (7,)) for sequence_id in chosen))

    def finish(self, sequence_id: int, reason: FinishReason = FinishReason.STOP) -> None:
        """One step that ended a sequence."""
        self.step(SequenceOutput(sequence_id, finish_reason=reason, num_prompt_tokens=3, num_completion_tokens=5))
