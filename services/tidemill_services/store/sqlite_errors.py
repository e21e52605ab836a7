"""What SQLite and the file system say when they cannot, in the words of the catalogue."""

import errno
import sqlite3

from sqlalchemy.exc import DBAPIError

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.store.backend import Moment

_LOCKED = "The database is locked by another program: close what else has it open, then try again."
_SENTENCES = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_CANTOPEN: "The database file cannot be opened: check that its folder exists and may be written.",
    sqlite3.SQLITE_CORRUPT: "The database file is damaged: stop the server and restore it from a backup.",
    sqlite3.SQLITE_FULL: "The disk is full, nothing was saved: free some space, then try again.",
    sqlite3.SQLITE_IOERR: "The disk failed while the database was read or written: check it, then try again.",
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_NOMEM: "There was no memory for the database's work: try again.",
    sqlite3.SQLITE_NOTADB: "The database file is not a SQLite database: give another path, or move that file away.",
    sqlite3.SQLITE_PERM: "The database file may not be accessed: check its owner and rights.",
    sqlite3.SQLITE_PROTOCOL: _LOCKED,
    sqlite3.SQLITE_READONLY: "The database file may not be written: check its rights, its folder's and the disk's.",
}


def store_error(error: Exception, moment: Moment) -> StoreUnavailableError | None:
    """Return the sentence for an error of the database itself; None for a fault of a statement or a unit."""
    original = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(original, OSError) and original.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreUnavailableError(_SENTENCES[sqlite3.SQLITE_FULL])
    if not isinstance(original, sqlite3.Error):
        return None
    code = getattr(original, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_READONLY and moment is Moment.READING:
        return (
            None  # our own `query_only`: a unit that writes where it may only read; the file's state has longer codes
        )
    sentence = _SENTENCES.get(code & 0xFF)
    return None if sentence is None else StoreUnavailableError(sentence)
