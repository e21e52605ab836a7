"""What is counted of generations, by model. Their buckets follow those that other servers of language models have."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tidemill_services.domain.generation import FinishReason

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


class TokenGaps:
    """How many times between tokens were how long, for one model.

    There is one for each token, so they are counted here by the event loop alone, and no lock is taken.
    """

    __slots__ = ("_counts", "_seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(_GAP_SECONDS) + 1)
        self._seconds = 0.0

    def add(self, seconds: float, num_tokens: int) -> None:
        """So many tokens came together, this long after the one before: each took its share of the time."""
        self._counts[bisect_left(_GAP_SECONDS, seconds / num_tokens)] += num_tokens
        self._seconds += seconds

    def show(self, family: HistogramMetricFamily, model: str) -> None:
        """Add the model's series."""
        bounds = (*map(floatToGoString, _GAP_SECONDS), "+Inf")
        family.add_metric([model], list(zip(bounds, accumulate(self._counts), strict=True)), self._seconds)


class Families:
    """What there is of each model."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, sentence: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(name, sentence, _LABELS, buckets=buckets, registry=registry)

        self.ended = Counter(
            "tidemill_generations",
            "Generations that ended, by model and finish reason.",
            ["model", "finish_reason"],
            registry=registry,
        )
        self.running = Gauge(
            "tidemill_running_generations", "Generations that wait or run.", _LABELS, registry=registry
        )
        self.prompt_tokens = Counter("tidemill_prompt_tokens", "Tokens of prompts.", _LABELS, registry=registry)
        self.cached_prompt_tokens = Counter(
            "tidemill_cached_prompt_tokens",
            "Tokens of prompts that had been computed before.",
            _LABELS,
            registry=registry,
        )
        self.completion_tokens = Counter(
            "tidemill_completion_tokens", "Tokens that models made.", _LABELS, registry=registry
        )
        self.queue_seconds = histogram(
            "tidemill_queue_seconds",
            "Time from a generation's arrival until a replica took it, cold start included.",
            _QUEUE_SECONDS,
        )
        self.first_text_seconds = histogram(
            "tidemill_time_to_first_token_seconds",
            "Time from a generation's arrival to its first text.",
            _FIRST_TEXT_SECONDS,
        )
        self.whole_seconds = histogram(
            "tidemill_generation_seconds",
            "Time from a generation's arrival to its end, of answers that came to their own end.",
            _WHOLE_SECONDS,
        )


class ModelMetrics:
    """The series of one model, so that a generation looks each of them up once."""

    def __init__(self, families: Families, model: str) -> None:
        self.token_gaps = TokenGaps()
        self._ended = {reason: families.ended.labels(model, reason) for reason in FinishReason}
        self._running = families.running.labels(model)
        self._prompt_tokens = families.prompt_tokens.labels(model)
        self._cached_prompt_tokens = families.cached_prompt_tokens.labels(model)
        self._completion_tokens = families.completion_tokens.labels(model)
        self._queue_seconds = families.queue_seconds.labels(model)
        self._first_text_seconds = families.first_text_seconds.labels(model)
        self._whole_seconds = families.whole_seconds.labels(model)

    def begin(self) -> None:
        """A generation has come."""
        self._running.inc()

    def taken(self, queue_seconds: float, num_prompt_tokens: int) -> None:
        """A replica took one, after so long."""
        self._queue_seconds.observe(queue_seconds)
        self._prompt_tokens.inc(num_prompt_tokens)

    def said_first(self, seconds: float) -> None:
        """The first text of one came, this long after its arrival."""
        self._first_text_seconds.observe(seconds)

    def end(self, reason: FinishReason, num_tokens: int, seconds: float, num_cached_prompt_tokens: int = 0) -> None:
        """One is over, with so many tokens made, this long after its arrival."""
        self._running.dec()
        self._ended[reason].inc()
        self._completion_tokens.inc(num_tokens)
        self._cached_prompt_tokens.inc(num_cached_prompt_tokens)
        if reason in _WHOLE_ANSWERS:
            self._whole_seconds.observe(seconds)


class GenerationMetrics(Collector):
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
        registry.register(self)

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

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The times between tokens of all models."""
        family = HistogramMetricFamily(
            "tidemill_inter_token_seconds",
            "Time from a token to the next one of its generation; what came together shares its time.",
            labels=["model"],
        )
        for model, series in self._models.items():
            series.token_gaps.show(family, model)
        yield family
