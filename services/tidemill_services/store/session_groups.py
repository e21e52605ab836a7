"""What happens to many sessions at once: each changes by itself, so that none keeps the others."""

import logging
from collections.abc import Callable, Iterable

from tidemill_services.domain.errors import TidemillError
from tidemill_services.domain.session import Session
from tidemill_services.store import session_rows
from tidemill_services.store.database import Transaction

logger = logging.getLogger(__name__)

FAULT_REST_MS = 60_000  # before a session that cannot be settled, a fault of ours, is looked at again


def change_each(
    tx: Transaction,
    found: Iterable[Session],
    change: Callable[[Session], Session],
    *,
    unsettled: Callable[[Session], Session] = lambda session: session,
) -> list[Session]:
    """Change sessions with what that costs, and write them; return those that could be, as they are then.

    One that cannot be settled rests: what `unsettled` makes of it is written, nothing of it is charged, and it is
    looked at again later.
    """
    changed = []
    for session in found:
        try:
            with tx.connection.begin_nested():
                changed.append(change(session))
        except TidemillError:
            logger.exception("the session %s cannot be settled; the others go on without it", session.session_id)
            session_rows.save_unsettled(tx, unsettled(session), look_ms=tx.now_ms + FAULT_REST_MS)
    return changed
