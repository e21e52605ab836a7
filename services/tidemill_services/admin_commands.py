"""`tidemill admin`: what an operator does to a server's files and its database, on its machine."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill_services import database_commands
from tidemill_services.domain.errors import CannotStartError
from tidemill_services.settings import Settings
from tidemill_services.store import secret_file
from tidemill_services.verify_billing import verify_billing

admin = typer.Typer(
    help="Look after a server's files and its database, on its machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


admin.command()(database_commands.migrate)
admin.command()(database_commands.backup)
admin.command()(database_commands.restore)
admin.command()(verify_billing)


@admin.command("rotate-secret")
def rotate_secret(
    data_dir: Annotated[Path | None, typer.Option(help="Where the secret lies.")] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Forget the old secret: keys that were not used since work no more.")
    ] = False,
) -> None:
    """Give the platform a new secret, under which keys are hashed; the old one stays valid until --finish.

    The server takes the new one at its next start. Then each key moves to it when it is first used.
    """
    path = Settings.read(data_dir=data_dir).data_dir / "secret"
    try:
        if not finish:
            secret_file.rotate_secret(path)
            typer.echo(f"{path} is new, the one before is {path}.old: restart the server.")
        elif secret_file.forget_old_secret(path):
            typer.echo(f"{path}.old is gone: restart the server.")
        else:
            typer.echo("No rotation is under way.")
    except CannotStartError as error:
        typer.echo(f"tidemill admin rotate-secret: {error}", err=True)
        raise typer.Exit(1) from None
