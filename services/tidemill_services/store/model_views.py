"""Units of work that read all that a caller may see of models, on one snapshot."""

from tidemill_services.domain.model import ModelRecord, ModelSituation, ModelView, view_model
from tidemill_services.domain.scaling import StartPolicy, desired_replicas
from tidemill_services.store.database import Transaction
from tidemill_services.store.demand import Demand, demand_by_model
from tidemill_services.store.models import get_model, list_models
from tidemill_services.store.replicas import list_replicas, start_durations_ms
from tidemill_services.store.scaling import model_facts, read_placement
from tidemill_services.store.sessions import count_open_by_model


def list_model_views(tx: Transaction, start_policy: StartPolicy | None = None) -> tuple[ModelView, ...]:
    """Return every model as callers see it, by name."""
    return _views(tx, list_models(tx), None, start_policy or StartPolicy())


def get_model_view(tx: Transaction, name: str, start_policy: StartPolicy | None = None) -> ModelView:
    """Return one model as callers see it, and read nothing of the others. Raises ModelNotFoundError."""
    (view,) = _views(tx, (get_model(tx, name),), name, start_policy or StartPolicy())
    return view


def _views(
    tx: Transaction, records: tuple[ModelRecord, ...], model: str | None, policy: StartPolicy
) -> tuple[ModelView, ...]:
    """The views of these records: those of all models, or that of the one named."""
    demand = demand_by_model(tx, model)
    open_sessions = count_open_by_model(tx, model)
    durations_ms = start_durations_ms(tx, model)
    all_replicas = list_replicas(tx, model)
    placement = read_placement(tx, model)
    views = []
    for record in records:
        replicas = [replica for replica in all_replicas if replica.model == record.name]
        facts = model_facts(
            record,
            demand=demand.get(record.name, Demand()),
            open_sessions=open_sessions.get(record.name, 0),
            replicas=replicas,
            num_assigned=sum(number for (name, _), number in placement.items() if name == record.name),
        )
        situation = ModelSituation(
            replicas=replicas,
            num_assigned=facts.num_assigned,
            is_needed=desired_replicas(facts, tx.now_ms).replicas > 0,
            open_sessions=facts.open_sessions,
            demand=facts.num_running + facts.num_waiting,
            start_durations_ms=durations_ms.get(record.name, ()),
        )
        views.append(view_model(record, situation, policy.max_tries, tx.now_ms))
    return tuple(views)
