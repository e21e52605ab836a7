"""Rows for every table of a schema, whatever tables there are: what a migration or a backup must not lose."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    Table,
    create_engine,
    insert,
    select,
)
from sqlalchemy.engine import make_url

NUM_ROWS = 3
BEYOND_DOUBLES = 2**53 + 1  # no float holds it
_VALUES: dict[str, Any] = {
    "models.manifest": "{}",
    "sessions.labels": '{"team":"tide"}',
    "sessions.state": "ENDED",
    "sessions.end_ms": BEYOND_DOUBLES,
    "sessions.clock_ready": "[]",
    "sessions.clock_waited": "[]",
    "audit_events.changes": "[]",
}

Content = dict[str, list[tuple[Any, ...]]]


def engine_of(url: str):
    """An engine for what lies at the URL of a setting."""
    parsed = make_url(url)
    driver = "postgresql+psycopg" if parsed.drivername == "postgresql" else parsed.drivername
    return create_engine(parsed.set(drivername=driver))


def fill(connection: Connection, tables: Iterable[Table], *, num_rows: int = NUM_ROWS) -> None:
    """Put rows into tables, which are in the order of their foreign keys; every column has values, and nulls."""
    for table in tables:
        rows = [{column.name: value_of(column, n) for column in table.columns} for n in range(num_rows)]
        connection.execute(insert(table), rows)


def value_of(column: Column[Any], n: int) -> Any:
    """A value that is another one in each row where it can be."""
    for foreign_key in column.foreign_keys:
        return value_of(foreign_key.column, n)
    name = f"{column.table.name}.{column.name}"
    if name in _VALUES:
        return _VALUES[name]
    if column.nullable and n % 2:
        return None
    match column.type:
        case Boolean():
            return n % 2 == 0
        case Float():
            return 0.1 * n
        case Integer():
            return (BEYOND_DOUBLES if "BIGINT" in str(column.type) else 0) + n
        case LargeBinary():
            return bytes([n, 0, 255]) + name.encode()[:29]
    text = f'{"Zz_a"[n % 4]}{n} é ✓ \n " {name}'  # languages sort these otherwise than bytes
    return text[: column.type.length or 1_000]  # type: ignore[attr-defined]


def content_of(connection: Connection, tables: Iterable[Table]) -> Content:
    """All rows of tables, in an order of their own."""
    found = {}
    for table in tables:
        rows = connection.execute(select(*(table.columns[name] for name in sorted(table.columns.keys()))))
        found[table.name] = sorted((tuple(row) for row in rows), key=repr)
    return found
