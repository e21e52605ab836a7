"""Statements that run so often that putting them together costs more than running them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, CursorResult
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

Values = Mapping[str, str | int]


class Prepared:
    """A statement with named values, texts and integers only, compiled once for each kind of database."""

    def __init__(self, statement: ClauseElement) -> None:
        self._statement = statement
        self._compiled: dict[str, SQLCompiler] = {}

    def run(self, connection: Connection, values: Values) -> CursorResult[Any]:
        """Run it once."""
        compiled = self._compiled_for(connection.dialect)
        return connection.exec_driver_sql(compiled.string, _driver_values(compiled, values))

    def run_for_all(self, connection: Connection, rows: Sequence[Values]) -> None:
        """Run it for each row."""
        if len(rows) == 1:  # which costs less than a list of one
            self.run(connection, rows[0])
            return
        compiled = self._compiled_for(connection.dialect)
        connection.exec_driver_sql(compiled.string, [_driver_values(compiled, values) for values in rows])

    def _compiled_for(self, dialect: Dialect) -> SQLCompiler:
        compiled = self._compiled.get(dialect.name)
        if compiled is None:
            compiled = self._compiled[dialect.name] = dialect.statement_compiler(dialect, self._statement)
        return compiled


def _driver_values(compiled: SQLCompiler, values: Values) -> Any:
    if compiled.positiontup is None:
        return dict(values)
    return tuple(values[name] for name in compiled.positiontup)
