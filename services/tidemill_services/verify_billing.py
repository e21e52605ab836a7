"""`tidemill admin verify-billing`: proves the books, or names the first thing that does not fit."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from tidemill.errors import ReceiptUnreadableError
from tidemill.receipt_file import read_receipt
from tidemill.receipt_proof import verify_receipt
from tidemill.sealed_row import SealedRow
from tidemill_services.database_commands import DatabaseOption, DataDirOption, opened
from tidemill_services.domain.errors import CannotStartError
from tidemill_services.domain.kept_proof import KeptHash, KeptRow
from tidemill_services.domain.merkle import HASH_BYTES
from tidemill_services.store import migrations
from tidemill_services.store.billing_proof import BillingProof, prove_billing


def verify_billing(
    receipt: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A receipt that somebody kept; may be given several times."),
    ] = None,
    block_hash: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER:HASH", help="A block's hash that somebody kept; may be given several times."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    data_dir: DataDirOption = None,
    database: DatabaseOption = None,
) -> None:
    """Prove that rows, blocks, balances, totals and sessions fit each other; a server may go on meanwhile.

    Ends with 0 when everything fits, else with 1 and the first thing of each kind that does not. A past that was
    rewritten to fit itself shows only beside what somebody kept of it: a receipt, or the hash of a block.
    """
    hashes = [_kept_hash(text) for text in block_hash or ()]
    with opened("verify-billing", data_dir, database) as (_, backend):
        rows: list[KeptRow] = []
        for file in receipt or ():
            _keep(file, rows, hashes)
        with backend.snapshot() as connection:
            if migrations.current_revision(connection) != migrations.newest_revision():
                raise CannotStartError("The database has the schema of another version: see `tidemill admin migrate`.")
            proof = prove_billing(connection, rows, hashes)
    if as_json:
        typer.echo(json.dumps(_as_object(proof)))
    else:
        for sentence in _sentences(proof):
            typer.echo(sentence)
    if proof.misfits:
        raise typer.Exit(1)


def _keep(file: Path, rows: list[KeptRow], hashes: list[KeptHash]) -> None:
    """Take what a receipt has kept. Raises CannotStartError for one that proves nothing."""
    try:
        receipt = read_receipt(file)
    except ReceiptUnreadableError as error:
        raise CannotStartError(f"{file}: {error}") from None
    found = verify_receipt(receipt)
    if not found.ok:
        raise CannotStartError(f"{file} proves nothing, for it does not hold by itself: {found.problem}")
    for entry in receipt.entries:
        sequence = SealedRow.from_json(entry.row).ledger_sequence
        rows.append(KeptRow(sequence, entry.row.encode("ascii"), str(file)))
    hashes.extend(KeptHash(block.number, block.block_hash, str(file)) for block in receipt.blocks)


def _kept_hash(text: str) -> KeptHash:
    number, _, digits = text.partition(":")
    try:
        kept = KeptHash(int(number), bytes.fromhex(digits), "--block-hash")
    except ValueError:
        kept = KeptHash(0, b"", "")
    if kept.number < 1 or len(kept.block_hash) != HASH_BYTES:
        raise typer.BadParameter(f"--block-hash is {text!r}; it may be a block's number, a colon and 64 hex digits")
    return kept


def _sentences(proof: BillingProof) -> Sequence[str]:
    looked_at = (
        f"{_counted(proof.num_rows, 'row')} of {_counted(proof.num_accounts, 'account')}, {proof.num_sealed_rows:,} of "
        f"them in {_counted(proof.num_blocks, 'block')}, and {_counted(proof.num_sessions, 'session')}"
    )
    if proof.misfits:
        first, *others = proof.misfits.values()
        more = [f"Of other kinds, the first each ({len(others)}):"] if others else []
        return [
            f"The books do not fit ({looked_at}). The first that does not:",
            f"  {first.sentence}",
            *more,
            *(f"  {misfit.sentence}" for misfit in others),
        ]
    kept = f", and what was kept of them, rows and hashes: {proof.num_kept:,}" if proof.num_kept else ""
    fits = [f"The books fit: {looked_at}{kept}."]
    if proof.last_block is not None:
        number, kept_hash = proof.last_block.block.number, proof.last_block.block_hash.hex()
        fits.append(
            f"Keep this elsewhere, to prove later that nothing was rewritten: --block-hash {number}:{kept_hash}"
        )
    return fits


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}" if number == 1 else f"{number:,} {what}s"


def _as_object(proof: BillingProof) -> dict[str, Any]:
    last = proof.last_block
    return {
        "ok": not proof.misfits,
        "problems": [dataclasses.asdict(misfit) for misfit in proof.misfits.values()],
        "rows": proof.num_rows,
        "sealed_rows": proof.num_sealed_rows,
        "blocks": proof.num_blocks,
        "accounts": proof.num_accounts,
        "sessions": proof.num_sessions,
        "kept": proof.num_kept,
        "last_block": None if last is None else {"number": last.block.number, "hash": last.block_hash.hex()},
    }
