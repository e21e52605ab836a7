"""`tidemill model`: what answers."""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tidemill.cli import options, server_commands
from tidemill.cli.output import credits_of, print_facts, print_json, print_table, short
from tidemill.cli.progress import WaitDisplay
from tidemill.results import Model


class ModelCommands(TyperGroup):
    """The commands below, then the server's that work on models' files."""

    def list_commands(self, ctx: Any) -> list[str]:
        """As they stand below."""
        return [*super().list_commands(ctx), *server_commands.names(server_commands.MODEL_GROUP)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command of either side."""
        return super().get_command(ctx, cmd_name) or server_commands.load(cmd_name, server_commands.MODEL_GROUP)


models = typer.Typer(
    cls=ModelCommands,
    help="Look at models, wake them, put them to rest, import them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@models.command("list")
def list_(
    as_json: options.AsJson = False, target: options.Target = None, api_key_env: options.KeyVariable = None
) -> None:
    """List the registered models by name."""
    with options.connect(target, api_key_env) as client:
        found = client.list_models()
    if as_json:
        for model in found:
            print_json(model)
        return
    rows = [(short(one.name), one.state, one.context_length, _price(one), one.description) for one in found]
    print_table(["model", "state", "context", "price per second", "description"], rows)


@models.command()
def show(
    model: options.ModelArgument = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Show a model: what it is, what it costs, what it is doing."""
    with options.connect(target, api_key_env, model) as client:
        found = client.get_model()
    if as_json:
        print_json(found)
        return
    print_facts(
        {
            "model": short(found.name),
            "about": found.description,
            "state": _state(found),
            "failure": found.failure,
            "engine": found.engine,
            "digest": found.digest,
            "context": f"{found.context_length} tokens",
            "templates": ", ".join(found.chat_templates) or "none: it takes prompts only",
            "roles": ", ".join(found.roles),
            "session": f"{_price(found)} a second",
            "open": f"{found.open_sessions} sessions, {found.demand} generations",
        }
    )


@models.command()
def start(
    model: options.ModelArgument = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it is ready.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait at most.  [default: no limit]")] = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Wake a model; returns at once unless --wait is given."""
    with options.connect(target, api_key_env, model) as client:
        name = client.get_model().name
        with WaitDisplay(short(name)) as waiting:
            found = client.start_model(name, wait=wait, timeout=timeout, on_progress=waiting.show)
    _print_state(found, as_json=as_json)


@models.command()
def stop(
    model: options.ModelArgument = None,
    force: Annotated[
        bool, typer.Option("--force", help="End its sessions and generations too; for administrators.")
    ] = False,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Put a model to rest; returns at once."""
    with options.connect(target, api_key_env, model) as client:
        found = client.stop_model(force=force)
    _print_state(found, as_json=as_json)


@models.command()
def status(
    model: options.ModelArgument = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Say where a model is in its life."""
    with options.connect(target, api_key_env, model) as client:
        found = client.get_model()
    _print_state(found, as_json=as_json)


@models.command()
def watch(
    model: options.ModelArgument = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Print a model's state now and at each change, until Ctrl-C."""
    last = ""
    with options.connect(target, api_key_env, model) as client, client.watch_model() as views:
        for view in views:
            if as_json:
                print_json(view)
            elif _state(view) != last:
                _print_state(view, as_json=False)
            last = _state(view)


def _print_state(model: Model, *, as_json: bool) -> None:
    if as_json:
        print_json(model)
    else:
        typer.echo(f"{short(model.name)} is {_state(model)}{f': {model.failure}' if model.failure else ''}")


def _state(model: Model) -> str:
    if model.state == "starting":
        return f"starting ({model.phase}, {model.progress:.0%})"
    if model.state == "ready":
        replicas = "1 replica" if model.ready_replicas == 1 else f"{model.ready_replicas} replicas"
        return f"ready ({replicas})"
    return model.state


def _price(model: Model) -> str:
    return credits_of(model.prices.session_microcredits_per_second)
