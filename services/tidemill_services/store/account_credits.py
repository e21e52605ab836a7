"""Units of work of administrators on credits: they grant, refund and correct, and each of it is in the audit trail."""

from sqlalchemy import func, select

from tidemill_services.domain import session_billing
from tidemill_services.domain.audit import Change
from tidemill_services.domain.errors import AccountNotFoundError, RefundExceedsChargeError, SessionNotFoundError
from tidemill_services.domain.ledger import (
    CHARGES,
    Contra,
    EntryKind,
    LedgerEntry,
    Posting,
    Used,
    check_amount,
    check_reason,
)
from tidemill_services.domain.pricing import credits_text
from tidemill_services.store import audit, ledger, session_rows
from tidemill_services.store.accounts import find_account
from tidemill_services.store.database import Transaction
from tidemill_services.store.tables import ledger_entries, sessions


def grant(tx: Transaction, account_id: str, amount_microcredits: int, reason: str, actor: str) -> LedgerEntry:
    """Give an account credits. Raises FieldInvalidError, AccountNotFoundError."""
    check_amount(amount_microcredits)
    check_reason(reason)
    posting = Posting(EntryKind.GRANT, Contra.GRANTS, amount_microcredits, reason=reason, actor=actor)
    return _post(tx, account_id, posting, "GrantCredits")


def correct(tx: Transaction, account_id: str, amount_microcredits: int, reason: str, actor: str) -> LedgerEntry:
    """Add to a balance, or take from what is not held.

    Raises FieldInvalidError, AccountNotFoundError, InsufficientCreditsError.
    """
    check_amount(amount_microcredits, may_take=True)
    check_reason(reason)
    posting = Posting(EntryKind.CORRECTION, Contra.CORRECTIONS, amount_microcredits, reason=reason, actor=actor)
    return _post(tx, account_id, posting, "CorrectBalance")


def refund(tx: Transaction, session_id: str, amount_microcredits: int | None, reason: str, actor: str) -> LedgerEntry:
    """Give back some of what a session of any account cost, or with None all that is left of it.

    What news of an open session may still give back by itself is left out.

    Raises FieldInvalidError, SessionNotFoundError, RefundExceedsChargeError.
    """
    check_reason(reason)
    if amount_microcredits is not None:
        check_amount(amount_microcredits)
    session = session_rows.load_one(tx, select(sessions).where(sessions.c.session_id == session_id))
    if session is None:
        raise SessionNotFoundError
    subject = session_billing.subject_of(session)
    may_come_back = session_billing.returnable(session)
    cost = _cost_of(tx, subject) - may_come_back
    amount = cost if amount_microcredits is None else amount_microcredits
    if amount > cost or not amount:
        raise RefundExceedsChargeError(
            f"{credits_text(cost)} credits of {subject} are charged and not given back yet"
            + (f", which is less than {credits_text(amount)}." if cost else ".")
            + (f" {credits_text(may_come_back)} more can be refunded once it has ended." if may_come_back else "")
        )
    posting = Posting(
        EntryKind.REFUND,
        Contra.SESSIONS,
        amount,
        subject=subject,
        used=Used(session.model, from_ms=tx.now_ms, until_ms=tx.now_ms, price_revision=session.price_revision),
        reason=reason,
        actor=actor,
    )
    return _post(tx, session.account_id, posting, "RefundCredits")


def _cost_of(tx: Transaction, subject: str) -> int:
    """What was charged for a subject and not given back."""
    kinds = [kind.value for kind in (*CHARGES, EntryKind.REFUND)]
    query = select(func.sum(ledger_entries.c.amount_microcredits)).where(
        ledger_entries.c.subject == subject, ledger_entries.c.kind.in_(kinds)
    )
    return -int(tx.connection.execute(query).scalar() or 0)


def _post(tx: Transaction, account_id: str, posting: Posting, action: str) -> LedgerEntry:
    if find_account(tx, account_id) is None:
        raise AccountNotFoundError
    (entry,) = ledger.post(tx, account_id, [posting])
    audit.record(
        tx,
        actor=posting.actor,
        action=action,
        account_id=account_id,
        resource=posting.subject or f"accounts/{account_id}",
        changes=[
            Change("amount_microcredits", "", str(posting.amount_microcredits)),
            Change("ledger_sequence", "", str(entry.ledger_sequence)),
            Change("reason", "", posting.reason),
        ],
    )
    return entry
