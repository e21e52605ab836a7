"""Backups of empty and filled databases, for tests of any kind."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Connection

from tests.databases import PostgresServer
from tests.rows import Content, content_of, fill
from tidemill_services.store import migrations
from tidemill_services.store.backend import Backend
from tidemill_services.store.backups.dump import Backup, back_up, backed_up_tables
from tidemill_services.store.backups.restore import Restored, restore
from tidemill_services.store.opening import open_backend

HEAD = migrations.newest_revision()
LIVING = {"hosts", "replicas", "session_activity"}  # backed up, so that a restore knows what ended with them


@dataclass
class Places:
    """Empty databases of each kind, as many as a test wants."""

    folder: Path
    make_postgres: Callable[[], str]

    def url(self, kind: str, name: str) -> str:
        return f"sqlite:///{self.folder / name}.db" if kind == "sqlite" else self.make_postgres()

    def other(self, url: str, name: str) -> str:
        """An empty database of the other kind than that of `url`."""
        return self.url("postgres" if url.startswith("sqlite") else "sqlite", name)


@pytest.fixture
def places(tmp_path: Path, postgres_server: PostgresServer) -> Iterator[Places]:
    made: list[str] = []

    def make() -> str:
        made.append(postgres_server.create_database())
        return made[-1]

    yield Places(tmp_path, make)
    for url in made:
        postgres_server.drop_database(url)


def filled(backend: Backend, revision: str = HEAD, *, num_rows: int = 3) -> None:
    """Rows in every table but those of what lives."""
    with backend.whole_change() as connection:
        migrations.upgrade(connection, revision)
        tables = [table for table in backed_up_tables(revision) if table.name not in LIVING]
        fill(connection, tables, num_rows=num_rows)


def content(connection: Connection, revision: str = HEAD) -> Content:
    return content_of(connection, backed_up_tables(revision))


def content_at(url: str) -> Content:
    backend = open_backend(url)
    with backend.snapshot() as connection:
        found = content(connection)
    backend.dispose()
    return found


def restored(url: str, file: Path, *, keep_sessions: bool = False) -> Restored:
    backend = open_backend(url)
    try:
        return restore(backend, file, keep_sessions=keep_sessions)
    finally:
        backend.dispose()


def backed_up(url: str, file: Path) -> Backup:
    backend = open_backend(url)
    try:
        return back_up(backend, file)
    finally:
        backend.dispose()
