"""Whether the ledger's rows, balances and totals fit each other: rows in, what does not fit out.

Rows are taken one by one. What is kept of them grows with the accounts and the rows of one block, never with all rows.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields

from tidemill_services.domain.block_proof import BlockProof, Unreadable
from tidemill_services.domain.ledger import Balance, EntryKind, LedgerEntry, Posting, balance_after
from tidemill_services.domain.ledger_totals import Totals, TotalsKey, totals_of
from tidemill_services.domain.misfit import Misfit, MisfitKind

_WORDS = {
    "amount_microcredits": "{} microcredits",
    "hold_microcredits": "{} microcredits held",
    "billed_seconds": "{} seconds",
    "num_generations": "{} generations",
    "prompt_tokens": "{} tokens of prompts",
    "completion_tokens": "{} tokens made",
}


@dataclass(slots=True)
class Sums:
    """What the rows add up to, for the comparisons that follow."""

    num_rows: int = 0
    num_sealed_rows: int = 0
    balances: dict[str, Balance] = field(default_factory=dict)  # by account id
    totals: defaultdict[TotalsKey, Totals] = field(default_factory=lambda: defaultdict(Totals))  # of sealed rows


def row_misfits(rows: Iterable[LedgerEntry | Unreadable], blocks: BlockProof, sums: Sums) -> Iterator[Misfit]:
    """Yield what does not fit of rows and their blocks, both by number from the first on, and fill in `sums`."""
    expected = 1
    for row in rows:
        sums.num_rows += 1
        if isinstance(row, Unreadable):
            yield Misfit(MisfitKind.ROW_UNREADABLE, row.sentence, ledger_sequence=row.number, block=blocks.number)
            blocks.take_gap()
            expected += 1
            continue
        yield from blocks.open_for(row.ledger_sequence)
        if row.ledger_sequence != expected:
            sentence = f"Row {expected} is missing: row {row.ledger_sequence} stands in its place."
            yield Misfit(MisfitKind.ROW_MISSING, sentence, ledger_sequence=expected, block=blocks.number)
            blocks.take_gap()
        expected = row.ledger_sequence + 1
        yield from _one_row(row, blocks.number, sums)
        blocks.take(row)
        if blocks.number:
            sums.num_sealed_rows += 1
            for key, more in totals_of([row]).items():
                sums.totals[key] += more
    yield from blocks.end()


def balance_misfits(kept: Iterable[tuple[str, Balance]], sums: Sums) -> Iterator[Misfit]:
    """Yield the accounts whose balances are not those of their last rows."""
    without = set(sums.balances)
    for account_id, balance in kept:
        without.discard(account_id)
        of_rows = sums.balances.get(account_id, Balance())
        if balance != of_rows:
            account = f"accounts/{account_id}"
            sentence = f"The balance of {account} is kept as {_told(balance)}; by its rows it is {_told(of_rows)}."
            yield Misfit(MisfitKind.BALANCE, sentence, account=account)
    for account_id in sorted(without):
        account = f"accounts/{account_id}"
        yield Misfit(MisfitKind.BALANCE, f"{account} has rows, and its balance is missing.", account=account)


def total_misfits(kept: Mapping[TotalsKey, Totals], sums: Sums) -> Iterator[Misfit]:
    """Yield the totals that are not the sums of the sealed rows."""
    for key in sorted(kept.keys() | sums.totals.keys()):
        total, of_rows = kept.get(key, Totals()), sums.totals.get(key, Totals())
        if total != of_rows:
            account_id, model, kind = key
            where = f"accounts/{account_id}, {f'models/{model}' if model else 'no model'}, {kind}"
            kept_as, add_up_to = _differing(total, of_rows)
            sentence = f"The totals of {where} are kept as {kept_as}; the sealed rows add up to {add_up_to}."
            yield Misfit(MisfitKind.TOTAL, sentence, account=f"accounts/{account_id}")


def _differing(total: Totals, other: Totals) -> tuple[str, str]:
    """Two totals in words, as far as they differ."""
    names = [each.name for each in fields(Totals) if getattr(total, each.name) != getattr(other, each.name)]
    said, of_other = (", ".join(_WORDS[name].format(getattr(each, name)) for name in names) for each in (total, other))
    return said, of_other


def _one_row(row: LedgerEntry, block: int, sums: Sums) -> Iterator[Misfit]:
    """Compare a row with its account's row before; what follows is compared with the row as it is."""
    before = sums.balances.get(row.account_id, Balance())
    sums.balances[row.account_id] = after = balance_after(row)
    if row.account_sequence != before.account_sequence + 1:
        yield _misfit(
            MisfitKind.ROW_ORDER,
            row,
            block,
            f"has the account's number {row.account_sequence}, and {before.account_sequence + 1} is next",
        )
    elif not _follows(before, row):
        yield _misfit(
            MisfitKind.ROW_BALANCE,
            row,
            block,
            f"leaves {_told(after)}, which does not follow from {_told(before)} before it",
        )
    if not _fits_kind(row.posting):
        yield _misfit(MisfitKind.ROW_AMOUNT, row, block, f"has amounts that no {row.posting.kind} has")


def _follows(before: Balance, row: LedgerEntry) -> bool:
    return (
        row.balance_microcredits == before.balance_microcredits + row.posting.amount_microcredits
        and row.held_microcredits == before.held_microcredits + row.posting.hold_microcredits
        and 0 <= row.held_microcredits <= row.balance_microcredits
    )


def _fits_kind(posting: Posting) -> bool:
    amount, hold, used = posting.amount_microcredits, posting.hold_microcredits, posting.used
    cost = used.billed_seconds * used.price_microcredits_per_second
    fits = {
        EntryKind.GRANT: amount > 0 and hold == 0,
        EntryKind.HOLD: amount == 0 and hold > 0,
        EntryKind.RELEASE: amount == 0 and hold < 0,
        EntryKind.SESSION_CHARGE: amount == hold == -cost <= 0 and used.from_ms <= used.until_ms,
        EntryKind.REFUND: amount >= 0 and hold == 0 and (amount == -cost or used.billed_seconds == 0),
        EntryKind.TRANSFER: amount != 0 and hold == 0,
        EntryKind.CORRECTION: amount != 0 and hold == 0,
    }
    return fits.get(posting.kind, amount <= hold <= 0)  # a charge for anything else


def _misfit(kind: MisfitKind, row: LedgerEntry, block: int, what: str) -> Misfit:
    account = f"accounts/{row.account_id}"
    sealed = f"block {block}" if block else "not sealed yet"
    return Misfit(
        kind,
        f"Row {row.ledger_sequence} ({account}, {sealed}) {what}.",
        account=account,
        account_sequence=row.account_sequence,
        ledger_sequence=row.ledger_sequence,
        block=block,
        session=row.posting.subject,
    )


def _told(balance: Balance) -> str:
    return (
        f"{balance.balance_microcredits:,} microcredits, {balance.held_microcredits:,} of them held, "
        f"after {balance.account_sequence:,} rows"
    )
