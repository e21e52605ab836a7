"""The ledger's arithmetic: whatever is posted, a balance is the sum of its rows, and no credit is there twice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_services.domain.errors import InsufficientCreditsError
from tidemill_services.domain.ledger import Balance, Contra, EntryKind, LedgerEntry, Posting, balance_after, posted

AMOUNTS = st.integers(1, 50)
POSTINGS = st.one_of(
    AMOUNTS.map(lambda amount: Posting(EntryKind.GRANT, Contra.GRANTS, amount)),
    AMOUNTS.map(lambda amount: Posting(EntryKind.HOLD, Contra.HOLDS, hold_microcredits=amount)),
    AMOUNTS.map(lambda amount: Posting(EntryKind.RELEASE, Contra.HOLDS, hold_microcredits=-amount)),
    AMOUNTS.map(lambda amount: Posting(EntryKind.SESSION_CHARGE, Contra.SESSIONS, -amount, -amount)),
    AMOUNTS.map(lambda amount: Posting(EntryKind.REFUND, Contra.SESSIONS, amount)),
    st.integers(-50, 50).map(lambda amount: Posting(EntryKind.CORRECTION, Contra.CORRECTIONS, amount)),
)


def play(postings: list[Posting]) -> tuple[list[LedgerEntry], int]:
    """Post one after the other; return the rows, and how many were refused."""
    balance, rows, refused = Balance(), [], 0
    for posting in postings:
        before = balance
        try:
            row = posted(balance, "a", posting, len(rows) + 1, 0)
        except InsufficientCreditsError:
            refused += 1
            assert balance == before
            continue
        rows.append(row)
        balance = balance_after(row)
    return rows, refused


@given(st.lists(POSTINGS, max_size=60))
@pytest.mark.rule("L4")
def test_a_balance_is_the_sum_of_its_rows_and_what_is_held_is_a_part_of_it(postings: list[Posting]):
    rows, refused = play(postings)
    assert len(rows) + refused == len(postings)
    for number, row in enumerate(rows, start=1):
        assert row.account_sequence == number
        assert row.balance_microcredits == sum(each.posting.amount_microcredits for each in rows[:number])
        assert row.held_microcredits == sum(each.posting.hold_microcredits for each in rows[:number])
        assert 0 <= row.held_microcredits <= row.balance_microcredits


@given(st.integers(0, 50), st.integers(0, 50), POSTINGS)
@pytest.mark.rule("L4")
def test_what_is_refused_is_exactly_what_would_leave_too_little(balance: int, held: int, posting: Posting):
    before = Balance(max(balance, held), min(balance, held), 7)
    after = before.balance_microcredits + posting.amount_microcredits
    held_after = before.held_microcredits + posting.hold_microcredits
    if 0 <= held_after <= after:
        assert balance_after(posted(before, "a", posting, 1, 0)) == Balance(after, held_after, 8)
    else:
        with pytest.raises(InsufficientCreditsError):
            posted(before, "a", posting, 1, 0)
