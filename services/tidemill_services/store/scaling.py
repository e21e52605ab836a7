"""Units of work of the scaler: read the facts, decide by the domain's rules, write what is different."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import delete, insert, select, update

from tidemill_services.domain.model import ModelRecord
from tidemill_services.domain.replica import STARTING_STATES, ReplicaRecord, ReplicaState
from tidemill_services.domain.scaling import (
    HostFacts,
    ModelFacts,
    Placement,
    ScalingPolicy,
    assign,
    desired_replicas,
    is_at_rest,
    is_in_use,
)
from tidemill_services.store.database import Transaction
from tidemill_services.store.demand import Demand, demand_by_model
from tidemill_services.store.hosts import remove_host
from tidemill_services.store.leader import leads
from tidemill_services.store.models import list_models, notify_model
from tidemill_services.store.replicas import list_replicas
from tidemill_services.store.sessions import count_open_by_model
from tidemill_services.store.tables import assignments, hosts, models, of_model

_MAX_USE_NOTE_MS = 30_000  # how exactly the end of a model's use is known


@dataclass(frozen=True, slots=True)
class Plan:
    """What the leader found and would change."""

    facts: tuple[ModelFacts, ...]
    current: Placement
    placement: Placement
    lost_hosts: tuple[str, ...]
    used_models: tuple[str, ...]  # whose use is to be noted
    is_at_rest: bool  # nobody needs anything

    @property
    def changes_anything(self) -> bool:
        """Whether there is something to write."""
        return self.current != self.placement or bool(self.lost_hosts or self.used_models)


def make_plan(tx: Transaction, recently_needed: Mapping[str, int], *, may_lose_hosts: bool) -> Plan:
    """Read the facts and decide.

    `recently_needed` is the leader's memory: the most replicas that each model's demand asked for lately. Without
    `may_lose_hosts` (the leader has not watched for long enough) silent hosts count as alive.
    """
    facts = read_facts(tx, recently_needed)
    host_rows = tx.connection.execute(select(hosts)).all()
    lost = {row.host_id for row in host_rows if may_lose_hosts and row.expire_ms <= tx.now_ms}
    alive = [HostFacts(row.host_id, row.capacity) for row in host_rows if row.host_id not in lost]
    current = read_placement(tx)
    if not may_lose_hosts:
        # A host that has assignments and no record may be about to come back: unknown, so nothing is taken from it.
        known = {host.host_id for host in alive}
        alive += [HostFacts(host_id, 0) for host_id in {host_id for _, host_id in current} - known]
    desires = [desired_replicas(model, tx.now_ms) for model in facts]
    return Plan(
        facts=facts,
        current=current,
        placement=assign(desires, current, alive),
        lost_hosts=tuple(sorted(lost)),
        used_models=tuple(model.model for model in facts if _use_is_to_be_noted(model, tx.now_ms)),
        is_at_rest=all(is_at_rest(model, tx.now_ms) for model in facts),
    )


def carry_out_plan(
    tx: Transaction, process_id: str, epoch: int, recently_needed: Mapping[str, int], *, may_lose_hosts: bool
) -> bool:
    """Decide again on what is true in this transaction, and write it; False, and nothing, when another one leads."""
    if not leads(tx, process_id, epoch):
        return False
    plan = make_plan(tx, recently_needed, may_lose_hosts=may_lose_hosts)
    for host_id in plan.lost_hosts:
        remove_host(tx, host_id)
    if plan.used_models:
        used = models.c.name.in_(plan.used_models)
        tx.connection.execute(update(models).where(used).values(last_used_ms=tx.now_ms))
    _write_placement(tx, plan, epoch)
    return True


def read_facts(tx: Transaction, recently_needed: Mapping[str, int]) -> tuple[ModelFacts, ...]:
    """Return what is known of each model, by name."""
    demand = demand_by_model(tx)
    open_sessions = count_open_by_model(tx)
    replicas = list_replicas(tx)
    num_assigned = _num_assigned(read_placement(tx))
    return tuple(
        model_facts(
            record,
            demand=demand.get(record.name, Demand()),
            open_sessions=open_sessions.get(record.name, 0),
            replicas=[replica for replica in replicas if replica.model == record.name],
            num_assigned=num_assigned.get(record.name, 0),
            num_recently_needed=recently_needed.get(record.name, 0),
        )
        for record in list_models(tx)
    )


def model_facts(
    record: ModelRecord,
    *,
    demand: Demand,
    open_sessions: int,
    replicas: list[ReplicaRecord],
    num_assigned: int,
    num_recently_needed: int = 0,
) -> ModelFacts:
    """Put together what is known of one model."""
    ready = (replica.ready_ms for replica in replicas if replica.state is ReplicaState.READY)
    return ModelFacts(
        model=record.name,
        policy=ScalingPolicy.from_manifest(record.manifest_json),
        num_running=demand.num_running,
        num_waiting=demand.num_waiting,
        open_sessions=open_sessions,
        wanted_ms=record.wanted_ms,
        last_used_ms=record.last_used_ms,
        num_starting=sum(replica.state in STARTING_STATES for replica in replicas),
        ready_ms=max((ready_ms for ready_ms in ready if ready_ms is not None), default=None),
        num_assigned=num_assigned,
        failed_starts=record.failed_starts,
        retry_ms=record.retry_ms,
        num_recently_needed=num_recently_needed,
    )


def read_placement(tx: Transaction, model: str | None = None) -> Placement:
    """Return how many replicas of which model, of all or one, each host has to run."""
    rows = tx.connection.execute(select(assignments).where(of_model(assignments, model)))
    return {(row.model, row.host_id): row.replicas for row in rows}


def _num_assigned(placement: Placement) -> dict[str, int]:
    num_assigned: dict[str, int] = {}
    for (model, _), replicas in placement.items():
        num_assigned[model] = num_assigned.get(model, 0) + replicas
    return num_assigned


def _use_is_to_be_noted(facts: ModelFacts, now_ms: int) -> bool:
    """Whether a model is in use and its record does not say so closely enough."""
    exactness_ms = min(_MAX_USE_NOTE_MS, facts.policy.idle_timeout_ms // 10)
    return is_in_use(facts, now_ms) and (facts.last_used_ms is None or facts.last_used_ms + exactness_ms <= now_ms)


def _write_placement(tx: Transaction, plan: Plan, epoch: int) -> None:
    """Write the rows that differ; what stays keeps the epoch in which it was decided."""
    for model, host_id in plan.current.keys() | plan.placement.keys():
        replicas = plan.placement.get((model, host_id), 0)
        if replicas == plan.current.get((model, host_id), 0):
            continue
        row = (assignments.c.model == model) & (assignments.c.host_id == host_id)
        tx.connection.execute(delete(assignments).where(row))
        if replicas:
            tx.connection.execute(
                insert(assignments).values(model=model, host_id=host_id, replicas=replicas, epoch=epoch)
            )
        notify_model(tx, model)
