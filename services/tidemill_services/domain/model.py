"""A model: a registered thing that can be served, and where it is in its life."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from tidemill_services.domain.replica import STARTING_STATES, ReplicaRecord, ReplicaState


class ModelState(StrEnum):
    """Where a model is in its life."""

    STOPPED = "STOPPED"  # at rest: no replica, no cost
    QUEUED = "QUEUED"  # wanted; waits for a place on a host, or for the next try after a failed start
    STARTING = "STARTING"  # a replica is starting
    READY = "READY"  # at least one replica answers
    DRAINING = "DRAINING"  # finishes what runs, takes nothing new
    FAILED = "FAILED"  # could not be started


class StartPhase(StrEnum):
    """What a starting replica is doing, in this order."""

    LAUNCHING = "LAUNCHING"
    LOADING = "LOADING"
    WARMING = "WARMING"


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """A model as the store knows it. Times are milliseconds since 1970."""

    name: str
    digest: str  # of its manifest, 64 hex digits
    manifest_json: str
    package_path: str
    create_ms: int
    wanted_ms: int | None  # the last StartModel; None: never, or stopped since
    last_used_ms: int | None  # None: never, or stopped since
    failed_starts: int  # in a row
    failure: str | None  # why the last start failed
    retry_ms: int | None  # not to be started before

    @property
    def is_stopped(self) -> bool:
        """Whether it was stopped, or never used."""
        return self.wanted_ms is None and self.last_used_ms is None


@dataclass(frozen=True, slots=True)
class ModelView:
    """All that a caller may see of a model."""

    record: ModelRecord
    state: ModelState
    phase: StartPhase | None  # of the replica that is nearest to ready, while the model starts
    progress: float  # 0 to 1 within the whole start
    time_to_ready_ms: int | None  # from the last starts; None when there were none, or it is ready
    failure: str  # why the last start failed; empty when it did not
    retry_ms: int | None  # when a failed start is tried again
    ready_replicas: int
    open_sessions: int
    demand: int  # generations that run or wait

    @property
    def name(self) -> str:
        """The model's name."""
        return self.record.name


@dataclass(frozen=True, slots=True)
class ModelSituation:
    """What surrounds a model's record when it is looked at."""

    replicas: Sequence[ReplicaRecord] = ()
    num_assigned: int = 0
    is_needed: bool = False  # whether it should be up now
    open_sessions: int = 0
    demand: int = 0
    start_durations_ms: Sequence[int] = ()  # of the last starts


def view_model(record: ModelRecord, situation: ModelSituation, max_tries: int, now_ms: int) -> ModelView:
    """Derive what a caller may see. `max_tries` starts that failed in a row make a model FAILED."""
    state = _state(record, situation, max_tries, now_ms)
    foremost = _foremost_starting(situation.replicas) if state is ModelState.STARTING else None
    has_failed = record.failure is not None and state is not ModelState.READY
    return ModelView(
        record=record,
        state=state,
        phase=StartPhase(foremost.state) if foremost else None,
        progress=foremost.progress if foremost else float(state is ModelState.READY),
        time_to_ready_ms=_time_to_ready_ms(state, foremost, situation.start_durations_ms, now_ms),
        failure=record.failure or "" if has_failed else "",
        retry_ms=record.retry_ms if has_failed else None,
        ready_replicas=sum(replica.state is ReplicaState.READY for replica in situation.replicas),
        open_sessions=situation.open_sessions,
        demand=situation.demand,
    )


def _state(record: ModelRecord, situation: ModelSituation, max_tries: int, now_ms: int) -> ModelState:
    states = {replica.state for replica in situation.replicas}
    rests = record.retry_ms is not None and now_ms < record.retry_ms
    if ReplicaState.READY in states and situation.num_assigned:
        return ModelState.READY
    if states.intersection(STARTING_STATES) and situation.num_assigned:
        return ModelState.STARTING
    if record.failed_starts >= max_tries and rests:
        return ModelState.FAILED
    if situation.is_needed:
        return ModelState.QUEUED
    return ModelState.DRAINING if states else ModelState.STOPPED


def _foremost_starting(replicas: Sequence[ReplicaRecord]) -> ReplicaRecord | None:
    starting = [replica for replica in replicas if replica.state in STARTING_STATES]
    return max(starting, key=lambda replica: (STARTING_STATES.index(replica.state), replica.progress), default=None)


def _time_to_ready_ms(
    state: ModelState, foremost: ReplicaRecord | None, start_durations_ms: Sequence[int], now_ms: int
) -> int | None:
    if state is ModelState.READY or not start_durations_ms:
        return None
    elapsed_ms = now_ms - foremost.create_ms if foremost else 0
    return max(0, int(median(start_durations_ms)) - elapsed_ms)
