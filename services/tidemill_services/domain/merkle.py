"""Merkle trees as in RFC 6962, with SHA-256: the root over some leaves, and the path that proves one of them."""

import hashlib
from collections.abc import Sequence

HASH_BYTES = 32


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf: 32 bytes."""
    return hashlib.sha256(b"\x00" + data).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over the hashes of at least one leaf."""
    level = list(leaves)
    while len(level) > 1:
        level = _next_level(level)
    return level[0]


def paths(leaves: Sequence[bytes], wanted: Sequence[int]) -> list[list[bytes]]:
    """Return for each index in `wanted` the hashes that lead from its leaf up to the root."""
    found: list[list[bytes]] = [[] for _ in wanted]
    places = list(wanted)
    level = list(leaves)
    while len(level) > 1:
        for path, place in zip(found, places, strict=True):
            neighbour = place ^ 1
            if neighbour < len(level):
                path.append(level[neighbour])
        places = [place // 2 for place in places]
        level = _next_level(level)
    return found


def _next_level(level: Sequence[bytes]) -> list[bytes]:
    """Join neighbours; the last of an odd number moves up as it is, which is the tree of RFC 6962."""
    pairs = [
        hashlib.sha256(b"\x01" + level[index] + level[index + 1]).digest() for index in range(0, len(level) - 1, 2)
    ]
    return pairs + ([level[-1]] if len(level) % 2 else [])
