"""Whether blocks fit the rows that they sealed, and each other: rows in, what does not fit out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidemill_services.domain import merkle
from tidemill_services.domain.ledger import LedgerEntry, canonical_row
from tidemill_services.domain.ledger_block import NO_BLOCK_HASH, LedgerBlock, block_hash
from tidemill_services.domain.misfit import Misfit, MisfitKind


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row, or a block, with a column that holds what it cannot."""

    number: int  # 0 where that is what cannot be read
    sentence: str


@dataclass(frozen=True, slots=True)
class KeptBlock:
    """A block with the hash that is kept beside its contents."""

    block: LedgerBlock
    block_hash: bytes


class BlockProof:
    """Takes all rows in their order, and yields what does not fit of the blocks that sealed them.

    After a block that cannot be read it looks at no other one.
    """

    def __init__(self, blocks: Iterable[KeptBlock | Unreadable]) -> None:
        """`blocks` come by number, from the first on."""
        self.last: KeptBlock | None = None  # of those that were looked at
        self.num_blocks = 0
        self._waiting = iter(blocks)
        self._open: KeptBlock | None = None  # the one whose rows come now
        self._leaves: list[bytes] = []
        self._has_gap = False

    def open_for(self, ledger_sequence: int) -> Iterator[Misfit]:
        """Come to the block of the row that is next; yield what does not fit of those before it, and of its links."""
        if self._open is None and self.last is None:
            yield from self._open_next()
        while self._open is not None and self._open.block.last_sequence < ledger_sequence:
            yield from self._close(self._open)
            yield from self._open_next()

    @property
    def number(self) -> int:
        """Of the block of the row that is next; 0 for one that is not sealed."""
        return 0 if self._open is None else self._open.block.number

    def take(self, row: LedgerEntry) -> None:
        """Take the row, where a block has sealed it."""
        if self._open is not None:
            self._leaves.append(merkle.leaf_hash(canonical_row(row)))

    def take_gap(self) -> None:
        """Know that a row of this block is missing or cannot be read: its root is not compared."""
        self._has_gap = True

    def end(self) -> Iterator[Misfit]:
        """Yield what does not fit of the blocks that are left: there are no more rows."""
        if self._open is None and self.last is None:
            yield from self._open_next()
        while self._open is not None:
            yield from self._close(self._open)
            yield from self._open_next()

    def _open_next(self) -> Iterator[Misfit]:
        self._open, self._leaves, self._has_gap = None, [], False
        found = next(self._waiting, None)
        if found is None:
            return
        self.num_blocks += 1
        if isinstance(found, Unreadable):
            self._waiting = iter(())
            yield Misfit(MisfitKind.BLOCK_UNREADABLE, found.sentence, block=found.number)
            return
        yield from _link_misfits(self.last, found)
        self._open = self.last = found

    def _close(self, kept: KeptBlock) -> Iterator[Misfit]:
        block = kept.block
        if self._has_gap:
            return
        if len(self._leaves) < block.num_rows:
            missing = block.first_sequence + len(self._leaves)
            sentence = f"Row {missing} is missing: block {block.number} sealed it."
            yield Misfit(MisfitKind.ROW_MISSING, sentence, ledger_sequence=missing, block=block.number)
        elif self._leaves and merkle.root(self._leaves) != block.merkle_root:
            yield _misfit(
                MisfitKind.BLOCK_ROWS,
                block,
                f"does not fit its rows, {block.first_sequence} to {block.last_sequence}: one of them, or their order, "
                "was changed after they were sealed",
            )


def _link_misfits(before: KeptBlock | None, kept: KeptBlock) -> Iterator[Misfit]:
    block = kept.block
    number, first_sequence, previous_hash = 1, 1, NO_BLOCK_HASH
    if before is not None:
        number, first_sequence = before.block.number + 1, before.block.last_sequence + 1
        previous_hash = before.block_hash
    if block.number != number:
        yield _misfit(MisfitKind.BLOCK_CHAIN, block, f"stands where block {number} should")
    elif block.first_sequence != first_sequence or block.num_rows < 1:
        rows = f"{block.first_sequence} to {block.last_sequence}"
        yield _misfit(MisfitKind.BLOCK_CHAIN, block, f"seals rows {rows}, and row {first_sequence} is next")
    elif block.previous_hash != previous_hash:
        yield _misfit(MisfitKind.BLOCK_CHAIN, block, "does not name the hash of the block before")
    if block_hash(block) != kept.block_hash:
        yield _misfit(MisfitKind.BLOCK_HASH, block, "was changed: its contents have another hash than is kept with it")


def _misfit(kind: MisfitKind, block: LedgerBlock, what: str) -> Misfit:
    return Misfit(kind, f"Block {block.number} {what}.", block=block.number)
