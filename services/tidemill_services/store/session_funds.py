"""Units of work that keep a session and the ledger together: its time is charged, its next minutes are held."""

from dataclasses import replace

from tidemill_services.domain import session_billing, session_stops
from tidemill_services.domain.errors import InsufficientCreditsError
from tidemill_services.domain.ledger import Posting
from tidemill_services.domain.pricing import credits_text
from tidemill_services.domain.session import Session
from tidemill_services.store import ledger
from tidemill_services.store.database import Transaction


def fund_start(tx: Transaction, session: Session) -> Session:
    """Hold the first minutes of a session that is about to start. Raises InsufficientCreditsError."""
    wanted = session_billing.hold_wanted(session, tx.now_ms)
    available = ledger.balance_of(tx, session.account_id).available_microcredits
    if wanted > available:
        raise InsufficientCreditsError(
            f"A session of {session.model} holds {credits_text(wanted)} credits for its first five minutes, and "
            f"{credits_text(available)} are there that nothing holds: {credits_text(wanted - available)} are missing."
        )
    return _with_hold(tx, session, [], wanted)


def settle(tx: Transaction, before: Session, after: Session) -> Session:
    """Charge what an event, or the time that passed, made due, and hold the next minutes as far as there are credits.

    Returns the session after it, for its caller to write.
    """
    certain_ms = session_stops.certain_until_ms(after, tx.now_ms)
    settled, charges = session_billing.charged(after, before.clock, tx.now_ms, certain_ms)
    if settled != before:
        settled = session_billing.without_past(settled, tx.now_ms)
    has_other_limits = (before.limits, before.is_open) != (settled.limits, settled.is_open)
    return _refreshed(tx, settled, charges) if charges or has_other_limits else settled


def hold_more(tx: Transaction, session: Session) -> Session:
    """Hold more for a session whose credits are used up, where its account has them; the caller writes it."""
    if not session.is_open or not session_billing.is_used_up(session, tx.now_ms):
        return session
    return _refreshed(tx, session, [])


def with_all_credits(tx: Transaction, session: Session) -> Session:
    """Return the session as if all that its account has were held for it: for looking ahead, never for writing."""
    available = ledger.balance_of(tx, session.account_id).available_microcredits
    return replace(session, held_microcredits=session.held_microcredits + available)


def _refreshed(tx: Transaction, session: Session, charges: list[Posting]) -> Session:
    wanted = session_billing.hold_wanted(session, tx.now_ms)
    given_back = sum(max(0, charge.amount_microcredits) for charge in charges)
    available = ledger.balance_of(tx, session.account_id).available_microcredits + given_back
    return _with_hold(tx, session, charges, session_billing.hold_possible(session, wanted, available))


def _with_hold(tx: Transaction, session: Session, charges: list[Posting], held_microcredits: int) -> Session:
    ledger.post(tx, session.account_id, [*charges, *session_billing.hold_change(session, held_microcredits)])
    return replace(session, held_microcredits=held_microcredits)
