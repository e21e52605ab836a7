"""Migrations both ways over full tables: what the older schema knows outlives the newer one, and losses are named."""

import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from sqlalchemy import Engine, insert, text, update

from tests.rows import Content, content_of, engine_of, fill
from tidemill_services.domain.errors import CannotStartError
from tidemill_services.store import migrations
from tidemill_services.store.migrations.plan import carry_out, make_plan

NAMES = [revision.name for revision in migrations.history()]
STEPS = list(pairwise(NAMES))
# By migration, the columns in which it changes what there is, as it says.
REWRITTEN = {"0003": frozenset({"sessions.price_microcredits_per_second"})}


@pytest.fixture
def engine(empty_database_url: str) -> Iterator[Engine]:
    engine = engine_of(empty_database_url)
    yield engine
    engine.dispose()


def without(content: Content, columns: frozenset[str], tables: tuple) -> Content:
    """The content with None in some columns, whose names are `table.column`; `content_of` sorts columns by name."""
    names = {table.name: sorted(table.columns.keys()) for table in tables}
    return {
        table: sorted(
            (
                tuple(
                    None if f"{table}.{name}" in columns else value
                    for name, value in zip(names[table], row, strict=True)
                )
                for row in rows
            ),
            key=repr,
        )
        for table, rows in content.items()
    }


@pytest.mark.parametrize(("older", "newer"), STEPS)
def test_up_down_and_up_again_leaves_what_the_older_schema_knows(engine: Engine, older: str, newer: str) -> None:
    tables = migrations.schema_at(older).tables
    rewritten = REWRITTEN.get(newer, frozenset[str]())
    with engine.begin() as connection:
        migrations.upgrade(connection, older)
        fill(connection, [table for table in tables if table.name != "clock"])
        before = content_of(connection, tables)
        migrations.upgrade(connection, newer)
        assert without(content_of(connection, tables), rewritten, tables) == without(before, rewritten, tables)
        migrations.downgrade(connection, older)
        below = content_of(connection, tables)
        assert without(below, rewritten, tables) == without(before, rewritten, tables)
        migrations.upgrade(connection, newer)
        assert content_of(connection, tables) == below


@pytest.mark.parametrize(("older", "newer"), STEPS)
def test_rows_of_the_newer_schema_go_down_as_far_as_the_older_one_knows_them(
    engine: Engine, older: str, newer: str
) -> None:
    tables = migrations.schema_at(older).tables
    with engine.begin() as connection:
        migrations.upgrade(connection, newer)
        fill(connection, [table for table in migrations.schema_at(newer).tables if table.name != "clock"])
        before = content_of(connection, tables)
        migrations.downgrade(connection, older)
        assert content_of(connection, tables) == before
        migrations.downgrade(connection, "base")


@pytest.mark.parametrize(
    ("since_ms", "ready", "waited", "below"),
    [
        (None, [[100, 200]], [], (1_100, None)),
        (900, [[100, 200], [300, 400]], [[350, 500]], (1_150, 900)),
        (500, [], [[400, 600], [700, 800]], (1_100, 800)),
        (500, [], [[400, 450]], (1_000, 500)),
    ],
)
def test_the_last_minutes_of_a_clock_are_summed_up_below_0004(
    engine: Engine, since_ms: int | None, ready: list, waited: list, below: tuple
) -> None:
    clock = {"clock_since_ms": since_ms, "clock_ready": json.dumps(ready), "clock_waited": json.dumps(waited)}
    with engine.begin() as connection:
        migrations.upgrade(connection, "0004")
        tables = migrations.schema_at("0004").tables
        fill(connection, [table for table in tables if table.name != "clock"])
        sessions = next(table for table in tables if table.name == "sessions")
        connection.execute(update(sessions).values(billed_ms=1_000, **clock))
        migrations.downgrade(connection, "0003")
        found = connection.execute(text("SELECT DISTINCT billed_ms, clock_since_ms FROM sessions")).all()
    assert found == [below]


def test_a_plan_names_the_steps_and_only_what_is_really_lost(engine: Engine) -> None:
    with engine.begin() as connection:
        assert [revision.name for revision in make_plan(connection, "0002").up] == ["0001", "0002"]
        migrations.upgrade(connection, "0002")
        assert make_plan(connection, "0002").up == make_plan(connection, "0002").down == ()
        empty = make_plan(connection, "0001")
        assert ([revision.name for revision in empty.down], empty.losses) == (["0002"], ())
        accounts = next(table for table in migrations.schema_at("0002").tables if table.name == "accounts")
        connection.execute(insert(accounts).values(account_id="a", display_name="", create_ms=1))
        (lost,) = make_plan(connection, "0001").losses
        assert lost.startswith("accounts.use_cache, accounts.requests_per_minute")
        assert lost.endswith("(of 1 row)")
        (to_nothing, *_) = make_plan(connection, None).losses
        assert to_nothing == "accounts (of 1 row)"
        carry_out(connection, make_plan(connection, "0001"))
        assert migrations.current_revision(connection) == "0001"


def test_a_plan_whose_start_has_moved_is_not_carried_out(engine: Engine) -> None:
    with engine.begin() as connection:
        plan = make_plan(connection, None)
        assert not plan.up
        plan = make_plan(connection, "0001")
        migrations.upgrade(connection, "0002")
        with pytest.raises(CannotStartError, match="Somebody else has changed the schema"):
            carry_out(connection, plan)


def test_an_unknown_schema_is_refused_with_the_servers_sentence(engine: Engine) -> None:
    with engine.begin() as connection:
        migrations.upgrade(connection)
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(CannotStartError, match="written by a newer one"):
            make_plan(connection, "0001")
