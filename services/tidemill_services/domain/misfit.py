"""What a proof of the books found wrong."""

import enum
from dataclasses import dataclass


class MisfitKind(enum.StrEnum):
    """What does not fit."""

    ROW_UNREADABLE = "ROW_UNREADABLE"  # a column holds what no row can
    ROW_MISSING = "ROW_MISSING"  # the numbers of the rows have a gap
    ROW_ORDER = "ROW_ORDER"  # an account's rows do not follow each other
    ROW_BALANCE = "ROW_BALANCE"  # a row's balance does not follow from the row before
    ROW_AMOUNT = "ROW_AMOUNT"  # an amount that its kind cannot have
    BLOCK_UNREADABLE = "BLOCK_UNREADABLE"
    BLOCK_CHAIN = "BLOCK_CHAIN"  # a block does not follow the one before
    BLOCK_HASH = "BLOCK_HASH"  # a block does not have the hash of its contents
    BLOCK_ROWS = "BLOCK_ROWS"  # its rows are not those that were sealed
    BALANCE = "BALANCE"  # an account's balance is not that of its last row
    TOTAL = "TOTAL"  # a total is not the sum of the sealed rows
    TOKEN_CHARGE = "TOKEN_CHARGE"  # noqa: S105 -- no password; an answer costs other than its tokens do
    SESSION_UNREADABLE = "SESSION_UNREADABLE"  # a column holds what no session can
    SESSION_ROW = "SESSION_ROW"  # a row of a session that is not there, or does not fit it
    SESSION_TIME = "SESSION_TIME"  # a time charged twice, out of order, or after the end
    SESSION_SECONDS = "SESSION_SECONDS"  # the rows' seconds are not those of the session
    SESSION_HOLD = "SESSION_HOLD"  # what is held for a session is not what its rows say
    KEPT_ROW = "KEPT_ROW"  # somebody kept the proof of another row
    KEPT_BLOCK = "KEPT_BLOCK"  # somebody kept another block's hash


@dataclass(frozen=True, slots=True)
class Misfit:
    """One thing that does not fit, and where. What is empty or 0 says nothing."""

    kind: MisfitKind
    sentence: str
    account: str = ""  # accounts/{account}
    account_sequence: int = 0
    ledger_sequence: int = 0
    block: int = 0
    session: str = ""  # sessions/{session}
