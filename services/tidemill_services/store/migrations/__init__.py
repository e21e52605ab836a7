"""The schema's history, and how a database is brought up to date. Written with Alembic; see `versions/`."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from tidemill_services.domain.errors import CannotStartError


def upgrade(connection: Connection) -> None:
    """Bring the schema up to date, in the connection's transaction. The caller holds a lock against others.

    Raises CannotStartError for a schema that this version does not know.
    """
    try:
        command.upgrade(alembic_config(connection), "head")
    except CommandError as error:
        raise CannotStartError(
            f"The database's schema is unknown to this version of Tidemill, which knows it up to {newest_revision()}: "
            f"it was written by a newer one, start that. ({error})"
        ) from error


def downgrade(connection: Connection, revision: str) -> None:
    """Take the schema back to a revision, `base` for nothing at all. What newer tables hold is lost."""
    command.downgrade(alembic_config(connection), revision)


def newest_revision() -> str:
    """The revision of `tables.py`."""
    heads = ScriptDirectory(str(Path(__file__).parent)).get_heads()
    return ", ".join(heads)


def alembic_config(connection: Connection) -> Config:
    """Alembic's settings for this folder and connection; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "r%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config
