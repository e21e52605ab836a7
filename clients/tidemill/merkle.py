"""Merkle trees as RFC 6962 has them, with SHA-256: whether a row stands in a sealed block."""

from collections.abc import Sequence
from hashlib import sha256

HASH_BYTES = 32


def leaf_hash(row: bytes) -> bytes:
    """The hash of a row, as it stands in the tree."""
    return sha256(b"\x00" + row).digest()


def root_of_path(leaf: bytes, index: int, num_leaves: int, path: Sequence[bytes]) -> bytes | None:
    """The root to which an audit path leads from the leaf at `index`, 0 for the first.

    None when a tree of so many leaves has no path of that length there, or something in it is no hash. The steps are
    those of RFC 9162, 2.1.3.2.
    """
    if not 0 <= index < num_leaves:
        return None
    node, last = leaf, num_leaves - 1
    for other in path:
        if last == 0 or len(other) != HASH_BYTES:
            return None
        if index % 2 or index == last:
            node = _node_hash(other, node)
            while index % 2 == 0 and index:  # a node without a neighbour goes up as it is
                index, last = index // 2, last // 2
        else:
            node = _node_hash(node, other)
        index, last = index // 2, last // 2
    return node if last == 0 else None


def _node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()
