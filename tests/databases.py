"""Real databases for tests: a SQLite file, and a PostgreSQL server of the run's own with an empty database per test."""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import psycopg
import pytest

from tests.own_postgres import own_postgres
from tidemill_services.store.opening import open_backend

BACKENDS = ("sqlite", "postgres")


@dataclass(frozen=True)
class PostgresServer:
    """A running server, reached over a Unix socket."""

    url: str

    def create_database(self) -> str:
        """Make an empty database; return its URL."""
        return self._create("")

    def copy_database(self) -> str:
        """Make a database with the newest schema and no rows; return its URL."""
        return self._create(f"TEMPLATE {self._migrated}")

    def drop_database(self, url: str) -> None:
        """Remove one, whoever is still connected."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {_name_in(url)} WITH (FORCE)")

    @cached_property
    def _migrated(self) -> str:
        url = self.create_database()
        migrate(url)
        return _name_in(url)

    def _create(self, how: str) -> str:
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} {how}")
        return self.url.replace("/postgres?", f"/{name}?")


def _name_in(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


def migrate(url: str) -> None:
    """Bring a database up to date, as a server does at its start."""
    backend = open_backend(url)
    backend.prepare()
    backend.dispose()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for this run. Where it cannot start its tests are skipped, in CI they fail."""
    with own_postgres() as server:
        yield PostgresServer(server.url)


def sqlite_file(folder: Path) -> Path:
    """Make a SQLite file with the newest schema and no rows."""
    path = folder / "tidemill.db"
    path.write_bytes(_migrated_file())
    return path


@cache
def _migrated_file() -> bytes:
    """A SQLite file with the newest schema and no rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tidemill.db"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()


@pytest.fixture(params=BACKENDS)
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind with nothing in it, not even tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tidemill.db'}"
    else:
        yield from _dropped_at_the_end(request, PostgresServer.create_database)


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of each kind with the newest schema and no rows; made by copying, since migrating takes longer."""
    if request.param == "sqlite":
        yield f"sqlite:///{sqlite_file(tmp_path)}"
    else:
        yield from _dropped_at_the_end(request, PostgresServer.copy_database)


def _dropped_at_the_end(request: pytest.FixtureRequest, make: Callable[[PostgresServer], str]) -> Iterator[str]:
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = make(server)
    yield url
    server.drop_database(url)
