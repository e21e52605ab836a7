"""What Postgres says when it cannot, sorted by what we do about it."""

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store.backend import Moment

# serialization_failure, deadlock_detected, and idle_in_transaction_session_timeout: we slept through our turn
_LOST_RACES = ("40001", "40P01", "25P03")
_TOO_SLOW = ("55P03", "57014")  # lock_not_available, query_canceled
_DISK_FULL = "53100"
_NO_ROOM = "53"  # insufficient_resources
# read_only_sql_transaction, and feature_not_supported: a standby refuses to be SERIALIZABLE
_NO_WRITES = ("25006", "0A000")
_UNKNOWN = (
    "The database broke off during the commit, so it is unknown whether it was saved: repeat with the same request_id."
)
_BROKEN = ("08", "57P", "58")  # connection, shutdown, system


def lost_race(error: Exception) -> bool:
    """Whether the same transaction may succeed when it runs again."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _LOST_RACES


def takes_no_writes(error: BaseException) -> bool:
    """Whether a server refused a writing transaction as a standby does."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _NO_WRITES


def store_error(error: Exception, moment: Moment) -> StoreUnavailableError | None:
    """Return the sentence for an error of the server or the way to it; None for a fault of a statement or a unit."""
    if isinstance(error, PoolTimeoutError):
        return StoreUnavailableError("All connections to the database are busy: try again.")
    original = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(original, psycopg.Error):
        return None
    state = original.sqlstate or ""
    sentence = None
    if state == _DISK_FULL:
        sentence = "The database's disk is full, nothing was saved: free some space, then try again."
    elif state.startswith(_NO_ROOM):
        sentence = "The database has no room or no connections left: try again later."
    elif state in _TOO_SLOW or lost_race(error):
        sentence = "The database is too busy: try again."
    elif takes_no_writes(original):
        # A reading transaction is read-only by our own will: a unit that writes in it is a fault.
        sentence = None if moment is Moment.READING else "The database takes no writes now: try again."
    elif state.startswith(_BROKEN) or _has_no_connection(error):
        sentence = (
            _UNKNOWN if moment is Moment.COMMITTING else "The database cannot be reached, nothing was saved: try again."
        )
    return None if sentence is None else StoreUnavailableError(sentence)


def _has_no_connection(error: Exception) -> bool:
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    original = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(original, psycopg.OperationalError) and not original.sqlstate
