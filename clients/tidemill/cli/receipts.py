"""`tidemill receipt`: the proof of a bill."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.exits import FAILED
from tidemill.cli.output import credits_of, note, print_json
from tidemill.cli.sessions import full_session_name
from tidemill.errors import LedgerBlockNotFoundError
from tidemill.receipt import Receipt
from tidemill.receipt_file import read_receipt, receipt_text, write_receipt
from tidemill.receipt_proof import Verification, verify_receipt
from tidemill.shown import shown

receipts = typer.Typer(help="Fetch the proof of a bill, and check one.", no_args_is_help=True, rich_markup_mode=None)


@receipts.command()
def get(
    session: Annotated[str, typer.Argument(metavar="SESSION", help="sessions/...")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.  [default: here]")
    ] = None,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Fetch a session's receipt: its rows of the ledger, each with the proof that it stands there."""
    with options.connect(target, api_key_env) as client:
        receipt = client.accounts.receipt(full_session_name(session))
    if output is not None:
        write_receipt(receipt, output)
        note(f"{_sentence(receipt)} Check it with `tidemill receipt verify {output}`.")
    else:
        typer.echo(receipt_text(receipt, indent=None if as_json else 2))


@receipts.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `tidemill receipt get -o FILE` wrote.")],
    server: Annotated[
        bool, typer.Option("--server", help="Ask the server too whether its blocks are those of the receipt.")
    ] = False,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Check a receipt, without any server: that its rows stand in sealed blocks as they are, and that they add up.

    Ends with 0 when everything fits, else with 1 and the first thing that does not.
    """
    receipt = read_receipt(file)
    found = verify_receipt(receipt)
    if server and found.ok:
        found = _compared(receipt, found, target, api_key_env)
    if as_json:
        print_json({"ok": found.ok, "problem": found.problem, "checks": list(found.checks)})
    else:
        for sentence in found.checks:
            typer.echo(f"ok  {sentence}")
        typer.echo(f"{_sentence(receipt)} It holds." if found.ok else f"It does not hold: {found.problem}")
    if not found.ok:
        raise typer.Exit(FAILED)


def _compared(receipt: Receipt, found: Verification, target: str | None, api_key_env: str | None) -> Verification:
    """What was found, and whether the server's ledger has the same blocks."""
    with options.connect(target, api_key_env) as client:
        for block in receipt.blocks:
            try:
                same = client.accounts.ledger_block(block.number) == block
            except LedgerBlockNotFoundError:
                return Verification(f"The server's ledger has no block {block.number}.", found.checks)
            if not same:
                return Verification(f"The server's block {block.number} is another one.", found.checks)
        where = client.target
    return Verification("", (*found.checks, f"The ledger at {where} has the same blocks."))


def _sentence(receipt: Receipt) -> str:
    seconds = "1 second" if receipt.billed_seconds == 1 else f"{receipt.billed_seconds} seconds"
    cost = f"{credits_of(receipt.cost_microcredits)} for {seconds}"
    return f"{shown(receipt.subject)} cost {cost}{'' if receipt.final else ' until this receipt'}."
