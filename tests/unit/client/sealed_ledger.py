"""A ledger in memory that seals its rows and makes receipts, written from the definitions of RFC 6962."""

import hashlib
import json
from typing import Any

from tidemill.v1 import billing_pb2

SESSION = "sessions/1"
ACCOUNT = "accounts/mine"
PRICE = 700


def canonical(found: dict[str, Any]) -> str:
    return json.dumps(found, sort_keys=True, separators=(",", ":"))


def tree_hash(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, 2.1."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    middle = split(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:middle]) + tree_hash(leaves[middle:])).digest()


def audit_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, 2.1.1."""
    if len(leaves) == 1:
        return []
    middle = split(len(leaves))
    if index < middle:
        return [*audit_path(index, leaves[:middle]), tree_hash(leaves[middle:])]
    return [*audit_path(index - middle, leaves[middle:]), tree_hash(leaves[:middle])]


def split(size: int) -> int:
    """The largest power of two below the size."""
    return 1 << (size - 1).bit_length() - 1


class SealedLedger:
    """Rows of accounts, in blocks."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.blocks: list[billing_pb2.LedgerBlock] = []
        self._balances: dict[str, tuple[int, int, int]] = {}

    def add(self, account: str = ACCOUNT, **fields: Any) -> dict[str, Any]:
        """Add a row to an account."""
        sequence, balance, held = self._balances.get(account, (0, 0, 0))
        sequence += 1
        balance += fields.get("amount_microcredits", 0)
        held += fields.get("hold_microcredits", 0)
        self._balances[account] = (sequence, balance, held)
        row = {
            "account": account, "account_sequence": sequence, "actor": "", "amount_microcredits": 0,
            "balance_microcredits": balance, "billed_seconds": 0, "commit_ms": 1_700_000_000_000 + len(self.rows),
            "completion_tokens": 0, "contra": "", "from_ms": 0, "held_microcredits": held, "hold_microcredits": 0,
            "kind": "GRANT", "ledger_sequence": len(self.rows) + 1, "model": "", "num_generations": 0,
            "price_microcredits_per_second": 0, "price_revision": 0, "prompt_tokens": 0, "reason": "", "subject": "",
            "until_ms": 0,
        } | fields  # fmt: skip
        self.rows.append(row)
        return row

    def hold(self, amount: int, subject: str = SESSION, account: str = ACCOUNT) -> None:
        """Set credits aside for a session, or with a negative amount no longer."""
        kind = "HOLD" if amount > 0 else "RELEASE"
        self.add(account, kind=kind, hold_microcredits=amount, subject=subject)

    def charge(self, seconds: int, subject: str = SESSION, account: str = ACCOUNT, price: int = PRICE) -> None:
        """Charge a session's time to what is held for it."""
        self.add(
            account, kind="SESSION_CHARGE", amount_microcredits=-seconds * price, hold_microcredits=-seconds * price,
            billed_seconds=seconds, price_microcredits_per_second=price, price_revision=1, subject=subject,
            model="models/tide-nano", contra="platform/sessions", num_generations=2, prompt_tokens=5,
            completion_tokens=7, from_ms=1_700_000_000_000, until_ms=1_700_000_000_000 + seconds * 1_000,
        )  # fmt: skip

    def seal(self, size: int | None = None) -> None:
        """Put the next rows, all when no size is said, into a block."""
        first = self.blocks[-1].last_sequence if self.blocks else 0
        last = len(self.rows) if size is None else first + size
        block = billing_pb2.LedgerBlock(
            number=len(self.blocks) + 1,
            first_sequence=first + 1,
            last_sequence=last,
            merkle_root=tree_hash(self._leaves(first, last)),
            previous_hash=self.blocks[-1].block_hash if self.blocks else bytes(32),
        )
        block.seal_time.FromMilliseconds(1_700_000_000_200 + block.number)
        self.blocks.append(hashed(block))

    def receipt(self, subject: str = SESSION, *, final: bool = True) -> billing_pb2.Receipt:
        """The receipt of a session all rows of which are sealed."""
        rows = [row for row in self.rows if row["subject"] == subject]
        receipt = billing_pb2.Receipt(
            subject=subject,
            account=rows[0]["account"] if rows else ACCOUNT,
            cost_microcredits=-sum(row["amount_microcredits"] for row in rows),
            billed_seconds=sum(row["billed_seconds"] for row in rows),
            final=final,
        )
        for row in rows:
            place = row["ledger_sequence"]
            block = next(one for one in self.blocks if one.first_sequence <= place <= one.last_sequence)
            leaves = self._leaves(block.first_sequence - 1, block.last_sequence)
            path = audit_path(place - block.first_sequence, leaves)
            receipt.entries.add(row=canonical(row), block_number=block.number, merkle_path=path)
            if block not in receipt.blocks:
                receipt.blocks.append(block)
        return receipt

    def _leaves(self, first: int, last: int) -> list[bytes]:
        return [canonical(row).encode() for row in self.rows[first:last]]


def hashed(block: billing_pb2.LedgerBlock) -> billing_pb2.LedgerBlock:
    """The block with the hash of what it says."""
    contents = {
        "first_sequence": block.first_sequence, "last_sequence": block.last_sequence,
        "merkle_root": block.merkle_root.hex(), "number": block.number, "previous_hash": block.previous_hash.hex(),
        "seal_ms": block.seal_time.ToMilliseconds(),
    }  # fmt: skip
    block.block_hash = hashlib.sha256(canonical(contents).encode()).digest()
    return block


def one_session() -> SealedLedger:
    """A ledger of 5 blocks in 4 of which one session stands, which was charged 8 seconds, and got 2 of them back."""
    ledger = SealedLedger()
    ledger.add(amount_microcredits=10_000_000, reason="Welcome")
    ledger.hold(210_000)
    ledger.add("accounts/other", amount_microcredits=5)
    ledger.seal()
    ledger.charge(5)
    ledger.hold(420_000, "sessions/other", "accounts/other")
    ledger.add("accounts/other", amount_microcredits=7)
    ledger.charge(3)
    ledger.hold(70_000, "sessions/2")
    ledger.seal()
    ledger.hold(-(210_000 - 8 * PRICE))
    ledger.seal()
    ledger.add("accounts/other", amount_microcredits=9)
    ledger.seal()
    ledger.add(
        kind="REFUND",
        amount_microcredits=2 * PRICE,
        billed_seconds=-2,
        price_microcredits_per_second=PRICE,
        subject=SESSION,
        reason="It \u201cstood\u201d.",
    )
    ledger.seal()
    return ledger
