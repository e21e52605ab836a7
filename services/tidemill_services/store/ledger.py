"""Units of work on the ledger: rows, and the balances that they make. Rows are entered and never changed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Select, func, insert, select, update

from tidemill_services.domain.ledger import Balance, EntryKind, LedgerEntry, Posting, Used, balance_after, posted
from tidemill_services.store.database import Transaction
from tidemill_services.store.paging import page_size_of, sequence_of
from tidemill_services.store.tables import balances, ledger_entries
from tidemill_services.store.topics import LEDGER


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """Some rows of an account, oldest first."""

    entries: tuple[LedgerEntry, ...]
    next_page_token: str  # empty on the last page


def balance_of(tx: Transaction, account_id: str) -> Balance:
    """Return what an account has."""
    return _find_balance(tx, select(balances).where(balances.c.account_id == account_id)) or Balance()


def post(tx: Transaction, account_id: str, postings: Sequence[Posting]) -> list[LedgerEntry]:
    """Enter rows for an account, in this order. Raises InsufficientCreditsError where credits are missing."""
    if not postings:
        return []
    before = _find_balance(tx, select(balances).where(balances.c.account_id == account_id).with_for_update())
    balance = before or Balance()
    sequence = tx.connection.execute(select(func.max(ledger_entries.c.ledger_sequence))).scalar() or 0
    entries: list[LedgerEntry] = []
    for posting in postings:
        entry = posted(balance, account_id, posting, sequence + len(entries) + 1, tx.now_ms)
        balance = balance_after(entry)
        entries.append(entry)
    values = {
        "balance_microcredits": balance.balance_microcredits,
        "held_microcredits": balance.held_microcredits,
        "account_sequence": balance.account_sequence,
    }
    if before is None:
        tx.connection.execute(insert(balances).values(account_id=account_id, **values))
    else:
        tx.connection.execute(update(balances).where(balances.c.account_id == account_id).values(**values))
    tx.connection.execute(insert(ledger_entries), [_columns(entry) for entry in entries])
    tx.notify(LEDGER)
    return entries


def list_entries(
    tx: Transaction,
    account_id: str,
    *,
    subject: str = "",
    kinds: Collection[EntryKind] = (),
    page_size: int = 0,
    page_token: str = "",
) -> LedgerPage:
    """Return a page of an account's rows, oldest first, of one subject or some kinds. Raises FieldInvalidError."""
    size = page_size_of(page_size)
    query = select(ledger_entries).where(ledger_entries.c.account_id == account_id)
    if page_token:
        query = query.where(ledger_entries.c.account_sequence > sequence_of(page_token))
    if subject:
        query = query.where(ledger_entries.c.subject == subject)
    if kinds:
        query = query.where(ledger_entries.c.kind.in_([kind.value for kind in kinds]))
    rows = tx.connection.execute(query.order_by(ledger_entries.c.account_sequence).limit(size + 1)).all()
    page = tuple(entry_of(row) for row in rows[:size])
    return LedgerPage(page, str(page[-1].account_sequence) if len(rows) > size else "")


def entry_of(row: Row[Any]) -> LedgerEntry:
    """A row of the table as a row of the ledger."""
    return LedgerEntry(
        ledger_sequence=row.ledger_sequence,
        account_id=row.account_id,
        account_sequence=row.account_sequence,
        posting=Posting(
            kind=EntryKind(row.kind),
            contra=row.contra,
            amount_microcredits=row.amount_microcredits,
            hold_microcredits=row.hold_microcredits,
            subject=row.subject,
            used=Used(*(getattr(row, name) for name in _USED)),
            reason=row.reason,
            actor=row.actor,
        ),
        balance_microcredits=row.balance_microcredits,
        held_microcredits=row.held_microcredits,
        commit_ms=row.commit_ms,
    )


_USED = tuple(Used.__dataclass_fields__)


def _find_balance(tx: Transaction, query: Select[Any]) -> Balance | None:
    row = tx.connection.execute(query).one_or_none()
    return None if row is None else Balance(row.balance_microcredits, row.held_microcredits, row.account_sequence)


def _columns(entry: LedgerEntry) -> dict[str, str | int]:
    posting = entry.posting
    return {
        "ledger_sequence": entry.ledger_sequence,
        "account_id": entry.account_id,
        "account_sequence": entry.account_sequence,
        "kind": posting.kind.value,
        "amount_microcredits": posting.amount_microcredits,
        "hold_microcredits": posting.hold_microcredits,
        "balance_microcredits": entry.balance_microcredits,
        "held_microcredits": entry.held_microcredits,
        "contra": posting.contra,
        "subject": posting.subject,
        **{name: getattr(posting.used, name) for name in _USED},
        "commit_ms": entry.commit_ms,
        "reason": posting.reason,
        "actor": posting.actor,
    }
