"""What Postgres says when it cannot, sorted by what we do about it."""

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tidemill_services.domain.errors import StoreUnavailableError

# serialization_failure, deadlock_detected, and idle_in_transaction_session_timeout: we slept through our turn
_LOST_RACES = ("40001", "40P01", "25P03")
_TOO_SLOW = ("55P03", "57014")  # lock_not_available, query_canceled
_NO_ROOM = "53"  # insufficient_resources
_UNKNOWN = (
    "The database broke off during the commit, so it is unknown whether it was saved: repeat with the same request_id."
)
_BROKEN = ("08", "57P", "58")  # connection, shutdown, system


def lost_race(error: Exception) -> bool:
    """Whether the same transaction may succeed when it runs again."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _LOST_RACES


def store_error(error: Exception, *, committing: bool) -> StoreUnavailableError | None:
    """Return the sentence for an error of the server or the way to it; None for a fault of a statement or a unit."""
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailableError("All connections to the database are busy: try again.")
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    state = original.sqlstate or ""
    sentence = None
    if state.startswith(_NO_ROOM):
        sentence = "The database has no room or no connections left: try again later."
    elif state in _TOO_SLOW or lost_race(error):
        sentence = "The database is too busy: try again."
    elif state.startswith(_BROKEN) or (not state and isinstance(original, psycopg.OperationalError)):
        sentence = _UNKNOWN if committing else "The database cannot be reached, nothing was saved: try again."
    return None if sentence is None else StoreUnavailableError(sentence)
