"""The schema's history, and how a database is brought to any point of it. Written with Alembic; see `versions/`."""

import functools
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, MetaData, Table, create_engine, exists, select

from tidemill_services.domain.errors import CannotStartError


@dataclass(frozen=True, slots=True)
class Revision:
    """One point of the history."""

    name: str
    sentence: str  # what its migration brings


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables at one point of the history."""

    tables: tuple[Table, ...] = ()  # those that others point at come before these; they serve on both databases
    seeded: frozenset[str] = frozenset()  # the names of those in which the migrations themselves put rows


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the schema up to a revision, in the connection's transaction. The caller holds a lock against others.

    Raises CannotStartError for a schema that this version does not know.
    """
    try:
        command.upgrade(alembic_config(connection), revision)
    except CommandError as error:
        raise _unknown(str(error)) from error


def downgrade(connection: Connection, revision: str) -> None:
    """Take the schema back to a revision, `base` for nothing at all. What newer tables hold is lost."""
    command.downgrade(alembic_config(connection), revision)


def current_revision(connection: Connection) -> str | None:
    """Return where a database stands; None before the first migration. Raises CannotStartError, as `upgrade` does."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in {revision.name for revision in history()}:
        raise _unknown(f"Its revision is {found}.")
    return found


def newest_revision() -> str:
    """The revision of `tables`."""
    return ", ".join(_scripts().get_heads())


def history() -> tuple[Revision, ...]:
    """Return all revisions, oldest first."""
    newest_first = [Revision(script.revision, script.doc.rstrip(".")) for script in _scripts().walk_revisions()]
    return tuple(reversed(newest_first))


@functools.cache
def schema_at(revision: str | None) -> Schema:
    """Return the schema of a revision, as the migrations themselves make it: there is no second list of tables."""
    if revision is None:
        return Schema()
    engine = create_engine("sqlite://")
    found = MetaData()
    with engine.begin() as connection:
        upgrade(connection, revision)
        found.reflect(connection)
        tables = tuple(table for table in found.sorted_tables if table.name != "alembic_version")
        seeded = frozenset(table.name for table in tables if has_rows(connection, table))
    engine.dispose()
    return Schema(tables, seeded)


def has_rows(connection: Connection, table: Table) -> bool:
    """Whether a table has any row."""
    return connection.execute(select(exists().select_from(table))).scalar_one()


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for this folder and connection; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(__file__).parent))


def _unknown(said: str) -> CannotStartError:
    return CannotStartError(
        f"The database's schema is unknown to this version of Tidemill, which knows it up to {newest_revision()}: "
        f"it was written by a newer one, start that. ({said})"
    )
