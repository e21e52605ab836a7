"""The commands of `tidemill account` that give credits, take them back, and show where they went."""

from itertools import islice
from typing import Annotated, TypeAlias

import typer

from tidemill.billing_results import LedgerEntry
from tidemill.cli import options
from tidemill.cli.accounts import AccountArgument, full_name
from tidemill.cli.amounts import parse_change, parse_credits
from tidemill.cli.output import amount_text, credits_of, print_json, print_table, time_text
from tidemill.cli.sessions import full_session_name

Reason: TypeAlias = Annotated[str, typer.Option(help="Why; it stands in the ledger for good.")]
OneAccount: TypeAlias = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account.")]


def add_to(accounts: typer.Typer) -> None:
    """Make the commands part of `tidemill account`."""
    accounts.command()(grant)
    accounts.command()(refund)
    # Else -5 would be taken for an option.
    accounts.command(context_settings={"ignore_unknown_options": True})(correct)
    accounts.command()(ledger)


def grant(
    account: OneAccount,
    amount: Annotated[int, typer.Argument(parser=parse_credits, metavar="CREDITS", help="Such as 5 or 0.25.")],
    reason: Reason,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Give an account credits; for administrators."""
    with options.connect(target, api_key_env) as client:
        entry = client.accounts.grant_credits(full_name(account), amount, reason)
    _print(entry, "were granted", as_json=as_json)


def refund(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="sessions/...")],
    reason: Reason,
    amount: Annotated[
        int | None,
        typer.Argument(parser=parse_credits, metavar="CREDITS", help="How many.  [default: what is left of its cost]"),
    ] = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Give back some or all of what a session cost; for administrators."""
    with options.connect(target, api_key_env) as client:
        entry = client.accounts.refund_credits(full_session_name(session), amount, reason=reason)
    _print(entry, f"of {entry.subject} were given back", as_json=as_json)


def correct(
    account: OneAccount,
    amount: Annotated[
        int, typer.Argument(parser=parse_change, metavar="CREDITS", help="What is added, or with a minus taken.")
    ],
    reason: Reason,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Put a mistake in a balance right, by a new row of the ledger; for administrators."""
    with options.connect(target, api_key_env) as client:
        entry = client.accounts.correct_balance(full_name(account), amount, reason)
    _print(entry, "were added" if amount > 0 else "were taken", as_json=as_json)


def ledger(
    account: AccountArgument = "",
    session: Annotated[str, typer.Option(metavar="SESSION", help="Only the rows of sessions/...")] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND",
            help="Only grant, hold, release, session_charge, refund, correction, ...; may be given several times.",
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most this many, the oldest.  [default: all]")] = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """List what was granted, held, charged and given back, the oldest first."""
    with (
        options.connect(target, api_key_env) as client,
        client.accounts.ledger_entries(
            full_name(account), session=full_session_name(session), kinds=kind or ()
        ) as entries,
    ):
        found = islice(entries, limit)
        if as_json:
            for entry in found:
                print_json(entry)
            return
        rows = [
            (
                one.account_sequence,
                time_text(one.commit_time),
                one.kind,
                amount_text(one.amount_microcredits),
                amount_text(one.balance_microcredits),
                amount_text(one.held_microcredits),
                one.subject,
                one.reason,
            )
            for one in found
        ]
    print_table(["row", "when", "what", "credits", "balance", "held", "for", "why"], rows)


def _print(entry: LedgerEntry, what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(entry)
        return
    amount = credits_of(abs(entry.amount_microcredits))
    typer.echo(f"{amount} {what}; {entry.account} has {credits_of(entry.balance_microcredits)} now.")
