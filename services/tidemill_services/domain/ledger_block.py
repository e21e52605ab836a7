"""Blocks: rows of the ledger sealed in a chain, so that none of them can change unseen."""

import hashlib
import json
from dataclasses import dataclass

from tidemill_services.domain.merkle import HASH_BYTES

NO_BLOCK_HASH = bytes(HASH_BYTES)  # before the first one


@dataclass(frozen=True, slots=True)
class LedgerBlock:
    """The rows from `first_sequence` to `last_sequence`, and all before them by `previous_hash`."""

    number: int
    first_sequence: int
    last_sequence: int
    merkle_root: bytes
    previous_hash: bytes
    seal_ms: int

    @property
    def num_rows(self) -> int:
        """How many rows it seals."""
        return self.last_sequence - self.first_sequence + 1


def block_hash(block: LedgerBlock) -> bytes:
    """Return the hash over all that a block says: 32 bytes."""
    said = {
        "first_sequence": block.first_sequence,
        "last_sequence": block.last_sequence,
        "merkle_root": block.merkle_root.hex(),
        "number": block.number,
        "previous_hash": block.previous_hash.hex(),
        "seal_ms": block.seal_ms,
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, separators=(",", ":")).encode("ascii")).digest()
