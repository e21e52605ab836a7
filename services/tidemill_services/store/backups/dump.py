"""Writes a backup: one snapshot of all rows, beside a server that goes on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Select, String, Table, select

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store import migrations
from tidemill_services.store.backend import Backend
from tidemill_services.store.backups.files import new_file
from tidemill_services.store.backups.format import BackupWriter, Header, Totals

# Of all tables only these are not backed up: they are worth nothing to a server that starts later.
LEFT_OUT = {
    "assignments": "what the leader wants where; a new one decides anew",
    "clock": "its mark is the backup's time",
    "demand": "what processes count this moment",
    "leader": "a lease of seconds",
    "limit_slices": "leases of seconds",
}
_NUM_ROWS_AT_ONCE = 64  # held in memory


@dataclass(frozen=True, slots=True)
class Backup:
    """What a file holds."""

    header: Header
    totals: Totals


def back_up(backend: Backend, path: Path, *, overwrite: bool = False) -> Backup:
    """Write all rows into a file; memory does not grow with their number. Raises CannotStartError."""
    with backend.snapshot() as connection:
        revision = migrations.current_revision(connection)
        if revision is None:
            raise CannotStartError("The database has no tables: there is nothing to back up.")
        tables = backed_up_tables(revision)
        columns = {table.name: tuple(table.columns.keys()) for table in tables}
        header = Header(revision, backend.mark_ms(connection), columns)
        with new_file(path, overwrite=overwrite) as file:
            writer = BackupWriter(file, header)
            for table in tables:
                _write_table(connection, table, writer)
            return Backup(header, writer.end())


def backed_up_tables(revision: str) -> list[Table]:
    """The tables of a revision that a backup has, in the order in which they can be filled."""
    return [table for table in migrations.schema_at(revision).tables if table.name not in LEFT_OUT]


def _write_table(connection: Connection, table: Table, writer: BackupWriter) -> None:
    options = {"stream_results": True, "yield_per": _NUM_ROWS_AT_ONCE}  # on Postgres a cursor of the server
    with connection.execute(_in_order(table, connection.dialect.name), execution_options=options) as rows:
        for row in rows:
            writer.write_row(table.name, row)


def _in_order(table: Table, dialect: str) -> Select[Any]:
    """All rows by their primary key; text by its bytes, whatever language the database sorts by."""
    is_postgres = dialect == "postgresql"
    keys = [
        column.collate("C") if is_postgres and isinstance(column.type, String) else column
        for column in table.primary_key
    ]
    return select(table).order_by(*keys)
