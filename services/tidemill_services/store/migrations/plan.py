"""From where a database stands to where it shall stand: what would be done, and what would be lost."""

from dataclasses import dataclass

from sqlalchemy import Connection, Table, func, select

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store import migrations
from tidemill_services.store.migrations import Revision


@dataclass(frozen=True, slots=True)
class Plan:
    """The way from one revision to another. None is a database without tables."""

    current: str | None
    target: str | None
    up: tuple[Revision, ...] = ()  # whose migrations are done, in this order
    down: tuple[Revision, ...] = ()  # whose migrations are taken back, in this order
    losses: tuple[str, ...] = ()  # what there is that the target has no place for


def make_plan(connection: Connection, target: str | None) -> Plan:
    """Look where the database stands. `target` is in the history. Raises CannotStartError for an unknown schema."""
    current = migrations.current_revision(connection)
    history = migrations.history()
    names = [None, *(revision.name for revision in history)]
    here, there = names.index(current), names.index(target)
    return Plan(
        current,
        target,
        up=history[here:there],
        down=tuple(reversed(history[there:here])),
        losses=_losses(connection, current, target) if there < here else (),
    )


def carry_out(connection: Connection, plan: Plan) -> None:
    """Do it, in the connection's transaction. Raises CannotStartError when the database stands elsewhere by now."""
    if migrations.current_revision(connection) != plan.current:
        raise CannotStartError("Somebody else has changed the schema meanwhile: look again.")
    if plan.up:
        migrations.upgrade(connection, plan.target or "base")
    elif plan.down:
        migrations.downgrade(connection, plan.target or "base")


def _losses(connection: Connection, current: str | None, target: str | None) -> tuple[str, ...]:
    kept = {table.name: table for table in migrations.schema_at(target).tables}
    losses = []
    for table in migrations.schema_at(current).tables:
        num_rows = connection.execute(select(func.count()).select_from(table)).scalar_one()
        lost = table.name if table.name not in kept else ", ".join(_lost_columns(table, kept[table.name]))
        if lost and num_rows:
            losses.append(f"{lost} (of {num_rows:,} {'row' if num_rows == 1 else 'rows'})")
    return tuple(losses)


def _lost_columns(table: Table, kept: Table) -> list[str]:
    return [f"{table.name}.{column.name}" for column in table.columns if column.name not in kept.columns]
