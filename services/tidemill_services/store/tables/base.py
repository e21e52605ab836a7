"""What all tables share."""

from typing import Any

from sqlalchemy import BigInteger, Column, ColumnElement, Integer, MetaData, Table, true

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def limits_columns() -> list[Column[Any]]:
    """The columns of `UsageLimits`; null: not limited."""
    return [
        Column("requests_per_minute", Integer),
        Column("concurrent_generations", Integer),
        Column("concurrent_sessions", Integer),
        Column("tokens_per_minute", Integer),
    ]


def use_columns(prefix: str) -> list[Column[Any]]:
    """The columns of `Use`."""
    names = ("num_generations", "prompt_tokens", "completion_tokens")
    return [Column(f"{prefix}{name}", BigInteger, nullable=False, server_default="0") for name in names]


clock = Table(
    "clock",
    metadata,
    Column("only", Integer, primary_key=True),  # always 1
    Column("high_water_ms", BigInteger, nullable=False),  # time never goes back behind it
)


def of_model(table: Table, model: str | None) -> ColumnElement[bool]:
    """A condition on a table with a column `model`: the rows of that one, or of all."""
    return true() if model is None else table.c.model == model
