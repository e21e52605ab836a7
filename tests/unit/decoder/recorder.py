"""What the engine's tests share: a listener that remembers, a model without files, a loop without a thread."""

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

from tidemill_models.text_stream import TextStream
from tidemill_serving.decoder.admission import Admission
from tidemill_serving.decoder.chunks import ChunkPolicy
from tidemill_serving.decoder.devices.device import Device
from tidemill_serving.decoder.loop import DecoderLoop
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.scheduler import Scheduler
from tidemill_serving.decoder.sequence import Limits
from tidemill_serving.engine import GenerationRequest, Phase, Sampling, SequenceOutput, Step

VOCAB_SIZE = 512
EOS = 2
LIMITS = Limits(context_length=128, eos_token_ids=frozenset({EOS}))
LETTERS = [bytes([ord("a") + token % 26]) for token in range(VOCAB_SIZE)]


def open_letters(prompt: Sequence[int] = ()) -> TextStream:
    """Every token is one letter."""
    return TextStream(LETTERS, strips_leading_space=False)


def letters(tokens: Sequence[int]) -> str:
    return "".join(LETTERS[token].decode() for token in tokens)


def request(
    sequence_id: int, prompt: Sequence[int] = (5, 6, 7), max_tokens: int = 8, **fields: object
) -> GenerationRequest:
    return GenerationRequest(sequence_id, prompt, max_tokens, **fields)  # type: ignore[arg-type]


def letter_model(limits: Limits = LIMITS) -> DecoderModel:
    """A model for the fake device, which reads no graph."""
    return DecoderModel(Path("no-graph"), limits, open_letters)


class Recorder:
    """Remembers all that an engine says; wait for what is expected."""

    def __init__(self) -> None:
        self.phases: list[tuple[Phase, float, str]] = []
        self.steps: list[Step] = []
        self.tokens: dict[int, list[int]] = {}
        self.texts: dict[int, str] = {}
        self.ends: dict[int, SequenceOutput] = {}
        self.on_output: Callable[[SequenceOutput], None] = lambda output: None
        self._changed = threading.Condition()

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        with self._changed:
            self.phases.append((phase, progress, detail))
            self._changed.notify_all()

    def on_step(self, step: Step) -> None:
        with self._changed:
            self.steps.append(step)
            for output in step.outputs:
                self.note(output)
            self._changed.notify_all()
        for output in step.outputs:
            self.on_output(output)

    def note(self, output: SequenceOutput) -> None:
        assert output.sequence_id not in self.ends, "nothing comes after the end"
        self.tokens.setdefault(output.sequence_id, []).extend(output.token_ids)
        self.texts[output.sequence_id] = self.texts.get(output.sequence_id, "") + output.text
        if output.finish_reason is not None:
            self.ends[output.sequence_id] = output

    def wait_until(self, condition: Callable[[], bool], timeout: timedelta = timedelta(seconds=30)) -> None:
        with self._changed:
            assert self._changed.wait_for(condition, timeout.total_seconds()), "it did not come to pass in time"

    def wait_until_settled(self) -> Phase:
        """Wait until the engine is READY or FAILED."""
        self.wait_until(lambda: bool(self.phases) and self.phases[-1][0] in {Phase.READY, Phase.FAILED})
        return self.phases[-1][0]

    def wait_for_ends(self, *sequence_ids: int) -> None:
        self.wait_until(lambda: set(sequence_ids) <= set(self.ends))


class LoopRig:
    """A DecoderLoop with its parts, stepped by hand on a clock that a test moves."""

    def __init__(
        self,
        device: Device,
        *,
        num_slots: int = 4,
        token_budget: int | None = None,
        num_cache_slots: int = 3,
        prefix_cache: bool = True,
        headroom: int = 64,
        max_chunk_length: int = 16,
        limits: Limits = LIMITS,
        graph: Path = Path("no-graph"),
    ) -> None:
        budget = token_budget or num_slots * limits.context_length
        vocab_size = device.load(
            graph,
            num_slots=num_slots + 1 + num_cache_slots,
            context_length=limits.context_length,
            on_progress=lambda progress: None,
        )
        self.now = 0.0
        self.recorder = Recorder()
        self.scheduler = Scheduler(
            num_slots=num_slots, token_budget=budget, num_cache_slots=num_cache_slots, headroom=headroom
        )
        chunks = ChunkPolicy(inter_token_budget_s=0.05, max_chunk_length=max_chunk_length)
        self.loop = DecoderLoop(device, self.scheduler, chunks, clock=lambda: self.now)
        self.admission = Admission(limits, vocab_size, budget, open_letters, prefix_cache=prefix_cache)

    def add(self, sequence_id: int, prompt: Sequence[int] = (5, 6, 7), max_tokens: int = 8, **fields: object) -> None:
        self.scheduler.add(self.admission.make_sequence(request(sequence_id, prompt, max_tokens, **fields)))

    def step(self, *cancelled: int) -> list[SequenceOutput]:
        outputs = self.loop.step(cancelled)
        for output in outputs:
            self.recorder.note(output)
        return outputs

    def run(self, max_steps: int = 2000) -> None:
        """Step until nothing is left."""
        for _ in range(max_steps):
            if not self.scheduler.has_work:
                return
            self.step()
        raise AssertionError("work was left")


def hot(seed: int | None, temperature: float = 1.0, **fields: float) -> Sampling:
    """Sampling with chance in it."""
    return Sampling(temperature=temperature, seed=seed, **fields)  # type: ignore[arg-type]
