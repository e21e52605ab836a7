"""The schema comes from migrations, which go both ways and end where `tables` stands."""

import asyncio

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, inspect, select, text

from tests.rows import engine_of
from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store import migrations
from tidemill_services.store.opening import open_database
from tidemill_services.store.tables import accounts, api_keys, metadata


@pytest.fixture
def engine(empty_database_url: str):
    engine = engine_of(empty_database_url)
    yield engine
    engine.dispose()


def differences(connection: Connection) -> list:
    return compare_metadata(MigrationContext.configure(connection), metadata)


def test_the_migrated_schema_is_that_of_the_tables(engine: Engine):
    with engine.begin() as connection:
        migrations.upgrade(connection)
        assert differences(connection) == []


def test_the_history_has_one_end():
    assert migrations.newest_revision().isdigit()


def test_the_comparison_sees_a_column_too_many(engine: Engine):
    with engine.begin() as connection:
        migrations.upgrade(connection)
        connection.execute(text("ALTER TABLE accounts ADD COLUMN extra INTEGER"))
        assert len(differences(connection)) == 1


def test_every_migration_goes_down_and_up_again(engine: Engine):
    with engine.begin() as connection:
        migrations.upgrade(connection)
        migrations.downgrade(connection, "base")
        assert inspect(connection).get_table_names() == ["alembic_version"]
        migrations.upgrade(connection)
        assert differences(connection) == []


def test_keys_and_sessions_outlive_the_second_migration_both_ways(engine: Engine):
    with engine.begin() as connection:
        migrations.upgrade(connection)
        migrations.downgrade(connection, "0001")
        connection.execute(text("INSERT INTO accounts VALUES ('a', 'Ada', 1)"))
        connection.execute(
            text("INSERT INTO models (name, digest, manifest, package_path, create_ms) VALUES ('m', 'd', '{}', 'p', 1)")
        )
        key = {"hash": b"h" * 32}
        connection.execute(
            text(
                "INSERT INTO api_keys (key_id, account_id, display_name, secret_hash, role, create_ms) "
                "VALUES ('k', 'a', '', :hash, 'USER', 1)"
            ),
            key,
        )
        connection.execute(
            text(
                "INSERT INTO sessions (session_id, account_id, key_id, model, state, create_ms, billed_ms, look_ms, "
                "price_microcredits_per_second, labels, idle_timeout_ms, max_duration_ms) "
                "VALUES ('s', 'a', 'k', 'm', 'PENDING', 1, 0, 1, 1, '{}', 1, 1)"
            )
        )
    with engine.begin() as connection:
        migrations.upgrade(connection)
        (found,) = connection.execute(select(api_keys)).all()
        assert (found.key_id, found.scopes, found.old_secret_hash) == ("k", "", None)
        assert connection.execute(select(accounts.c.use_cache)).scalar_one() is True
        migrations.downgrade(connection, "0001")
        assert connection.execute(text("SELECT key_id FROM sessions")).scalar_one() == "k"


def test_an_up_to_date_schema_stays_as_it_is(engine: Engine):
    for _ in range(2):
        with engine.begin() as connection:
            migrations.upgrade(connection)
    with engine.begin() as connection:
        assert connection.execute(text("SELECT count(*) FROM clock")).scalar_one() == 1


async def test_a_schema_of_a_newer_version_is_refused_with_a_sentence(engine: Engine, empty_database_url: str):
    with engine.begin() as connection:
        migrations.upgrade(connection)
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(CannotStartError, match="written by a newer one"):
        await open_database(empty_database_url).open()


async def test_processes_that_open_an_empty_postgres_at_once_migrate_it_once(postgres_server):
    url = postgres_server.create_database()
    databases = [open_database(url) for _ in range(4)]
    await asyncio.gather(*(database.open() for database in databases))
    await asyncio.gather(*(database.close() for database in databases))
    postgres_server.drop_database(url)
