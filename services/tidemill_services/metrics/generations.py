"""What is counted of generations, by model. Their buckets follow those that other servers of language models have."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from tidemill_services.domain.generation import FinishReason
from tidemill_services.metrics.tallies import Tallies, TimesFamily

_QUEUE_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_FIRST_TEXT_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640),
)
_GAP_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1, 2.5, 10),
)
_WHOLE_SECONDS = (*(0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920),)
_LABELS = ("model",)
_WHOLE_ANSWERS = (FinishReason.STOP, FinishReason.LENGTH)


class Families:
    """What there is of each model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, sentence: str, labels: Sequence[str] = _LABELS) -> Tallies:
            return Tallies(CounterMetricFamily, name, sentence, labels, registry)

        def times(name: str, sentence: str, bounds: Sequence[float]) -> TimesFamily:
            return TimesFamily(name, sentence, _LABELS, bounds, registry)

        self.ended = counter(
            "tidemill_generations",
            "Generations that ended, by model and finish reason.",
            ("model", "finish_reason"),
        )
        self.running = Tallies(
            GaugeMetricFamily, "tidemill_running_generations", "Generations that wait or run.", _LABELS, registry
        )
        self.prompt_tokens = counter("tidemill_prompt_tokens", "Tokens of prompts.")
        self.cached_prompt_tokens = counter(
            "tidemill_cached_prompt_tokens", "Tokens of prompts that had been computed before."
        )
        self.completion_tokens = counter("tidemill_completion_tokens", "Tokens that models made.")
        self.queue_seconds = times(
            "tidemill_queue_seconds",
            "Time from a generation's arrival until a replica took it, cold start included.",
            _QUEUE_SECONDS,
        )
        self.first_text_seconds = times(
            "tidemill_time_to_first_token_seconds",
            "Time from a generation's arrival to its first text.",
            _FIRST_TEXT_SECONDS,
        )
        self.token_gaps = times(
            "tidemill_inter_token_seconds",
            "Time from a token to the next one of its generation; what came together shares its time.",
            _GAP_SECONDS,
        )
        self.whole_seconds = times(
            "tidemill_generation_seconds",
            "Time from a generation's arrival to its end, of answers that came to their own end.",
            _WHOLE_SECONDS,
        )


class ModelMetrics:
    """The series of one model, so that a generation looks each of them up once."""

    def __init__(self, families: Families, model: str) -> None:
        self.token_gaps = families.token_gaps.of(model)
        self._ended = {reason: families.ended.of(model, reason) for reason in FinishReason}
        self._running = families.running.of(model)
        self._prompt_tokens = families.prompt_tokens.of(model)
        self._cached_prompt_tokens = families.cached_prompt_tokens.of(model)
        self._completion_tokens = families.completion_tokens.of(model)
        self._queue_seconds = families.queue_seconds.of(model)
        self._first_text_seconds = families.first_text_seconds.of(model)
        self._whole_seconds = families.whole_seconds.of(model)

    def begin(self) -> None:
        """A generation has come."""
        self._running.value += 1

    def taken(self, queue_seconds: float, num_prompt_tokens: int) -> None:
        """A replica took one, after so long."""
        self._queue_seconds.add(queue_seconds)
        self._prompt_tokens.value += num_prompt_tokens

    def said_first(self, seconds: float) -> None:
        """The first text of one came, this long after its arrival."""
        self._first_text_seconds.add(seconds)

    def end(self, reason: FinishReason, num_tokens: int, seconds: float, num_cached_prompt_tokens: int = 0) -> None:
        """One is over, with so many tokens made, this long after its arrival."""
        self._running.value -= 1
        self._ended[reason].value += 1
        self._completion_tokens.value += num_tokens
        self._cached_prompt_tokens.value += num_cached_prompt_tokens
        if reason in _WHOLE_ANSWERS:
            self._whole_seconds.add(seconds)


class GenerationMetrics:
    """All generations of this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._families = Families(registry)
        self._attached_calls = Counter(
            "tidemill_attached_calls",
            "Calls that attached to a generation that another call had begun.",
            registry=registry,
        )
        self._resumable = Gauge(
            "tidemill_resumable_generations",
            "Generations with a request id that wait, run, or ended within the last minute.",
            registry=registry,
        )
        self._models: dict[str, ModelMetrics] = {}

    def of(self, model: str) -> ModelMetrics:
        """The series of a registered model, which are there, at 0, from now on."""
        found = self._models.get(model)
        if found is None:
            found = self._models[model] = ModelMetrics(self._families, model)
        return found

    def attached(self) -> None:
        """A call attached to a generation that runs or ran."""
        self._attached_calls.inc()

    def watch_resumable(self, count: Callable[[], int]) -> None:
        """Show how many can be attached to, counted when it is asked for."""
        self._resumable.set_function(count)
