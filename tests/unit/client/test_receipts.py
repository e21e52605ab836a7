"""Receipts: what is checked of them, and that nothing that counts can be changed unnoticed."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scale import count
from tests.unit.client.sealed_ledger import (
    ACCOUNT,
    PRICE,
    SESSION,
    SealedLedger,
    audit_path,
    canonical,
    hashed,
    one_session,
    tree_hash,
)
from tidemill import verify_receipt
from tidemill.merkle import leaf_hash, root_of_path
from tidemill.receipt import receipt_of
from tidemill.v1 import billing_pb2

MESSAGE = one_session().receipt()
GOOD = receipt_of(MESSAGE)


def problem_of(message: billing_pb2.Receipt) -> str:
    found = verify_receipt(receipt_of(message))
    assert found.ok == (found.problem == "")
    return found.problem


def test_a_good_receipt_holds_and_says_what_was_checked() -> None:
    found = verify_receipt(GOOD)
    assert found.ok, found.problem
    assert found.checks == (
        "4 blocks of the ledger: each has the hash of its contents, neighbours are linked.",
        "5 rows: each leads to the root of its block, so that it stands there as it was sealed.",
        f"All are of {SESSION} and of {ACCOUNT}.",
        "They stand in the account's order, where one follows the other its balance does, and none is below zero.",
        f"They add up: 6 seconds at the price that they name, {6 * PRICE} microcredits in all.",
        "Nothing is held for the session any more.",
    )


def test_a_session_that_cost_nothing_has_a_receipt_that_holds() -> None:
    assert problem_of(SealedLedger().receipt("sessions/none")) == ""


def test_a_session_that_goes_on_may_hold_credits_and_a_final_one_may_not() -> None:
    ledger = SealedLedger()
    ledger.add(amount_microcredits=1_000_000)
    ledger.hold(210_000)
    ledger.seal()
    found = verify_receipt(receipt_of(ledger.receipt(final=False)))
    assert found.checks[-1] == "The session goes on: 210000 microcredits are held for it."
    assert (
        problem_of(ledger.receipt()) == "The receipt is final, and 210000 microcredits are still held for the session."
    )


def test_the_trees_are_those_of_certificate_transparency() -> None:
    leaves = [bytes.fromhex(one) for one in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657")]
    leaves.append(bytes.fromhex("606162636465666768696a6b6c6d6e6f"))
    root = bytes.fromhex("5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328")
    assert tree_hash(leaves) == root
    assert all(
        root_of_path(leaf_hash(leaf), index, 8, audit_path(index, leaves)) == root for index, leaf in enumerate(leaves)
    )


@pytest.mark.parametrize("size", [*range(1, 35), 64, 65, 127])
def test_a_path_leads_from_each_leaf_to_the_root_and_from_no_other_place(size: int) -> None:
    leaves = [bytes([number]) for number in range(size)]
    root = tree_hash(leaves)
    for index, leaf in enumerate(leaves):
        path = audit_path(index, leaves)
        assert root_of_path(leaf_hash(leaf), index, size, path) == root
        for wrong in {0, index - 1, index + 1, size - 1, size, -1} - {index}:
            assert root_of_path(leaf_hash(leaf), wrong, size, path) != root
        assert root_of_path(leaf_hash(leaf), index, size, [*path, root]) is None
        if path:
            assert root_of_path(leaf_hash(leaf), index, size, path[:-1]) is None
            assert root_of_path(leaf_hash(leaf), index, size, [*path[:-1], path[-1] + b"x"]) is None


@settings(max_examples=count(200, full=5_000), deadline=None)
@given(st.data())
@pytest.mark.rule("L7")
def test_any_changed_bit_of_what_is_hashed_is_found(data: st.DataObject) -> None:
    changed = copy.deepcopy(MESSAGE)
    where = data.draw(st.sampled_from(["row", "path", "root", "previous", "hash"]))
    if where in {"row", "path"}:
        entry = data.draw(st.sampled_from(list(changed.entries)))
        if where == "row":
            entry.row = flipped(entry.row.encode(), data).decode(errors="replace")
        else:
            place = data.draw(st.integers(0, len(entry.merkle_path)))
            others = list(entry.merkle_path)
            others[place : place + 1] = [flipped(others[place], data) if place < len(others) else bytes(32)]
            entry.merkle_path[:] = others
    else:
        block = data.draw(st.sampled_from(list(changed.blocks)))
        field = {"root": "merkle_root", "previous": "previous_hash", "hash": "block_hash"}[where]
        setattr(block, field, flipped(getattr(block, field), data))
    assert problem_of(changed)


def flipped(found: bytes, data: st.DataObject) -> bytes:
    """With one bit the other way round."""
    place = data.draw(st.integers(0, 8 * len(found) - 1))
    changed = bytearray(found)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def change(message: billing_pb2.Receipt, path: str, value: object) -> None:
    *parents, name = path.split(".")
    target = message
    for parent in parents:
        target = target[int(parent)] if parent.isdigit() else getattr(target, parent)
    setattr(target, name, value)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("subject", "sessions/9", "Row 2 of the account is of another session: sessions/1, and the receipt of sess"),
        ("account", "accounts/x", "Row 2 of the account is of another account: accounts/mine, and the receipt of"),
        ("cost_microcredits", 1, f"The rows add up to {6 * PRICE} microcredits, and the receipt says 1."),
        ("billed_seconds", 7, "The rows add up to 6 seconds, and the receipt says 7."),
        ("entries.0.block_number", 2, "Row 1 was changed, or never stood in block 2."),
        ("entries.0.block_number", 4, "The block of row 1 is missing: 4."),
        ("entries.0.row", "", "Row 1 is none: it is no JSON."),
        ("entries.0.row", "[]", "Row 1 is none: it has other fields than a row"),
        ("entries.0.row", "[" * 9_000, "Row 1 is none: it is no JSON."),
        ("entries.0.row", " " * 20_000, "Row 1 is none: it is longer than any row."),
        ("blocks.0.number", 7, "Block 7 was changed: its contents have another hash."),
        ("blocks.0.first_sequence", 0, "Block 1 has no rows."),
        ("blocks.0.last_sequence", 0, "Block 1 has no rows."),
        ("blocks.0.merkle_root", b"", "A hash of block 1 does not have 32 bytes."),
        ("blocks.0.block_hash", bytes(33), "A hash of block 1 does not have 32 bytes."),
        ("blocks.0.seal_time.seconds", 1, "Block 1 was changed: its contents have another hash."),
    ],
)  # fmt: skip
def test_the_first_thing_that_does_not_fit_is_said(path: str, value: object, problem: str) -> None:
    changed = copy.deepcopy(MESSAGE)
    change(changed, path, value)
    assert problem_of(changed).startswith(problem)


def test_dropped_doubled_and_swapped_rows_and_blocks_are_found() -> None:
    def changed(field: str, order: list[int]) -> str:
        message = copy.deepcopy(MESSAGE)
        found = [copy.deepcopy(getattr(MESSAGE, field)[place]) for place in order]
        del getattr(message, field)[:]
        getattr(message, field).extend(found)
        return problem_of(message)

    assert changed("entries", [0, 1, 3, 4]).startswith("The rows add up to")
    assert (
        changed("entries", [0, 1, 2, 4])
        == "The receipt is final, and 204400 microcredits are still held for the session."
    )
    assert changed("entries", [0, 0, 1, 2, 3, 4]) == "Row 2 of the account stands after row 2."
    assert changed("entries", [1, 0, 2, 3, 4]) == "Row 2 of the account stands after row 3."
    assert changed("blocks", [1, 2, 3]) == "The block of row 1 is missing: 1."
    assert changed("blocks", [1, 0, 2, 3]) == "Block 1 stands after block 2."
    assert changed("blocks", [0, 0, 1, 2, 3]) == "Block 1 stands after block 1."
    without_time = copy.deepcopy(MESSAGE)
    without_time.blocks[0].ClearField("seal_time")
    assert problem_of(without_time) == "Block 1 does not say when it was sealed."


def forged(number: int, **changes: object) -> billing_pb2.LedgerBlock:
    """One of the blocks, changed, with a hash that fits what it says."""
    block = copy.deepcopy(one_session().blocks[number - 1])
    for name, value in changes.items():
        setattr(block, name, value)
    return hashed(block)


@pytest.mark.parametrize(
    ("place", "block", "problem"),
    [
        (0, forged(1, previous_hash=b"x" * 32), "Block 1 is the first, but has one before."),
        (1, forged(2, previous_hash=bytes(32)), "Block 2 is not linked to block 1: it names another hash."),
        (1, forged(2, first_sequence=2), "The rows of block 2 do not follow those of block 1."),
        (1, forged(2, first_sequence=5), "The rows of block 2 do not follow those of block 1."),
        (3, forged(5, first_sequence=3), "The rows of block 5 do not follow those of block 3."),
    ],
)
def test_a_block_that_was_hashed_anew_is_not_linked_any_more(
    place: int, block: billing_pb2.LedgerBlock, problem: str
) -> None:
    changed = copy.deepcopy(MESSAGE)
    changed.blocks[place].CopyFrom(block)
    assert problem_of(changed) == problem


def resealed(place: int, **changes: object) -> billing_pb2.Receipt:
    """A receipt of one block with valid proofs, of rows of which one says something else."""
    ledger = one_session()
    ledger.blocks.clear()
    [row for row in ledger.rows if row["subject"] == SESSION][place].update(changes)
    ledger.seal()
    return ledger.receipt()


@pytest.mark.parametrize(
    ("place", "changes", "problem"),
    [
        (1, {"amount_microcredits": -1}, "The balance of row 3 of the account does not follow from the row before."),
        (1, {"billed_seconds": 4}, "Row 3 of the account charges 3500 microcredits for 4 seconds at 700."),
        (1, {"price_microcredits_per_second": 600}, "Row 3 of the account charges 3500 microcredits for 5 seconds at"),
        (2, {"balance_microcredits": 5_000_000}, "The balance of row 4 of the account does not follow from the row"),
        (2, {"held_microcredits": 5}, "The balance of row 4 of the account does not follow from the row before."),
        (2, {"account_sequence": 3}, "Row 3 of the account stands after row 3."),
        (2, {"account_sequence": 2}, "Row 2 of the account stands after row 3."),
        (4, {"billed_seconds": -1}, "Row 7 of the account charges -1400 microcredits for -1 seconds at 700."),
        (0, {"balance_microcredits": -1}, "Row 2 of the account leaves less than nothing, or holds more than is"),
        (0, {"held_microcredits": 10_000_001}, "Row 2 of the account leaves less than nothing, or holds more than is"),
        (0, {"held_microcredits": -1}, "Row 2 of the account leaves less than nothing, or holds more than is there."),
        (0, {"hold_microcredits": -1}, "Row 2 of the account releases more than was held for the session."),
        (0, {"subject": SESSION, "account": "accounts/z"}, "Row 3 of the account is of another account: accounts/mine"),
        (0, {"extra": 1}, "Row 1 is none: it has other fields than a row; a newer Tidemill may have sealed it."),
        (0, {"reason": 5}, "Row 1 is none: it has something else than a row has in reason."),
        (0, {"commit_ms": 1.5}, "Row 1 is none: it has something else than a row has in commit_ms."),
        (0, {"commit_ms": True}, "Row 1 is none: it has something else than a row has in commit_ms."),
        (0, {"commit_ms": 10**30}, "Row 1 is none: it has something else than a row has in commit_ms."),
    ],
)  # fmt: skip
def test_rows_that_contradict_each_other_are_found_though_they_were_sealed(
    place: int, changes: dict[str, object], problem: str
) -> None:
    assert problem_of(resealed(place, **changes)).startswith(problem)


@pytest.mark.parametrize(
    "other",
    [
        lambda row: json.dumps(json.loads(row)),  # with spaces
        lambda row: row.replace('"actor":"",', '"actor":"x","actor":"",'),
        lambda row: row.replace("Welcome", "W\\u0065lcome").replace('"HOLD"', '"\\u0048OLD"'),
        lambda row: row.replace('"actor":""', '"actor":"\u00e9"'),
        lambda row: row.replace('"until_ms":0', '"until_ms":-0'),
    ],
)
def test_a_row_has_one_form_only(other) -> None:
    changed = copy.deepcopy(MESSAGE)
    changed.entries[0].row = other(changed.entries[0].row)
    assert problem_of(changed) == "Row 1 is none: it is not in the form that rows are sealed in."


def test_texts_of_a_receipt_are_shown_without_what_a_terminal_obeys() -> None:
    changed = copy.deepcopy(MESSAGE)
    changed.subject = "sessions/\x1b[2J" + "x" * 500
    assert "\\x1b[2J" in problem_of(changed)
    assert len(problem_of(changed)) < 300


def test_the_rows_of_the_tests_are_those_that_are_sealed() -> None:
    assert all(entry.row == canonical(json.loads(entry.row)) for entry in MESSAGE.entries)
