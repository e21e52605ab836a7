"""Whether a session fits its rows of the ledger: rows in, what does not fit out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tidemill_services.domain.ledger import CHARGES, Balance, EntryKind, LedgerEntry
from tidemill_services.domain.misfit import Misfit, MisfitKind
from tidemill_services.domain.pricing import billed_seconds
from tidemill_services.domain.session import Session
from tidemill_services.domain.session_billing import subject_of


@dataclass(slots=True)
class Holds:
    """What is held by account, for the comparison with the balances."""

    by_account: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))


@dataclass(slots=True)
class _Rows:
    """What the rows of one session add up to."""

    seconds: int = 0
    held_microcredits: int = 0
    amount_microcredits: int = 0
    until_ms: int = 0  # of the time that is charged and not given back


def session_misfits(session: Session, rows: Iterable[LedgerEntry], holds: Holds) -> Iterator[Misfit]:
    """Yield what does not fit of a session and its rows, oldest first, and add to `holds` what is held for it."""
    sums = _Rows()
    for row in rows:
        yield from _row_misfits(session, row, sums)
        sums.seconds += row.posting.used.billed_seconds
        sums.held_microcredits += row.posting.hold_microcredits
        if row.posting.kind in CHARGES or row.posting.kind is EntryKind.REFUND:
            sums.amount_microcredits += row.posting.amount_microcredits
    holds.by_account[session.account_id] += session.held_microcredits
    yield from _sum_misfits(session, sums)


def hold_misfits(balances: Iterable[tuple[str, Balance]], holds: Holds) -> Iterator[Misfit]:
    """Yield the accounts that hold more or less than their sessions and the slices of processes do."""
    for account_id, balance in balances:
        held = holds.by_account[account_id]
        if held != balance.held_microcredits:
            account = f"accounts/{account_id}"
            sentence = (
                f"{account} holds {balance.held_microcredits:,} microcredits, and its sessions and slices {held:,}."
            )
            yield Misfit(MisfitKind.SESSION_HOLD, sentence, account=account)


def orphan(row: LedgerEntry) -> Misfit:
    """What a row is whose session is not there."""
    subject = row.posting.subject
    return _misfit(MisfitKind.SESSION_ROW, subject, f"is named by row {row.ledger_sequence} and is not there", row)


def _row_misfits(session: Session, row: LedgerEntry, sums: _Rows) -> Iterator[Misfit]:
    name, used = subject_of(session), row.posting.used
    if row.account_id != session.account_id:
        yield _misfit(MisfitKind.SESSION_ROW, name, f"is of another account than its row {row.ledger_sequence}", row)
    if row.posting.kind is EntryKind.SESSION_CHARGE:
        price = session.price_microcredits_per_second
        if used.price_microcredits_per_second != price:
            what = f"costs {price:,} a second, and its row {row.ledger_sequence} {used.price_microcredits_per_second:,}"
            yield _misfit(MisfitKind.SESSION_ROW, name, what, row)
        if used.from_ms < sums.until_ms:
            what = f"is charged twice for a time: row {row.ledger_sequence} begins before the one before it ends"
            yield _misfit(MisfitKind.SESSION_TIME, name, what, row)
        sums.until_ms = used.until_ms
    elif row.posting.kind is EntryKind.REFUND and used.billed_seconds:
        sums.until_ms = min(sums.until_ms, used.from_ms)


def _sum_misfits(session: Session, sums: _Rows) -> Iterator[Misfit]:
    name = subject_of(session)
    if session.end_ms is not None and sums.until_ms > session.end_ms:
        what = f"ended at {session.end_ms} and is charged until {sums.until_ms} (milliseconds since 1970)"
        yield _misfit(MisfitKind.SESSION_TIME, name, what)
    if not session.is_open and session.settled_ms != session.billed_ms:
        what = f"has {session.billed_ms:,} ms billed, and {session.settled_ms:,} of them are settled"
        yield _misfit(MisfitKind.SESSION_SECONDS, name, what)
    seconds = billed_seconds(session.settled_ms)
    is_of_before = not session.price_microcredits_per_second and not session.price_revision  # there was no ledger yet
    if seconds != sums.seconds and not is_of_before:
        what = f"has {seconds:,} seconds settled, and its rows charge {sums.seconds:,}"
        yield _misfit(MisfitKind.SESSION_SECONDS, name, what)
    if sums.amount_microcredits > 0:
        yield _misfit(MisfitKind.SESSION_ROW, name, "was given back more than it was charged")
    if session.held_microcredits != sums.held_microcredits:
        what = f"holds {session.held_microcredits:,} microcredits, and its rows {sums.held_microcredits:,}"
        yield _misfit(MisfitKind.SESSION_HOLD, name, what)
    elif session.held_microcredits and not session.is_open:
        what = f"has ended, and still holds {session.held_microcredits:,} microcredits"
        yield _misfit(MisfitKind.SESSION_HOLD, name, what)


def _misfit(kind: MisfitKind, session: str, what: str, row: LedgerEntry | None = None) -> Misfit:
    if row is None:
        return Misfit(kind, f"{session} {what}.", session=session)
    return Misfit(
        kind,
        f"{session} {what}.",
        account=f"accounts/{row.account_id}",
        account_sequence=row.account_sequence,
        ledger_sequence=row.ledger_sequence,
        session=session,
    )
