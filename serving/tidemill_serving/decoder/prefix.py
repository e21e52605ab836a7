"""Names the starts of token sequences, so that a prompt finds what was computed for another that begins alike."""

from hashlib import blake2b

from tidemill_serving.decoder.devices.device import IntArray

BLOCK_LENGTH = 64  # tokens
MAX_SALT_BYTES = 64  # what the hash takes as its key
_DIGEST_BYTES = 16

Chain = tuple[bytes, ...]
"""One digest for each whole block of a sequence; each covers all the blocks before it, too."""


def extend_chain(chain: Chain, tokens: IntArray, salt: bytes) -> Chain:
    """The chain of all whole blocks of `tokens`, the first of which `chain` names already.

    Chains of different salts have nothing in common.
    """
    digests = list(chain)
    digest = digests[-1] if digests else b""
    for start in range(len(digests) * BLOCK_LENGTH, len(tokens) - BLOCK_LENGTH + 1, BLOCK_LENGTH):
        block = tokens[start : start + BLOCK_LENGTH].tobytes()
        digest = blake2b(digest + block, digest_size=_DIGEST_BYTES, key=salt).digest()
        digests.append(digest)
    return tuple(digests)


def num_shared_blocks(one: Chain, other: Chain) -> int:
    """How many blocks both begin with. Where two digests are equal, all before them are."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[middle - 1] == other[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
