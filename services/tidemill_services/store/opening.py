"""From a setting to a database."""

from pathlib import Path

from sqlalchemy.exc import ArgumentError

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store.database import Database
from tidemill_services.store.sqlite import SqliteDatabase

_FORMS = "The database must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME."


def open_database(url: str) -> Database:
    """Return the database of `sqlite:///PATH` or `postgresql://…`, not opened yet. Raises CannotStartError."""
    scheme, _, rest = url.partition("://")
    path = rest.removeprefix("/")
    if scheme == "sqlite" and rest.startswith("/") and path not in ("", ":memory:"):
        return SqliteDatabase(Path(path))
    if scheme in ("postgresql", "postgres") and rest:
        return _postgres(f"postgresql://{rest}")
    raise CannotStartError(_FORMS)


def _postgres(url: str) -> Database:
    try:
        from tidemill_services.store.postgres import PostgresDatabase  # noqa: PLC0415 - psycopg is in an extra
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise CannotStartError("Postgres needs an extra: pip install 'tidemill[postgres]'.") from error
    try:
        return PostgresDatabase(url)
    except (ArgumentError, ValueError):
        raise CannotStartError(_FORMS) from None  # their sentence may hold the password
