"""Merkle trees, against what RFC 6962 says, word by word."""

from hashlib import sha256

from tidemill.merkle import root_of_path
from tidemill_services.domain import merkle


def literal_root(entries: list[bytes]) -> bytes:
    """RFC 6962, 2.1: the hash of the list's halves, the left one being the largest power of two below its length."""
    if len(entries) == 1:
        return sha256(b"\x00" + entries[0]).digest()
    split = 1
    while split * 2 < len(entries):
        split *= 2
    return sha256(b"\x01" + literal_root(entries[:split]) + literal_root(entries[split:])).digest()


def literal_path(place: int, entries: list[bytes]) -> list[bytes]:
    """RFC 6962, 2.1.1."""
    if len(entries) == 1:
        return []
    split = 1
    while split * 2 < len(entries):
        split *= 2
    if place < split:
        return [*literal_path(place, entries[:split]), literal_root(entries[split:])]
    return [*literal_path(place - split, entries[split:]), literal_root(entries[:split])]


def test_the_root_is_that_of_the_rfc_for_1_to_200_leaves():
    for count in range(1, 201):
        entries = [b"row %d" % number for number in range(count)]
        assert merkle.root([merkle.leaf_hash(entry) for entry in entries]) == literal_root(entries)


def test_every_path_is_that_of_the_rfc_and_leads_to_the_root():
    for count in (*range(1, 34), 63, 64, 65, 100, 127, 128, 129, 199, 200):
        entries = [b"row %d" % number for number in range(count)]
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        paths = merkle.paths(leaves, range(count))
        for place, path in enumerate(paths):
            assert root_of_path(leaves[place], place, count, path) == merkle.root(leaves)
            if count < 34:
                assert path == literal_path(place, entries)


def test_the_path_of_one_leaf_proves_no_other_one():
    leaves = [merkle.leaf_hash(b"%d" % number) for number in range(13)]
    for place, path in enumerate(merkle.paths(leaves, range(13))):
        for other in range(13):
            proves = root_of_path(leaves[other], other, 13, path) == merkle.root(leaves)
            assert proves == (other == place)
