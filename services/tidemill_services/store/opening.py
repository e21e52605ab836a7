"""From a setting to a database."""

from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store.backend import Backend
from tidemill_services.store.database import Database
from tidemill_services.store.sqlite import SqliteBackend, SqliteDatabase

_FORMS = "The database must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST:PORT/NAME."


def open_database(url: str) -> Database:
    """Return the database of `sqlite:///PATH` or `postgresql://…`, not opened yet. Raises CannotStartError."""
    place = _place(url)
    if isinstance(place, Path):
        return SqliteDatabase(place)
    from tidemill_services.store.postgres import PostgresDatabase  # noqa: PLC0415 - `_place` found it there

    return PostgresDatabase(place)


def open_backend(url: str) -> Backend:
    """Return what lies below such a database, for who looks after all of it. Raises CannotStartError."""
    place = _place(url)
    if isinstance(place, Path):
        return SqliteBackend(place)
    from tidemill_services.store.postgres import PostgresBackend  # noqa: PLC0415 - `_place` found it there

    return PostgresBackend(place)


def _place(url: str) -> Path | str:
    """The file, or the URL as Postgres knows it; what it needs is installed."""
    scheme, _, rest = url.partition("://")
    path = rest.removeprefix("/")
    if scheme == "sqlite" and rest.startswith("/") and path not in ("", ":memory:"):
        return Path(path)
    if scheme not in ("postgresql", "postgres") or not rest:
        raise CannotStartError(_FORMS)
    try:
        import tidemill_services.store.postgres  # noqa: F401, PLC0415 - psycopg is in an extra
    except ModuleNotFoundError as error:
        if error.name != "psycopg":
            raise
        raise CannotStartError("Postgres needs an extra: pip install 'tidemill[postgres]'.") from error
    try:
        make_url(f"postgresql://{rest}")
    except (ArgumentError, ValueError):
        raise CannotStartError(_FORMS) from None  # their sentence may hold the password
    return f"postgresql://{rest}"
