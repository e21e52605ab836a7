"""From a setting to a database."""

import asyncio
import sys
from pathlib import Path

import pytest

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store.opening import open_database
from tidemill_services.store.postgres import PostgresDatabase
from tidemill_services.store.sqlite import SqliteDatabase


def test_the_url_names_the_kind_of_database(tmp_path: Path):
    assert isinstance(open_database(f"sqlite:///{tmp_path}/tidemill.db"), SqliteDatabase)
    for scheme in ("postgresql", "postgres"):
        assert isinstance(open_database(f"{scheme}://user:word@host/name"), PostgresDatabase)


async def test_a_path_may_hold_whatever_a_path_may_hold(tmp_path: Path):
    path = tmp_path / "50% of ? # é" / "tidemill.db"
    database = open_database(f"sqlite:///{path}")
    await database.open()
    assert await asyncio.to_thread(path.is_file)
    await database.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "tidemill.db",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://me:word@host/name",
        "postgresql+asyncpg://host/x",
        "postgres://",
        "postgresql://me:word@host:port/x",
    ],
)
def test_what_is_neither_is_refused_without_repeating_a_password(url: str):
    with pytest.raises(CannotStartError, match="must be sqlite:///PATH or postgresql://") as refusal:
        open_database(url)
    assert "word@" not in str(refusal.value)


def test_without_the_extra_postgres_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "psycopg"]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("postgres", "postgres_errors", "listener"):
        monkeypatch.delitem(sys.modules, f"tidemill_services.store.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(CannotStartError, match=r"pip install 'tidemill\[postgres\]'"):
        open_database("postgresql://host/name")
