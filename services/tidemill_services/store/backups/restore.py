"""Fills an empty database from a backup: all of it or nothing, in one transaction."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Table, delete, insert, update
from sqlalchemy.exc import DataError, IntegrityError

from tidemill_services.domain.errors import BackupUnknownError, CannotStartError
from tidemill_services.store import migrations
from tidemill_services.store.backend import Backend
from tidemill_services.store.backups.afterlife import Afterlife, end_what_lived
from tidemill_services.store.backups.dump import Backup, backed_up_tables
from tidemill_services.store.backups.files import old_file
from tidemill_services.store.backups.format import BackupReader, Header, Row
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import clock

_NUM_ROWS_AT_ONCE = 500
_NUM_BYTES_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored, and what came of what lived in it."""

    backup: Backup
    afterlife: Afterlife


def restore(backend: Backend, path: Path, *, keep_sessions: bool = False) -> Restored:
    """Read a whole backup into a database without rows. An older schema is restored as it was, then migrated.

    Raises BackupUnknownError, BackupDamagedError, and CannotStartError for a database that is not empty or in use.
    """
    backup = check_backup(path)
    backend.take()
    with backend.whole_change() as connection, old_file(path) as file:
        _make_room(connection, backup.header)
        _fill(connection, backup.header, BackupReader(file).rows())
        migrations.upgrade(connection)
        connection.execute(update(clock).values(high_water_ms=backup.header.time_ms))
        afterlife = end_what_lived(Transaction(connection, backup.header.time_ms), keep_sessions=keep_sessions)
    return Restored(backup, afterlife)


def check_backup(path: Path) -> Backup:
    """Read a whole backup, and find that it can be restored. Raises BackupUnknownError, BackupDamagedError."""
    with old_file(path) as file:
        reader = BackupReader(file)
        totals = reader.check()  # before anything of it is believed
        header = reader.header
    if header.revision not in {revision.name for revision in migrations.history()}:
        raise BackupUnknownError(
            f"The backup has the schema {header.revision}, and this version of Tidemill knows it up to "
            f"{migrations.newest_revision()}: take a newer one."
        )
    expected = {table.name: tuple(table.columns.keys()) for table in backed_up_tables(header.revision)}
    if header.tables != expected:
        raise BackupUnknownError(f"The backup has other tables than the schema {header.revision}, which it names.")
    return Backup(header, totals)


def _make_room(connection: Connection, header: Header) -> None:
    """Bring an empty database to the backup's revision. Raises CannotStartError for one that has rows."""
    current = migrations.current_revision(connection)
    schema = migrations.schema_at(current)
    filled = [
        table.name
        for table in schema.tables
        if table.name not in schema.seeded and migrations.has_rows(connection, table)
    ]
    if filled:
        raise CannotStartError(
            f"The database is not empty ({', '.join(filled)} have rows), and a backup is restored into an empty one "
            "only: name another --data-dir or --database."
        )
    if current is not None:
        migrations.downgrade(connection, "base")
    migrations.upgrade(connection, header.revision)


def _fill(connection: Connection, header: Header, rows: Iterable[Row]) -> None:
    tables = {table.name: table for table in backed_up_tables(header.revision)}
    for name in migrations.schema_at(header.revision).seeded & tables.keys():
        connection.execute(delete(tables[name]))
    for batch in _batches(rows):
        _insert(connection, tables[batch[0].table], batch)


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows of one table each, as many as are inserted at once."""
    batch, num_bytes = list[Row](), 0
    for row in rows:
        is_full = len(batch) == _NUM_ROWS_AT_ONCE or num_bytes > _NUM_BYTES_AT_ONCE
        if batch and (is_full or row.table != batch[0].table):
            yield batch
            batch, num_bytes = [], 0
        batch.append(row)
        num_bytes += row.num_bytes
    if batch:
        yield batch


def _insert(connection: Connection, table: Table, rows: Sequence[Row]) -> None:
    columns = table.columns.keys()
    values = [dict(zip(columns, row.values, strict=True)) for row in rows]
    try:
        connection.execute(insert(table), values)
    except (IntegrityError, DataError) as error:
        raise CannotStartError(f"A row of {table.name} has no place in this database: {error.orig}") from error
