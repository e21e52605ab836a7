"""The commands, joined."""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tidemill.cli import (
    account_credits,
    accounts,
    chat,
    complete,
    demo,
    exits,
    keys,
    models,
    prices,
    receipts,
    server_commands,
    sessions,
    usage,
)
from tidemill.errors import TidemillError


class Commands(TyperGroup):
    """Adds the server's commands, and ends every command that fails with a sentence and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The client's commands as they stand below, then the server's."""
        own = super().list_commands(ctx)
        return [*own, *(name for name in server_commands.names() if name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command of either side."""
        return super().get_command(ctx, cmd_name) or server_commands.load(cmd_name)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line. Where it asks for JSON, what is wrong with its words is said in JSON too."""
        words = sys.argv[1:] if args is None else list(args)
        says_usage = standalone_mode and "--json" not in words
        try:
            status = super().main(words, prog_name, complete_var, says_usage, windows_expand_args, **extra)
        except typer.TyperException as error:
            exits.end_with_usage(error)
        except OSError as error:
            exits.end_with_broken_stream(error)
        sys.exit(status)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except TidemillError as error:
            exits.end_with(error, as_json=ctx.meta.get(exits.JSON_KEY, False))
        except KeyboardInterrupt:
            raise typer.Exit(exits.INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    help="Ask language models that wake when someone needs them, and pay for the time between start and stop.",
    epilog=(
        "Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 an extra is not installed, 4 no server answers, "
        "130 interrupted."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Rich would read [default: ...] and tidemill[cpu] as markup and leave them out
    context_settings={"max_content_width": 120},
)
app.command()(complete.complete)
app.command()(chat.chat)
app.add_typer(sessions.sessions, name="session")
app.add_typer(models.models, name="model")
account_credits.add_to(accounts.accounts)
app.add_typer(accounts.accounts, name="account")
app.add_typer(keys.keys, name="key")
app.command()(usage.usage)
app.add_typer(prices.prices, name="prices")
app.add_typer(receipts.receipts, name="receipt")
app.command()(demo.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tidemill {version('tidemill')}")
        raise typer.Exit


@app.callback()
def _options(
    version_wanted: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Take what stands before the command; its help is the app's."""
