"""Units of work on replicas. The clocks of a model's sessions run while it has a READY one, in the same transaction."""

from collections.abc import Mapping

from sqlalchemy import delete, exists, insert, literal, select, update

from tidemill_services.domain.replica import ReplicaRecord, ReplicaState
from tidemill_services.domain.scaling import StartPolicy
from tidemill_services.store.database import Transaction
from tidemill_services.store.models import notify_model, record_failed_start, record_good_start
from tidemill_services.store.sessions import model_became_ready, model_was_lost
from tidemill_services.store.tables import assignments, model_starts, of_model, replicas

_NUM_STARTS = 10  # kept of each model, from which the next one is estimated


def register_replica(tx: Transaction, *, replica_id: str, model: str, host_id: str, epoch: int) -> bool:
    """Enter a replica that is about to be launched for an assignment; False when the assignment is no longer that."""
    assignment = select(
        literal(replica_id),
        assignments.c.model,
        assignments.c.host_id,
        assignments.c.epoch,
        literal(ReplicaState.LAUNCHING.value),
        literal(0.0),
        literal(""),
        literal(tx.now_ms),
    ).where(assignments.c.model == model, assignments.c.host_id == host_id, assignments.c.epoch == epoch)
    columns = ["replica_id", "model", "host_id", "epoch", "state", "progress", "detail", "create_ms"]
    entered = insert(replicas).from_select(columns, assignment).returning(replicas.c.replica_id)
    if tx.connection.execute(entered).one_or_none() is None:
        return False
    notify_model(tx, model)
    return True


def update_replica(
    tx: Transaction,
    replica_id: str,
    *,
    state: ReplicaState,
    progress: float,
    detail: str,
    address: str,
    silent_ms: int = 0,
) -> bool:
    """Note how a replica is; False when its record was taken away, and it must end.

    READY starts the clocks of the waiting sessions; leaving READY as the last one stops them, as of when it last showed
    life, `silent_ms` ago.
    """
    before = _find(tx, replica_id)
    if before is None:
        return False
    became_ready = state is ReplicaState.READY and before.ready_ms is None
    tx.connection.execute(
        update(replicas)
        .where(replicas.c.replica_id == replica_id)
        .values(
            state=state.value,
            progress=progress,
            detail=detail,
            address=address,
            ready_ms=tx.now_ms if became_ready else before.ready_ms,
        )
    )
    if became_ready:
        _record_start(tx, before)
    if state is ReplicaState.READY and before.state is not ReplicaState.READY:
        model_became_ready(tx, before.model)
    elif before.state is ReplicaState.READY and state is not ReplicaState.READY:
        _stop_clocks_without_ready(tx, before.model, lost_ms=tx.now_ms - silent_ms)
    notify_model(tx, before.model)
    return True


def remove_replica(
    tx: Transaction, replica_id: str, *, failure: str = "", start_policy: StartPolicy | None = None
) -> None:
    """Forget a replica that has ended; `failure` says why it could not be started. Repeats change nothing."""
    before = _find(tx, replica_id)
    if before is None:
        return
    tx.connection.execute(delete(replicas).where(replicas.c.replica_id == replica_id))
    if before.state is ReplicaState.READY:
        _stop_clocks_without_ready(tx, before.model)
    if failure:
        record_failed_start(tx, before.model, failure, start_policy or StartPolicy())
    notify_model(tx, before.model)


def remove_replicas_of_host(tx: Transaction, host_id: str, *, lost_ms: int | None) -> int:
    """Forget the replicas of a host that has ended; `lost_ms` is its last sign of life. Returns how many there were."""
    lost = [record for record in list_replicas(tx) if record.host_id == host_id]
    tx.connection.execute(delete(replicas).where(replicas.c.host_id == host_id))
    for record in lost:
        if record.state is ReplicaState.READY:
            _stop_clocks_without_ready(tx, record.model, lost_ms=lost_ms)
        notify_model(tx, record.model)
    return len(lost)


def list_replicas(tx: Transaction, model: str | None = None) -> tuple[ReplicaRecord, ...]:
    """Return all replicas, or those of one model, oldest first."""
    query = select(replicas).where(of_model(replicas, model)).order_by(replicas.c.create_ms, replicas.c.replica_id)
    return tuple(
        ReplicaRecord(**{**row._mapping, "state": ReplicaState(row.state)})  # noqa: SLF001 -- a row's public mapping
        for row in tx.connection.execute(query)
    )


def start_durations_ms(tx: Transaction, model: str | None = None) -> Mapping[str, tuple[int, ...]]:
    """Return how long the last starts of each model, or of one, took; models that never started are left out."""
    starts = select(model_starts.c.model, model_starts.c.duration_ms).where(of_model(model_starts, model))
    durations: dict[str, tuple[int, ...]] = {}
    for row in tx.connection.execute(starts):
        durations[row.model] = (*durations.get(row.model, ()), row.duration_ms)
    return durations


def _find(tx: Transaction, replica_id: str) -> ReplicaRecord | None:
    row = tx.connection.execute(select(replicas).where(replicas.c.replica_id == replica_id)).one_or_none()
    if row is None:
        return None
    return ReplicaRecord(**{**row._mapping, "state": ReplicaState(row.state)})  # noqa: SLF001 -- a row's public mapping


def _record_start(tx: Transaction, record: ReplicaRecord) -> None:
    tx.connection.execute(
        insert(model_starts).values(
            replica_id=record.replica_id,
            model=record.model,
            duration_ms=tx.now_ms - record.create_ms,
            ready_ms=tx.now_ms,
        )
    )
    of_this_model = model_starts.c.model == record.model
    newest_first = (model_starts.c.ready_ms.desc(), model_starts.c.replica_id.desc())
    kept = select(model_starts.c.replica_id).where(of_this_model).order_by(*newest_first).limit(_NUM_STARTS)
    tx.connection.execute(delete(model_starts).where(of_this_model, model_starts.c.replica_id.not_in(kept)))
    record_good_start(tx, record.model)


def _stop_clocks_without_ready(tx: Transaction, model: str, *, lost_ms: int | None = None) -> None:
    is_ready = exists().where(replicas.c.model == model, replicas.c.state == ReplicaState.READY.value)
    if not tx.connection.execute(select(is_ready)).scalar_one():
        model_was_lost(tx, model, lost_ms=lost_ms)
