"""Credits for accounts that tests make."""

from tidemill_services.domain.ledger import Contra, EntryKind, Posting
from tidemill_services.store import ledger
from tidemill_services.store.database import Transaction

PLENTY = 10**12  # microcredits


def grant(tx: Transaction, account_id: str, microcredits: int = PLENTY) -> None:
    """Give an account credits."""
    ledger.post(tx, account_id, [Posting(EntryKind.GRANT, Contra.GRANTS, microcredits, reason="for a test")])
