"""`tidemill prices`: what models cost."""

from collections.abc import Sequence
from typing import Annotated, TypeAlias

import typer

from tidemill.billing_results import Price
from tidemill.cli import options
from tidemill.cli.accounts import full_name
from tidemill.cli.amounts import parse_credits
from tidemill.cli.output import amount_text, credits_of, print_json, print_table, short, time_text
from tidemill.client import Client
from tidemill.results import ModelPrices

prices = typer.Typer(
    help="List prices, or set one.", invoke_without_command=True, no_args_is_help=False, rich_markup_mode=None
)

AccountOption: TypeAlias = Annotated[
    str, typer.Option("--account", help="The account whose prices are meant.  [default: the key's own]")
]


@prices.callback()
def list_(
    context: typer.Context,
    model: Annotated[str, typer.Option("--model", "-m", help="Only this model's.")] = "",
    account: AccountOption = "",
    everything: Annotated[bool, typer.Option("--all", help="All that ever held, not only those of now.")] = False,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """List what models cost, in credits."""
    if context.invoked_subcommand is not None:
        return
    with options.connect(target, api_key_env) as client:
        found = client.accounts.prices(full_model(model), account=full_name(account), include_history=everything)
    if as_json:
        for price in found:
            print_json(price)
        return
    columns = ["model", "for", "per second", "per million in", "per million out", "since", "revision", "set by"]
    print_table(columns, map(_row, found))


@prices.command("set")
def set_(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model.")],
    per_second: Annotated[
        int | None, typer.Option(parser=parse_credits, metavar="CREDITS", help="For a second of a session.")
    ] = None,
    input_: Annotated[
        int | None,
        typer.Option("--input", parser=parse_credits, metavar="CREDITS", help="For a million tokens of prompts."),
    ] = None,
    output: Annotated[
        int | None,
        typer.Option("--output", parser=parse_credits, metavar="CREDITS", help="For a million tokens of answers."),
    ] = None,
    account: Annotated[str, typer.Option("--account", help="For this account alone.  [default: for everybody]")] = "",
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Take the account's own price away instead; the platform's holds again.")
    ] = False,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Set what a model costs; what is not named stays as it is. For administrators. Open sessions keep their price."""
    asked = (per_second, input_, output)
    if withdraw and (not account or asked != (None, None, None)):
        raise typer.BadParameter("it takes --account and no amounts.", param_hint="--withdraw")
    if not withdraw and asked == (None, None, None):
        raise typer.BadParameter("say what to set: --per-second, --input or --output.")
    name, whose = full_model(model), full_name(account)
    with options.connect(target, api_key_env) as client:
        if withdraw:
            found = client.accounts.withdraw_price(name, whose)
        else:
            found = client.accounts.set_price(name, _changed(client, name, whose, asked), account=whose)
    if as_json:
        print_json(found)
        return
    if found.withdrawn:
        typer.echo(f"{short(found.model)} has no price of its own for {found.account} any more.")
        return
    says = f"{credits_of(found.prices.session_microcredits_per_second)} a second"
    typer.echo(f"{short(found.model)} costs {says} for {found.account or 'everybody'} (revision {found.revision}).")


def full_model(model: str) -> str:
    """models/{model} of either form; an empty one stays empty."""
    return model if not model or model.startswith("models/") else f"models/{model}"


def _changed(client: Client, model: str, account: str, asked: tuple[int | None, int | None, int | None]) -> ModelPrices:
    """The price that is meant as it is now, with what is asked for."""
    before = ModelPrices(0, 0, 0)
    if None in asked:
        ever = client.accounts.prices(model, account=account, include_history=True)
        held = [found for whose in (account, "") if (found := _newest(ever, whose)) is not None]
        before = held[0] if held else before
    numbers = (
        before.session_microcredits_per_second,
        before.input_microcredits_per_million_tokens,
        before.output_microcredits_per_million_tokens,
    )
    return ModelPrices(*(old if new is None else new for old, new in zip(numbers, asked, strict=True)))


def _newest(ever: Sequence[Price], account: str) -> ModelPrices | None:
    """What holds for that account alone, or for everybody; None when nothing does."""
    last = max((one for one in ever if one.account == account), key=lambda one: one.revision, default=None)
    return None if last is None or last.withdrawn else last.prices


def _row(price: Price) -> tuple[object, ...]:
    amounts = (
        price.prices.session_microcredits_per_second,
        price.prices.input_microcredits_per_million_tokens,
        price.prices.output_microcredits_per_million_tokens,
    )
    return (
        short(price.model),
        price.account or "everybody",
        *(["withdrawn"] * 3 if price.withdrawn else map(amount_text, amounts)),
        time_text(price.create_time),
        price.revision,
        price.actor or "its package",
    )
