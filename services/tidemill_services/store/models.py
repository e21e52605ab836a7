"""Units of work on models: what is registered, wanted, and how its starts went."""

from sqlalchemy import Row, delete, insert, select, update

from tidemill_services.domain.errors import ModelInUseError, ModelNotFoundError
from tidemill_services.domain.model import ModelRecord
from tidemill_services.domain.scaling import STOP_REST_MS, StartPolicy
from tidemill_services.store.database import Transaction
from tidemill_services.store.sessions import count_open_by_model
from tidemill_services.store.tables import assignments, models
from tidemill_services.store.topics import MODELS, model_topic

_NO_FAILURE = {"failed_starts": 0, "failure": None, "retry_ms": None}


def register_model(tx: Transaction, *, name: str, digest: str, manifest_json: str, package_path: str) -> bool:
    """Make a model known, or note that its package changed; running replicas go on with what they loaded.

    Returns whether anything changed. A changed package forgives earlier failures.
    """
    row = tx.connection.execute(select(models).where(models.c.name == name)).one_or_none()
    if row is None:
        tx.connection.execute(
            insert(models).values(
                name=name,
                digest=digest,
                manifest=manifest_json,
                package_path=package_path,
                create_ms=tx.now_ms,
                failed_starts=0,
            )
        )
    elif (row.digest, row.package_path) != (digest, package_path):
        tx.connection.execute(
            update(models)
            .where(models.c.name == name)
            .values(digest=digest, manifest=manifest_json, package_path=package_path, **_NO_FAILURE)
        )
    else:
        return False
    notify_model(tx, name)
    return True


def get_model(tx: Transaction, name: str) -> ModelRecord:
    """Return a model. Raises ModelNotFoundError."""
    row = tx.connection.execute(select(models).where(models.c.name == name)).one_or_none()
    if row is None:
        raise ModelNotFoundError(f"No model {name!r} is registered: `tidemill model list` shows what is.")
    return model_record(row)


def list_models(tx: Transaction) -> tuple[ModelRecord, ...]:
    """Return all models by name."""
    return tuple(model_record(row) for row in tx.connection.execute(select(models).order_by(models.c.name)))


def want_model(tx: Transaction, name: str) -> None:
    """Wake a model, or keep it up for some minutes more; a failed one is tried at once. Raises ModelNotFoundError."""
    get_model(tx, name)
    tx.connection.execute(update(models).where(models.c.name == name).values(wanted_ms=tx.now_ms, **_NO_FAILURE))
    notify_model(tx, name)


def stop_model(tx: Transaction, name: str, *, force: bool = False) -> None:
    """Put a model to rest: what runs may finish, a start is cancelled. Repeats change nothing.

    Without `force` a model with open sessions, of whatever account, is refused. Who forces stops the sessions in the
    same transaction, before. Raises ModelNotFoundError, ModelInUseError.
    """
    get_model(tx, name)
    num_open = count_open_by_model(tx, name).get(name, 0)
    if num_open and not force:
        sessions = "1 open session" if num_open == 1 else f"{num_open} open sessions"
        raise ModelInUseError(f"{name} has {sessions}: stop them first, or have an administrator force it.")
    rest = {**_NO_FAILURE, "retry_ms": tx.now_ms + STOP_REST_MS}
    tx.connection.execute(update(models).where(models.c.name == name).values(wanted_ms=None, last_used_ms=None, **rest))
    # The leader would decide the same; so the hosts need not wait for it.
    tx.connection.execute(delete(assignments).where(assignments.c.model == name))
    notify_model(tx, name)


def record_failed_start(tx: Transaction, name: str, failure: str, policy: StartPolicy) -> None:
    """Note that a replica could not be started, and when the next try may be."""
    failed_starts = get_model(tx, name).failed_starts + 1
    tx.connection.execute(
        update(models)
        .where(models.c.name == name)
        .values(
            failed_starts=failed_starts,
            failure=failure,
            retry_ms=tx.now_ms + policy.retry_delay_ms(failed_starts),
        )
    )
    notify_model(tx, name)


def record_good_start(tx: Transaction, name: str) -> None:
    """Forgive earlier failures."""
    tx.connection.execute(update(models).where(models.c.name == name).values(**_NO_FAILURE))


def notify_model(tx: Transaction, name: str) -> None:
    """Wake whoever watches this model, or all."""
    tx.notify(MODELS)
    tx.notify(model_topic(name))


def model_record(row: Row[tuple[object, ...]]) -> ModelRecord:
    """A row of the table as a record."""
    return ModelRecord(
        name=row.name,
        digest=row.digest,
        manifest_json=row.manifest,
        package_path=row.package_path,
        create_ms=row.create_ms,
        wanted_ms=row.wanted_ms,
        last_used_ms=row.last_used_ms,
        failed_starts=row.failed_starts,
        failure=row.failure,
        retry_ms=row.retry_ms,
    )
