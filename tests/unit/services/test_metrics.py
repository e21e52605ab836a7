import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily

from tidemill_services.domain.errors import FieldInvalidError, StoreUnavailableError
from tidemill_services.domain.generation import FinishReason
from tidemill_services.domain.session import SessionState
from tidemill_services.engine_client import ReplicaStats
from tidemill_services.gateway.health import admin_application
from tidemill_services.metrics import Metrics
from tidemill_services.metrics.billing import LedgerTotals
from tidemill_services.metrics.tallies import Tallies, TimesFamily
from tidemill_services.store.ledger_seal import Totals

METHOD = "/tidemill.v1.InferenceService/Generate"


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


async def test_what_an_ended_replica_did_stays_counted_and_a_new_one_adds_to_it() -> None:
    metrics, replicas = Metrics(), {"one": ReplicaStats(num_decode_runs=5, num_held_tokens=9)}
    metrics.engines.watch(lambda: {"tiny": replicas})

    def shown(name: str) -> float:
        return next(sample.value for sample in _samples(metrics) if sample.name == name)

    assert shown("tidemill_engine_runs_total") == 5
    replicas["one"] = ReplicaStats(num_decode_runs=7)
    assert shown("tidemill_engine_runs_total") == 7
    assert shown("tidemill_engine_held_tokens") == 0
    del replicas["one"]
    assert shown("tidemill_engine_runs_total") == 7
    replicas["two"] = ReplicaStats(num_decode_runs=2)
    assert shown("tidemill_engine_runs_total") == 9


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


def test_a_time_as_long_as_a_bucket_is_in_it_and_labels_that_were_never_asked_for_are_not_shown() -> None:
    registry = CollectorRegistry()
    family = TimesFamily("waits_seconds", "Waits.", ("of",), (0.5, 2), registry)
    for seconds in (0.5, 0.6, 2, 2.1):
        family.of("tea").add(seconds)
    Tallies(CounterMetricFamily, "cups", "Cups.", ("of",), registry).of("tea").value += 3
    samples = [sample for shown in registry.collect() for sample in shown.samples]
    assert {(sample.name, *sample.labels.values()): sample.value for sample in samples} == {
        ("waits_seconds_bucket", "tea", "0.5"): 1,
        ("waits_seconds_bucket", "tea", "2.0"): 3,
        ("waits_seconds_bucket", "tea", "+Inf"): 4,
        ("waits_seconds_count", "tea"): 4,
        ("waits_seconds_sum", "tea"): pytest.approx(5.2),
        ("cups_total", "tea"): 3,
    }


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


@pytest.fixture
def totals() -> LedgerTotals:
    return LedgerTotals(
        7,
        {
            ("herons", "", "GRANT"): Totals(amount_microcredits=5_000),
            ("herons", "tiny", "HOLD"): Totals(hold_microcredits=900),
            ("herons", "tiny", "SESSION_CHARGE"): Totals(-300, -300, billed_seconds=3),
            ("herons", "tiny", "REFUND"): Totals(100, billed_seconds=-1),
            ("herons", "tiny", "TOKEN_CHARGE"): Totals(-20),
            ("herons", "", "CORRECTION"): Totals(-1),
            ("newcomer", "tiny", "HOLD"): Totals(hold_microcredits=10),
        },
        2,
    )


def test_the_page_of_the_ledger_shows_charges_refunds_and_what_accounts_have(totals: LedgerTotals) -> None:
    found = {
        (s.name.removeprefix("tidemill_"), *s.labels.values()): s.value for f in totals.collect() for s in f.samples
    }
    assert found == {
        ("ledger_block",): 7,
        ("ledger_unsealed_entries",): 2,
        ("session_billed_seconds_total", "herons", "tiny"): 3,
        ("session_billed_seconds_total", "newcomer", "tiny"): 0,
        ("charged_microcredits_total", "herons", "tiny", "SESSION_CHARGE"): 300,
        ("charged_microcredits_total", "herons", "tiny", "TOKEN_CHARGE"): 20,
        ("charged_microcredits_total", "newcomer", "tiny", "SESSION_CHARGE"): 0,
        ("refunded_microcredits_total", "herons", "tiny"): 100,
        ("refunded_microcredits_total", "newcomer", "tiny"): 0,
        ("session_refunded_seconds_total", "herons", "tiny"): 1,
        ("session_refunded_seconds_total", "newcomer", "tiny"): 0,
        ("granted_microcredits_total", "herons"): 5_000,
        ("granted_microcredits_total", "newcomer"): 0,
        ("balance_microcredits", "herons"): 5_000 - 300 + 100 - 20 - 1,
        ("balance_microcredits", "newcomer"): 0,
        ("held_microcredits", "herons"): 600,
        ("held_microcredits", "newcomer"): 10,
    }


async def test_without_the_store_there_is_no_page_of_the_ledger_rather_than_an_old_one() -> None:
    async def read() -> bytes:
        raise StoreUnavailableError

    pages = admin_application({"/metrics/billing": read}, lambda: True, dict)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=pages), base_url="http://mill") as client:
        response = await client.get("/metrics/billing")
    assert response.status_code == 503
    assert "tidemill_" not in response.text
