"""Units of work on the ledger: rows, and the balances that they make. Rows are entered and never changed."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import BindParameter, Row, bindparam, func, insert, select, update

from tidemill_services.domain.ledger import Balance, EntryKind, LedgerEntry, Posting, Used, balance_after, posted
from tidemill_services.store.database import Transaction
from tidemill_services.store.paging import page_size_of, sequence_of
from tidemill_services.store.prepared import Prepared
from tidemill_services.store.tables import balances, ledger_entries
from tidemill_services.store.topics import LEDGER


@dataclass(frozen=True, slots=True)
class LedgerPage:
    """Some rows of an account, oldest first."""

    entries: tuple[LedgerEntry, ...]
    next_page_token: str  # empty on the last page


def balance_of(tx: Transaction, account_id: str) -> Balance:
    """Return what an account has."""
    row = tx.connection.execute(select(*_BALANCE_COLUMNS).where(balances.c.account_id == account_id)).one_or_none()
    return Balance() if row is None else _balance(row)


def balances_of(tx: Transaction, account_ids: Sequence[str]) -> dict[str, Balance]:
    """Return what each of a page of accounts has, in one query."""
    query = select(balances.c.account_id, *_BALANCE_COLUMNS).where(balances.c.account_id.in_(account_ids))
    found = {row.account_id: _balance(row) for row in tx.connection.execute(query)}
    return {account_id: found.get(account_id, Balance()) for account_id in account_ids}


def post(tx: Transaction, account_id: str, postings: Sequence[Posting]) -> list[LedgerEntry]:
    """Enter rows for an account, in this order. Raises InsufficientCreditsError where credits are missing."""
    if not postings:
        return []
    before = _FIND_FOR_POST.run(tx.connection, {"of_account": account_id}).fetchone()
    if before is None:
        balance, sequence = Balance(), tx.connection.execute(_LAST_SEQUENCE).scalar() or 0
    else:
        *found, sequence = before
        balance = Balance(*found)
    entries: list[LedgerEntry] = []
    for posting in postings:
        entry = posted(balance, account_id, posting, sequence + len(entries) + 1, tx.now_ms)
        balance = balance_after(entry)
        entries.append(entry)
    write_balance = _ADD_BALANCE if before is None else _CHANGE_BALANCE
    values: dict[str, str | int] = {
        "of_account": account_id,
        "balance_microcredits": balance.balance_microcredits,
        "held_microcredits": balance.held_microcredits,
        "account_sequence": balance.account_sequence,
    }
    write_balance.run(tx.connection, values)
    _ADD_ENTRY.run_for_all(tx.connection, [_columns(entry) for entry in entries])
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


def _balance(row: Row[Any]) -> Balance:
    return Balance(row.balance_microcredits, row.held_microcredits, row.account_sequence)


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


_USED = tuple(Used.__dataclass_fields__)
_OF_ACCOUNT: BindParameter[str] = bindparam("of_account")
_LAST_SEQUENCE = select(func.max(ledger_entries.c.ledger_sequence))
_BALANCE_COLUMNS = tuple(balances.c[each.name] for each in fields(Balance))
_FIND_FOR_POST = Prepared(
    select(*_BALANCE_COLUMNS, _LAST_SEQUENCE.scalar_subquery().label("last_sequence"))
    .where(balances.c.account_id == _OF_ACCOUNT)
    .with_for_update()
)
_BALANCE_VALUES: dict[str, BindParameter[int]] = {each.name: bindparam(each.name) for each in fields(Balance)}
_ADD_BALANCE = Prepared(insert(balances).values(account_id=_OF_ACCOUNT, **_BALANCE_VALUES))
_CHANGE_BALANCE = Prepared(update(balances).where(balances.c.account_id == _OF_ACCOUNT).values(_BALANCE_VALUES))
_ADD_ENTRY = Prepared(insert(ledger_entries))
