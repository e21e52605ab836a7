"""Receipts as files: what is read of them, and how whatever else lies there is refused."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tidemill
from tests.scale import count
from tests.unit.client.sealed_ledger import PRICE, SESSION, one_session
from tidemill import ReceiptUnreadableError, read_receipt, verify_receipt, write_receipt
from tidemill.receipt import receipt_message, receipt_of
from tidemill.receipt_file import LARGEST_FILE_BYTES, MOST_ENTRIES, parse_receipt, receipt_text

MESSAGE = one_session().receipt()
GOOD = receipt_of(MESSAGE)
TEXT = receipt_text(GOOD)


def test_a_file_is_read_as_it_was_written_and_people_can_read_it(tmp_path: Path) -> None:
    write_receipt(GOOD, tmp_path / "receipt.json")
    assert read_receipt(tmp_path / "receipt.json") == GOOD
    shown = json.loads((tmp_path / "receipt.json").read_text())
    assert (shown["subject"], shown["cost_microcredits"], shown["final"]) == (SESSION, str(6 * PRICE), True)
    assert json.loads(shown["entries"][0]["row"])["kind"] == "HOLD"
    assert shown["blocks"][0]["seal_time"] == "2023-11-14T22:13:20.201Z"
    assert base64.b64decode(shown["blocks"][1]["previous_hash"]) == GOOD.blocks[0].block_hash
    assert parse_receipt(receipt_text(GOOD, indent=None).encode()) == GOOD
    assert receipt_message(GOOD) == MESSAGE


@settings(max_examples=count(400, full=20_000), deadline=None)
@given(st.integers(0, len(TEXT) - 1), st.integers(0, 255))
def test_any_changed_byte_of_a_file_is_found_unless_it_says_the_same(place: int, byte: int) -> None:
    changed = bytearray(TEXT.encode())
    changed[place] = byte
    try:
        found = parse_receipt(bytes(changed))
    except ReceiptUnreadableError:
        return
    assert found == GOOD or not verify_receipt(found).ok  # a space, or a bit of base64 that says nothing, may differ


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\xff\xfe", b"receipt", b"5", b"null", b"[]", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"NaN",
        b'{"entries": 5}', b'{"entries": [5]}', b'{"entries": {}}', b'{"entries": [null]}',
        b'{"entries": [{"row": {}}]}', b'{"entries": [{"merkle_path": [[]]}]}', b'{"subject": "\\ud800"}',
        b'{"subject": 5}', b'{"subject": "a", "subject": "b"}', b'{"colour": "red"}', b'{"final": "yes"}',
        b'{"cost_microcredits": 1e400}', b'{"cost_microcredits": 1.5}',
        b'{"cost_microcredits": 9223372036854775808}', b'{"cost_microcredits": ' + b"9" * 5_000 + b"}",
        b'{"blocks": [{"merkle_root": "a"}]}', b'{"blocks": [{"merkle_root": 5}]}',
        b'{"blocks": [{"seal_time": "noon"}]}', b'{"blocks": [{"seal_time": "9999-99-99T00:00:00Z"}]}',
        b'{"blocks": [{"seal_time": "0001-01-01T00:00:00+23:59"}]}', b'{"blocks": [{"seal_time": {}}]}',
        b'{"blocks": [{"number": 1, "seal_time": "2023-11-14T22:13:20.200500Z"}]}',
        b'{"entries": [' + b",".join([b"{}"] * 1_000_000) + b"]}",
        b'{"entries": [' + b",".join([b"{}"] * (MOST_ENTRIES + 1)) + b"]}",
        b'{"entries": [{"merkle_path": [' + b'"",' * 1_000_000 + b'""]}]}',
        b'{"entries": [{"merklePath": 5}]}', b'{"entries": {"a": 1}}', b"[" * 6_000_000, b'{"entries": [[]]}',
        b'{"\x1b[2J": 1}',
    ],
    ids=lambda content: content[:40].decode(errors="replace"),
)  # fmt: skip
def test_what_is_no_receipt_is_refused_in_a_short_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "receipt").write_bytes(content)
    with pytest.raises(ReceiptUnreadableError) as refused:
        read_receipt(tmp_path / "receipt")
    said = str(refused.value)
    assert (refused.value.reason, refused.value.field) == ("RECEIPT_UNREADABLE", "file")
    assert len(said) < 300
    assert said.isascii()
    assert said.isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b'{"blocks": [{"merkle_root": "%%%"}]}', b'{"entries": [{"row": "x"}]}',
        b'{"final": true, "billed_seconds": 1}', b'{"cost_microcredits": "9e9"}',
    ],
)  # fmt: skip
def test_what_has_a_receipts_form_only_does_not_hold(content: bytes) -> None:
    assert not verify_receipt(parse_receipt(content)).ok


@settings(max_examples=count(150, full=10_000), deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["subject", "entries", "blocks", "row", "merkle_path", "number", "seal_time", "final"]),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_whatever_a_file_says_it_is_refused_or_checked(found: object) -> None:
    try:
        receipt = parse_receipt(json.dumps(found).encode())
    except ReceiptUnreadableError:
        return
    assert isinstance(verify_receipt(receipt), tidemill.Verification)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "receipt").open("wb") as opened:
        opened.truncate(LARGEST_FILE_BYTES + 1)
    with pytest.raises(ReceiptUnreadableError, match="it has more than 128 MiB"):
        read_receipt(tmp_path / "receipt")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ReceiptUnreadableError, match=r"nothing\.json cannot be read: No such file"):
        read_receipt(tmp_path / "nothing.json")
    with pytest.raises(ReceiptUnreadableError, match="cannot be read"):
        read_receipt(tmp_path)
