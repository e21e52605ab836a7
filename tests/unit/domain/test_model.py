"""What a caller sees of a model, derived from its record and its replicas."""

from dataclasses import replace

import pytest

from tidemill_services.domain.model import ModelRecord, ModelSituation, ModelState, StartPhase, view_model
from tidemill_services.domain.replica import ReplicaRecord, ReplicaState

NOW = 1_000_000
RECORD = ModelRecord("tide", "0" * 64, "{}", "/tide", 0, None, None, 0, None, None)
FAILED = replace(RECORD, failed_starts=3, failure="broken", retry_ms=NOW + 60_000)


def replica(state: ReplicaState, progress: float = 0.0, age_ms: int = 500) -> ReplicaRecord:
    return ReplicaRecord("r", "tide", "host", 1, "a:1", state, progress, "", NOW - age_ms, None)


def situation(*replicas: ReplicaRecord, num_assigned: int = 1, is_needed: bool = True) -> ModelSituation:
    return ModelSituation(replicas, num_assigned, is_needed)


@pytest.mark.parametrize(
    ("record", "seen", "state"),
    [
        pytest.param(RECORD, situation(num_assigned=0, is_needed=False), ModelState.STOPPED, id="nothing"),
        pytest.param(RECORD, situation(num_assigned=0), ModelState.QUEUED, id="needed, no place"),
        pytest.param(RECORD, situation(), ModelState.QUEUED, id="needed, not launched yet"),
        pytest.param(RECORD, situation(replica(ReplicaState.LOADING)), ModelState.STARTING, id="starting"),
        pytest.param(
            RECORD,
            situation(replica(ReplicaState.LOADING), replica(ReplicaState.READY)),
            ModelState.READY,
            id="one is ready",
        ),
        pytest.param(
            RECORD,
            situation(replica(ReplicaState.READY), num_assigned=0, is_needed=False),
            ModelState.DRAINING,
            id="stopped a moment ago",
        ),
        pytest.param(
            RECORD, situation(replica(ReplicaState.DRAINING), is_needed=False), ModelState.DRAINING, id="draining"
        ),
        pytest.param(
            RECORD, situation(replica(ReplicaState.DRAINING)), ModelState.QUEUED, id="draining, and needed again"
        ),
        pytest.param(FAILED, situation(), ModelState.FAILED, id="failed"),
        pytest.param(replace(FAILED, failed_starts=2), situation(), ModelState.QUEUED, id="it will be tried again"),
        pytest.param(
            replace(FAILED, retry_ms=NOW), situation(is_needed=False), ModelState.STOPPED, id="failed long ago"
        ),
        pytest.param(FAILED, situation(replica(ReplicaState.WARMING)), ModelState.STARTING, id="tried again"),
    ],
)
def test_the_state_follows_from_the_replicas_and_the_need(record, seen, state):
    assert view_model(record, seen, 3, NOW).state is state


def test_the_phase_and_progress_are_those_of_the_replica_nearest_to_ready():
    seen = situation(
        replica(ReplicaState.LOADING, 0.7), replica(ReplicaState.WARMING, 0.8), replica(ReplicaState.LAUNCHING)
    )
    view = view_model(RECORD, seen, 3, NOW)
    assert (view.phase, view.progress) == (StartPhase.WARMING, 0.8)


@pytest.mark.parametrize(
    ("durations_ms", "age_ms", "time_to_ready_ms"), [((), 0, None), ((900, 1_000, 9_000), 400, 600), ((900,), 5_000, 0)]
)
def test_the_time_to_ready_comes_from_the_last_starts(durations_ms, age_ms, time_to_ready_ms):
    seen = replace(situation(replica(ReplicaState.LOADING, age_ms=age_ms)), start_durations_ms=durations_ms)
    assert view_model(RECORD, seen, 3, NOW).time_to_ready_ms == time_to_ready_ms


def test_a_ready_model_shows_no_old_failure_and_a_failed_one_shows_when_it_is_tried_again():
    failed = view_model(FAILED, situation(), 3, NOW)
    assert (failed.failure, failed.retry_ms, failed.progress) == ("broken", NOW + 60_000, 0.0)
    ready = view_model(replace(FAILED, failed_starts=1), situation(replica(ReplicaState.READY)), 3, NOW)
    assert (ready.failure, ready.retry_ms, ready.progress, ready.time_to_ready_ms) == ("", None, 1.0, None)
