"""What `tidemill admin migrate|backup|restore` say, and what they refuse, on both databases."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from sqlalchemy import update
from typer.testing import CliRunner

from tests.databases import database_url, postgres_server
from tidemill_services.admin_commands import admin
from tidemill_services.store import hosts, migrations
from tidemill_services.store.accounts import create_account, create_api_key
from tidemill_services.store.backend import Backend
from tidemill_services.store.database import Transaction
from tidemill_services.store.opening import open_backend
from tidemill_services.store.secret_file import read_or_create_secret
from tidemill_services.store.tables import clock

__all__ = ["database_url", "postgres_server"]

HEAD = migrations.newest_revision()
Run = Callable[..., Result]


@pytest.fixture
def run(database_url: str, tmp_path: Path) -> Run:
    """Runs a command on the database; the result has its exit code and what it said."""
    settings = ("--data-dir", str(tmp_path / "data"), "--database", database_url)
    return lambda *arguments, said="": CliRunner().invoke(admin, [*map(str, arguments), *settings], input=said)


@pytest.fixture
def backend(database_url: str) -> Iterator[Backend]:
    """A migrated database with an account in it."""
    backend = open_backend(database_url)
    backend.prepare()
    with backend.whole_change() as connection:
        create_account(Transaction(connection, 1), "a", "")
    backend.dispose()
    yield backend
    backend.dispose()


def revision_of(backend: Backend) -> str | None:
    with backend.snapshot() as connection:
        return migrations.current_revision(connection)


def test_migrate_says_where_it_stands_and_asks_before_anything_is_lost(run: Run, backend: Backend) -> None:
    done = run("migrate")
    assert (done.exit_code, "Nothing to do." in done.stdout) == (0, True)
    looked = run("migrate", "--to", "0001", "--dry-run")
    assert looked.exit_code == 0
    assert f"is at schema {HEAD}; this version knows up to {HEAD}." in looked.stdout
    assert "  down 0002  What accounts and keys may do" in looked.stdout
    assert "Going down loses: accounts.use_cache" in looked.stdout
    for answer in ("n\n", ""):
        refused = run("migrate", "--to", "0001", said=answer)
        assert refused.exit_code == 1
        assert revision_of(backend) == HEAD
    assert run("migrate", "--to", "0001", said="y\n").exit_code == 0
    assert revision_of(backend) == "0001"
    assert f"Done: the schema is at {HEAD}." in run("migrate").stdout
    assert run("migrate", "--to", "none", "--yes").exit_code == 0
    assert revision_of(backend) is None
    assert run("migrate", "--to", "7").exit_code == 2


def test_migrate_goes_not_down_below_servers_that_live(run: Run, backend: Backend, database_url: str) -> None:
    if database_url.startswith("sqlite"):
        backend.take()  # as a server does
        refused = run("migrate", "--to", "0001", "--yes", "--force")
        assert (refused.exit_code, "in use by process" in refused.stderr) == (1, True)
        assert run("migrate", "--to", "0001", "--dry-run").exit_code == 0
        return
    with backend.whole_change() as connection:
        hosts.renew_host(Transaction(connection, backend.mark_ms(connection) + 3_600_000), "h", 1)
    refused = run("migrate", "--to", "0001", "--yes")
    assert (refused.exit_code, "would break: 1. Stop them" in refused.stderr) == (1, True)
    assert revision_of(backend) == HEAD
    assert run("migrate", "--to", HEAD).exit_code == 0
    assert run("migrate", "--to", "0001", "--yes", "--force").exit_code == 0
    assert revision_of(backend) == "0001"


def test_a_newer_schema_is_refused_by_all_three(run: Run, backend: Backend, tmp_path: Path) -> None:
    with backend.whole_change() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for command in (("migrate",), ("backup", tmp_path / "file")):
        refused = run(*command)
        assert (refused.exit_code, "written by a newer one" in refused.stderr) == (1, True)


def test_backup_and_restore_say_what_is_in_the_file_and_what_is_not(run: Run, backend: Backend, tmp_path: Path) -> None:
    with backend.whole_change() as connection:
        connection.execute(update(clock).values(high_water_ms=4_102_444_800_000))
    file = tmp_path / "file"
    made = run("backup", file)
    assert made.exit_code == 0
    assert f"schema {HEAD}, as of 2100-01-01 00:00:00 UTC, content SHA-256 " in made.stdout
    assert f"Not in it: the platform's secret ({tmp_path / 'data' / 'secret'})" in made.stdout
    again = run("backup", file)
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)
    assert run("backup", file, "--force").exit_code == 0
    full = run("restore", file)
    assert (full.exit_code, "The database is not empty (accounts" in full.stderr) == (1, True)
    file.write_bytes(file.read_bytes()[:-5])
    damaged = run("restore", file)
    assert damaged.stderr == "tidemill admin restore: The backup is cut off: its end is missing.\n"
    assert damaged.exit_code == 1


def test_restore_tells_whether_the_keys_will_work(tmp_path: Path) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "file"
    secret = read_or_create_secret(old / "secret")
    backend = open_backend(f"sqlite:///{old / 'tidemill.db'}")
    backend.prepare()
    with backend.whole_change() as connection:
        tx = Transaction(connection, 1)
        create_account(tx, "a", "")
        create_api_key(tx, "a", secret)
    backend.dispose()

    def run(*arguments: object, data_dir: Path) -> str:
        done = CliRunner().invoke(admin, [*map(str, arguments), "--data-dir", str(data_dir)])
        assert done.exit_code == 0, done.stderr
        (new / "tidemill.db").unlink(missing_ok=True)
        return done.stdout

    run("backup", file, data_dir=old)
    assert f"copy the platform's secret to {new / 'secret'}" in run("restore", file, data_dir=new)
    read_or_create_secret(new / "secret")
    assert f"API keys that are not under the secret in {new / 'secret'}: 1." in run("restore", file, data_dir=new)
    (new / "secret").write_bytes(secret)
    assert "secret" not in run("restore", file, data_dir=new)


def test_a_wrong_setting_is_one_of_exit_code_2_and_a_wrong_place_of_1(tmp_path: Path) -> None:
    wrong = CliRunner().invoke(admin, ["backup", str(tmp_path / "file")], env={"TIDEMILL_PORT": "none"})
    assert (wrong.exit_code, "TIDEMILL_PORT is 'none'" in wrong.stderr) == (2, True)
    nowhere = CliRunner().invoke(admin, ["backup", str(tmp_path / "file"), "--data-dir", str(tmp_path / "none")])
    assert (nowhere.exit_code, "There is no database" in nowhere.stderr) == (1, True)
    no_server = CliRunner().invoke(
        admin, ["backup", str(tmp_path / "f"), "--database", "postgresql://u:p@127.0.0.1:1/x"]
    )
    assert (no_server.exit_code, "cannot be opened" in no_server.stderr) == (1, True)
    assert not list(tmp_path.iterdir())
