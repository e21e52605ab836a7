"""Units of work on hosts: control processes with a launcher, and what the leader assigned to them."""

from dataclasses import dataclass

from sqlalchemy import delete, func, insert, select, update

from tidemill_services.domain.scaling import ScalingPolicy
from tidemill_services.store.database import Transaction
from tidemill_services.store.replicas import remove_replicas_of_host
from tidemill_services.store.session_activity import forget_process
from tidemill_services.store.tables import assignments, demand, hosts, models, replicas
from tidemill_services.store.topics import MODELS

HOST_LEASE_MS = 10_000  # a host that gave no sign of life for so long is lost


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a host shall run of one model."""

    model: str
    replicas: int
    epoch: int
    package_path: str
    slots: int  # generations that one replica runs at once
    may_start: bool  # False while the last failed start rests


def renew_host(tx: Transaction, host_id: str, capacity: int) -> None:
    """Give a sign of life."""
    values = {"capacity": capacity, "expire_ms": tx.now_ms + HOST_LEASE_MS}
    before = tx.connection.execute(select(hosts).where(hosts.c.host_id == host_id)).one_or_none()
    if before is None:
        tx.connection.execute(insert(hosts).values(host_id=host_id, **values))
    else:
        tx.connection.execute(update(hosts).where(hosts.c.host_id == host_id).values(**values))
    if before is None or before.capacity != capacity:
        tx.notify(MODELS)


def remove_host(tx: Transaction, host_id: str) -> int:
    """Forget a host and all that ended with it: its replicas, its assignments, what its process ran.

    Returns how many replicas there were.

    Called when a host ends, when one is lost, and at the start of one that finds traces of its former life.
    """
    expire_ms = tx.connection.execute(select(hosts.c.expire_ms).where(hosts.c.host_id == host_id)).scalar_one_or_none()
    lost_ms = None if expire_ms is None else expire_ms - HOST_LEASE_MS
    tx.connection.execute(delete(hosts).where(hosts.c.host_id == host_id))
    tx.connection.execute(delete(assignments).where(assignments.c.host_id == host_id))
    of_its_lives = demand.c.process_id.startswith(f"{host_id}.", autoescape=True)
    tx.connection.execute(delete(demand).where(of_its_lives))
    forget_process(tx, f"{host_id}.")
    tx.notify(MODELS)
    return remove_replicas_of_host(tx, host_id, lost_ms=lost_ms)


def count_live_hosts(tx: Transaction) -> int:
    """Return how many hosts gave a sign of life lately."""
    query = select(func.count()).select_from(hosts).where(hosts.c.expire_ms > tx.now_ms)
    return tx.connection.execute(query).scalar_one()


def replicas_of_host(tx: Transaction, host_id: str) -> frozenset[str]:
    """Return the ids of the replicas that the store knows on a host."""
    query = select(replicas.c.replica_id).where(replicas.c.host_id == host_id)
    return frozenset(tx.connection.execute(query).scalars())


def assignments_of_host(tx: Transaction, host_id: str) -> tuple[Assignment, ...]:
    """Return what a host shall run, by model."""
    query = (
        select(assignments, models.c.package_path, models.c.manifest, models.c.failed_starts, models.c.retry_ms)
        .join(models, models.c.name == assignments.c.model)
        .where(assignments.c.host_id == host_id)
        .order_by(assignments.c.model)
    )
    return tuple(
        Assignment(
            model=row.model,
            replicas=row.replicas,
            epoch=row.epoch,
            package_path=row.package_path,
            slots=ScalingPolicy.from_manifest(row.manifest).slots,
            may_start=not row.failed_starts or row.retry_ms <= tx.now_ms,
        )
        for row in tx.connection.execute(query)
    )
