import re
from pathlib import Path

import pytest

from tidemill_services.domain.errors import FieldInvalidError, StoreUnavailableError
from tidemill_services.domain.generation import FinishReason
from tidemill_services.domain.session import SessionState
from tidemill_services.metrics import Metrics
from tidemill_services.scaler.replicas import PoolCounts

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "metrics.md").read_text()
METHOD = "/tidemill.v1.InferenceService/Generate"


def filled() -> Metrics:
    """All series, with every label."""
    metrics = Metrics()
    metrics.calls.begin(METHOD)
    metrics.calls.end(METHOD, "OK", "", 0.1)
    metrics.http.begin()
    metrics.http.end("/v1/models", 200, "", 0.1)
    metrics.generations.of("tiny").begin()
    metrics.pools.watch(lambda: {"tiny": PoolCounts(1, 2, 3, 4, 5, 6)})
    metrics.sessions.show_open({("tiny", SessionState.ACTIVE): 1})
    return metrics


async def test_every_series_and_nothing_else_stands_in_the_documents_with_its_type_and_labels() -> None:
    ours = {}
    for family in filled().registry.collect():
        if family.name.startswith("tidemill_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            ours[name] = (family.type, labels)
    rows = re.findall(
        r"^\| `(tidemill_\w+)` \| (\w+) \| ([\w, ]*)\|", DOCS.partition("## What one process did")[2], re.MULTILINE
    )
    assert {name: (kind, set(labels.replace(",", " ").split())) for name, kind, labels in rows} == ours


async def test_counters_are_there_at_0_before_anything_happens() -> None:
    metrics = Metrics()
    metrics.generations.of("tiny")
    metrics.sessions.show_open({("tiny", SessionState.PENDING): 0})
    found = {(sample.name, *sample.labels.values()): sample.value for sample in _samples(metrics)}
    assert found["tidemill_requests_total", METHOD, "OK", ""] == 0
    assert found["tidemill_sessions_stopped_total", "tiny", "IDLE"] == 0
    assert found["tidemill_generations_total", "tiny", "length"] == 0
    assert found["tidemill_completion_tokens_total", "tiny"] == 0
    assert found["tidemill_inter_token_seconds_count", "tiny"] == 0


async def test_each_token_after_the_first_is_one_observation_of_the_time_between_tokens() -> None:
    metrics = Metrics()
    gaps = metrics.generations.of("tiny").token_gaps
    gaps.add(0.004, 1)
    gaps.add(0.040, 4)  # together: 10 ms each
    gaps.add(99.0, 1)
    found = {
        (sample.name, sample.labels.get("le", "")): sample.value
        for sample in _samples(metrics)
        if sample.name.startswith("tidemill_inter_token_seconds")
    }
    assert found["tidemill_inter_token_seconds_count", ""] == 6
    assert found["tidemill_inter_token_seconds_sum", ""] == pytest.approx(99.044)
    buckets = {
        le: found["tidemill_inter_token_seconds_bucket", le] for le in ("0.0025", "0.005", "0.01", "10.0", "+Inf")
    }
    assert buckets == {"0.0025": 0, "0.005": 1, "0.01": 5, "10.0": 5, "+Inf": 6}


async def test_only_answers_that_came_to_their_own_end_count_among_the_times_end_to_end() -> None:
    metrics = Metrics()
    of_model = metrics.generations.of("tiny")
    for reason in FinishReason:
        of_model.begin()
        of_model.end(reason, 3, 1.0)
    found = {(sample.name, *sample.labels.values()): sample.value for sample in _samples(metrics)}
    assert found["tidemill_generation_seconds_count", "tiny"] == 2
    assert found["tidemill_completion_tokens_total", "tiny"] == 3 * len(FinishReason)
    assert found["tidemill_running_generations", "tiny"] == 0


async def test_a_unit_of_work_is_measured_whatever_becomes_of_it_and_only_the_stores_own_failure_is_one() -> None:
    metrics = Metrics()
    with metrics.store.unit("write"):
        assert _value(metrics, "tidemill_store_open_units", "write") == 1
    for error in (StoreUnavailableError(), FieldInvalidError("no", field="x")):
        with pytest.raises(type(error)), metrics.store.unit("write"):
            raise error
    assert _value(metrics, "tidemill_store_open_units", "write") == 0
    assert _value(metrics, "tidemill_store_seconds_count", "write") == 3
    assert _value(metrics, "tidemill_store_failures_total", "write") == 1


def _samples(metrics: Metrics):
    return [sample for family in metrics.registry.collect() for sample in family.samples]


def _value(metrics: Metrics, name: str, kind: str) -> float:
    (value,) = (s.value for s in _samples(metrics) if s.name == name and s.labels == {"kind": kind})
    return value
