"""A unit of work that counts sessions, for the metrics."""

from collections.abc import Mapping

from sqlalchemy import func, select

from tidemill_services.domain.session import SessionState
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import models, sessions

OpenSessions = Mapping[tuple[str, SessionState], int]
"""How many sessions are open, by model and state."""


def count_open_sessions(tx: Transaction) -> OpenSessions:
    """Count those that are pending and active, of every registered model, also where there are none."""
    names = tx.connection.execute(select(models.c.name).order_by(models.c.name)).scalars()
    counts = {(name, state): 0 for name in names for state in (SessionState.PENDING, SessionState.ACTIVE)}
    query = select(sessions.c.model, sessions.c.state, func.count().label("num_open"))
    query = query.where(sessions.c.end_ms.is_(None)).group_by(sessions.c.model, sessions.c.state)
    for row in tx.connection.execute(query):
        counts[row.model, SessionState(row.state)] = row.num_open
    return counts
