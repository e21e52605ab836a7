"""Statements that run so often that all between us and the driver costs more than they do."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql import ClauseElement

Values = Mapping[str, str | int | bytes]


class Cursor(Protocol):
    """What the driver says of a statement that ran."""

    @property
    def rowcount(self) -> int:
        """How many rows it wrote."""

    def fetchone(self) -> tuple[Any, ...] | None:
        """Its next row."""


class Prepared:
    """A statement with named values, texts, integers and bytes only, compiled once for each kind of database.

    The driver runs it, and its rows are the driver's: SQLAlchemy's way there takes ten times as long as SQLite.
    """

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, _Compiled] = {}

    def run(self, connection: Connection, values: Values) -> Cursor:
        """Run it once."""
        compiled = self._compiled_for(connection.dialect)
        return run_by_driver(connection, compiled.text, compiled.driver_values(values))

    def run_for_all(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Run it for each row."""
        if len(rows) == 1:  # which costs less than a list of one
            self.run(connection, rows[0])
            return
        compiled = self._compiled_for(connection.dialect)
        run_by_driver(connection, compiled.text, [compiled.driver_values(row) for row in rows], for_all=True)

    def _compiled_for(self, dialect: Dialect) -> "_Compiled":
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = _Compiled(self._statement, dialect)
        return compiled


class _Compiled:
    """A statement as a driver takes it."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled = dialect.statement_compiler(dialect, statement)
        self.text = compiled.string
        self._order = compiled.positiontup  # of the values; None where they go by name

    def driver_values(self, values: Values) -> Any:
        return values if self._order is None else tuple([values[name] for name in self._order])


def run_by_driver(connection: Connection, statement: str, values: Any = (), *, for_all: bool = False) -> Cursor:
    """Run a statement in the driver's own words. Raises what the connection would raise for it."""
    try:
        cursor: Any = connection.connection.cursor()
        if for_all:
            cursor.executemany(statement, values)
        else:
            cursor.execute(statement, values)
    except Exception as error:
        driver_error = connection.dialect.loaded_dbapi.Error
        told = statement if isinstance(error, driver_error) else None  # else it would be wrapped like one
        connection._handle_dbapi_exception(error, told, None, None, None)  # noqa: SLF001 -- its only way in
        raise
    found: Cursor = cursor
    return found
