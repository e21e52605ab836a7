"""Units of work on the one lease that says which control process decides."""

from sqlalchemy import insert, select, update

from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import leader

LEADER_LEASE_MS = 6_000


def renew_leadership(tx: Transaction, process_id: str) -> int | None:
    """Take the lease when it is free or ours, until `LEADER_LEASE_MS` from now; None when another process has it.

    A process that is called `HOST.LIFE` takes over at once from an earlier life of its host. Returns the epoch, which
    grows with each change of the holder.
    """
    expire_ms = tx.now_ms + LEADER_LEASE_MS
    row = tx.connection.execute(select(leader)).one_or_none()
    if row is None:
        tx.connection.execute(insert(leader).values(only=1, holder=process_id, expire_ms=expire_ms, epoch=1))
        return 1
    if row.holder != process_id and tx.now_ms < row.expire_ms and not _is_other_life(row.holder, process_id):
        return None
    epoch: int = row.epoch if row.holder == process_id else row.epoch + 1
    tx.connection.execute(update(leader).values(holder=process_id, expire_ms=expire_ms, epoch=epoch))
    return epoch


def leads(tx: Transaction, process_id: str, epoch: int) -> bool:
    """Whether the process still is the leader of that epoch."""
    return leading_epoch(tx, process_id) == epoch


def leading_epoch(tx: Transaction, process_id: str) -> int | None:
    """Return the epoch in which the process leads now; None when it does not."""
    row = tx.connection.execute(select(leader)).one_or_none()
    if row is None or row.holder != process_id or tx.now_ms >= row.expire_ms:
        return None
    return int(row.epoch)


def release_leadership(tx: Transaction, process_id: str) -> None:
    """Let another process lead at once."""
    tx.connection.execute(update(leader).where(leader.c.holder == process_id).values(expire_ms=tx.now_ms))


def _is_other_life(process_id: str, other: str) -> bool:
    host = process_id.rpartition(".")[0]
    return bool(host) and host == other.rpartition(".")[0]
