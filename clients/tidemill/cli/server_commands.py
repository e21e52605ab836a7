"""The server's commands in the CLI: they join by entry point; where an extra is missing they say which to install."""

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer

from tidemill.cli import exits

GROUP = "tidemill.commands"
MODEL_GROUP = "tidemill.model_commands"
"""Those that stand below `tidemill model`."""


def names(group: str = GROUP) -> list[str]:
    """The commands that are installed, able to run or not."""
    return sorted(found.name for found in entry_points(group=group))


def load(name: str, group: str = GROUP) -> Any:
    """The command of that name as typer runs it; None when there is none."""
    for found in entry_points(group=group):
        if found.name == name:
            return _command(found)
    return None


def _command(entry_point: EntryPoint) -> Any:
    wrapper = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    try:
        target = entry_point.load()
    except ImportError as error:
        anything = {"ignore_unknown_options": True, "allow_extra_args": True}
        target = _stand_in(entry_point.name, error.name or "a package")
        wrapper.command(entry_point.name, context_settings=anything)(target)
    else:
        if isinstance(target, typer.Typer):
            return typer.main.get_command(target)
        wrapper.command(entry_point.name)(target)
    return typer.main.get_command(wrapper)


def _stand_in(name: str, missing: str) -> Callable[[], None]:
    """A command that says what to install."""

    def command() -> None:
        typer.echo(
            f"`tidemill {name}` needs the server's packages, and {missing} is not installed: "
            "run `pip install 'tidemill[cpu]'`, or 'tidemill[gpu]' for an NVIDIA GPU.",
            err=True,
        )
        raise typer.Exit(exits.EXTRA_MISSING)

    command.__doc__ = "Needs an extra: pip install 'tidemill[cpu]'."
    return command


def require(name: str) -> None:
    """End with the sentence that says what to install when the command of that name cannot run."""
    for found in entry_points(group=GROUP):
        if found.name == name:
            try:
                found.load()
            except ImportError as error:
                _stand_in(name, error.name or "a package")()
