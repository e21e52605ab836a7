"""`tidemill admin migrate|backup|restore`: what an operator does to a server's database as a whole."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from tidemill_services.domain.errors import CannotStartError
from tidemill_services.settings import Settings, SettingsError
from tidemill_services.store import api_keys, migrations
from tidemill_services.store.backend import Backend
from tidemill_services.store.backups.afterlife import Afterlife
from tidemill_services.store.backups.dump import Backup, back_up
from tidemill_services.store.backups.restore import restore as restore_backup
from tidemill_services.store.database import Transaction
from tidemill_services.store.migrations.plan import Plan, carry_out, make_plan
from tidemill_services.store.opening import open_backend
from tidemill_services.store.secret_file import read_or_create_secret

DataDirOption = Annotated[Path | None, typer.Option(help="Where the database, keys and models lie.")]
DatabaseOption = Annotated[
    str | None, typer.Option(help="URL of the database.  [default: a SQLite file in the data directory]")
]


def migrate(
    to: Annotated[str, typer.Option(metavar="REVISION", help="A revision of the schema, or head, or none.")] = "head",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before something is lost.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Go down though servers run on the Postgres.")] = False,
    data_dir: DataDirOption = None,
    database: DatabaseOption = None,
) -> None:
    """Bring the database's schema up to this version of Tidemill, or down to an earlier one.

    A server does the first by itself at its start. Going down loses what the older schema has no place for.
    """
    target = _revision(to)
    with opened("migrate", data_dir, database) as (settings, backend):
        if dry_run:
            with backend.snapshot() as connection:
                _show(settings, make_plan(connection, target))
            return
        backend.take()
        with backend.snapshot() as connection:
            plan = make_plan(connection, target)
            _show(settings, plan)
            _refuse_to_go_down_below_servers(backend, connection, plan, force=force)
        if plan.losses and not yes:
            typer.confirm("Lose it?", abort=True)
        with backend.whole_change() as connection:
            _refuse_to_go_down_below_servers(backend, connection, plan, force=force)
            carry_out(connection, plan)
    if plan.up or plan.down:
        typer.echo(f"Done: the schema is at {target or 'none'}.")


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file when it is there.")] = False,
    data_dir: DataDirOption = None,
    database: DatabaseOption = None,
) -> None:
    """Write all of the database, SQLite or Postgres, into one file; a server may go on meanwhile.

    The platform's secret is not in it: keep a copy of that apart. Without it no API key of a backup works.
    """
    with opened("backup", data_dir, database) as (settings, backend):
        made = back_up(backend, file, overwrite=force)
    typer.echo(f"{file} holds {_told(made)}.")
    typer.echo(
        f"Not in it: the platform's secret ({settings.data_dir / 'secret'}), without which no API key of it works, "
        "TLS files, and model packages. Keep copies of them, the secret's apart from this file."
    )


def restore(
    file: Annotated[Path, typer.Argument(help="A file of `tidemill admin backup`.")],
    keep_sessions: Annotated[
        bool, typer.Option("--keep-sessions", help="Open sessions stay open: when nothing has served since the backup.")
    ] = False,
    data_dir: DataDirOption = None,
    database: DatabaseOption = None,
) -> None:
    """Fill an empty database, SQLite or Postgres, from a backup of either: all of it or nothing.

    Sessions that were open are ended as of the backup, since somebody may have stopped them after it.
    """
    with opened("restore", data_dir, database) as (settings, backend):
        restored = restore_backup(backend, file, keep_sessions=keep_sessions)
        typer.echo(f"{_place(settings)} now holds {_told(restored.backup)}.")
        if restored.backup.header.revision != migrations.newest_revision():
            typer.echo(f"Its schema was migrated to {migrations.newest_revision()}.")
        _tell_of_sessions(restored.afterlife)
        with backend.snapshot() as connection:
            _tell_of_secret(settings.data_dir / "secret", connection)


def _revision(to: str) -> str | None:
    """The revision that was asked for; None for a database without tables."""
    known = [revision.name for revision in migrations.history()]
    names = {"none": None, "head": known[-1], **{name: name for name in known}}
    if to not in names:
        raise typer.BadParameter(f"--to is {to!r}; it may be {', '.join(known)}, head or none")
    return names[to]


@contextmanager
def opened(command: str, data_dir: Path | None, database: str | None) -> Iterator[tuple[Settings, Backend]]:
    """The settings and the database that they name; what cannot be is said, and ends the command."""
    try:
        settings = Settings.read(data_dir=data_dir, database=database)
        backend = open_backend(settings.database_url)
        try:
            yield settings, backend
        finally:
            backend.dispose()
    except (SettingsError, CannotStartError) as error:
        typer.echo(f"tidemill admin {command}: {error}", err=True)
        raise typer.Exit(2 if isinstance(error, SettingsError) else 1) from None


def _show(settings: Settings, plan: Plan) -> None:
    typer.echo(
        f"{_place(settings)} is at schema {plan.current or 'none'}; this version knows up to "
        f"{migrations.newest_revision()}."
    )
    for word, revisions in (("up", plan.up), ("down", plan.down)):
        for revision in revisions:
            typer.echo(f"  {word:<5}{revision.name}  {revision.sentence}")
    if not (plan.up or plan.down):
        typer.echo("Nothing to do.")
    if plan.losses:
        typer.echo(f"Going down loses: {'; '.join(plan.losses)}. A backup keeps it: tidemill admin backup FILE.")


def _refuse_to_go_down_below_servers(backend: Backend, connection: Connection, plan: Plan, *, force: bool) -> None:
    num_servers = backend.num_servers(connection) if plan.down and not force else 0
    if num_servers:
        raise CannotStartError(
            f"Servers that gave a sign of life within the last 10 seconds, and would break: {num_servers}. Stop them, "
            "wait for 10 seconds after a kill, or say --force."
        )


def _told(backup: Backup) -> str:
    header, totals = backup.header, backup.totals
    time = datetime.fromtimestamp(header.time_ms / 1000, UTC)
    return (
        f"{totals.num_rows:,} rows of {len(header.tables)} tables, schema {header.revision}, as of "
        f"{time:%Y-%m-%d %H:%M:%S} UTC, content SHA-256 {totals.content_sha256}"
    )


def _tell_of_sessions(afterlife: Afterlife) -> None:
    if afterlife.num_ended:
        typer.echo(f"Sessions that were open, ended as of then: {afterlife.num_ended:,}.")
    if afterlife.num_kept:
        typer.echo(f"Sessions that are open, and go on with the next server: {afterlife.num_kept:,}.")


def _tell_of_secret(path: Path, connection: Connection) -> None:
    """Say so when the keys will not work as things are."""
    if not path.exists():
        typer.echo(f"Before the first start: copy the platform's secret to {path}. With another one no API key works.")
        return
    num_others = api_keys.count_under_other_secrets(Transaction(connection, 0), read_or_create_secret(path))
    if num_others:
        typer.echo(
            f"API keys that are not under the secret in {path}: {num_others:,}. Copy the one of the server that was "
            "backed up, and secret.old while it is rotated."
        )


def _place(settings: Settings) -> str:
    url = settings.database_url
    if url.startswith("sqlite:"):
        return url.removeprefix("sqlite:///")
    return make_url(url).render_as_string(hide_password=True)
