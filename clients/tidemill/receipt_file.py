"""Receipts as files: JSON that people can read, and that anyone can check years later (docs/receipts.md)."""

import json
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from tidemill.errors import ReceiptUnreadableError
from tidemill.receipt import Receipt, receipt_message, receipt_of
from tidemill.shown import shown
from tidemill.v1 import billing_pb2

LARGEST_FILE_BYTES = 128 << 20
MOST_ENTRIES = 100_000
"""Rows of one receipt, and blocks; the longest session, of 30 days with two rows a minute, has fewer."""
_MOST_VALUES = 5_000_000
"""Values in one file, so that a small one does not become large in memory."""
_LONGEST_PATH = 63
"""Hashes from a row to the root of a block; rows have 63-bit numbers."""


def receipt_text(receipt: Receipt, *, indent: int | None = 2) -> str:
    """A receipt as JSON, with the contract's names for its fields; in one line when `indent` is None."""
    text: str = json_format.MessageToJson(
        receipt_message(receipt),
        indent=indent,
        preserving_proto_field_name=True,
        always_print_fields_with_no_presence=True,
    )
    return text


def write_receipt(receipt: Receipt, file: str | Path) -> None:
    """Write a receipt into a file; one that is there is replaced. Raises OSError."""
    Path(file).write_text(receipt_text(receipt) + "\n", encoding="utf-8")


def read_receipt(file: str | Path) -> Receipt:
    """Read a receipt's file; `verify_receipt` says whether it holds. Raises ReceiptUnreadableError."""
    try:
        with Path(file).open("rb") as opened:
            content = opened.read(LARGEST_FILE_BYTES + 1)
    except OSError as error:
        raise ReceiptUnreadableError(f"{file} cannot be read: {error.strerror or error}.", field="file") from None
    return parse_receipt(content)


def parse_receipt(content: bytes) -> Receipt:
    """Read what a receipt's file holds. Raises ReceiptUnreadableError, whatever it holds."""
    if len(content) > LARGEST_FILE_BYTES:
        raise _unreadable(f"it has more than {LARGEST_FILE_BYTES >> 20} MiB")
    try:
        message = json_format.ParseDict(_read_json(content), billing_pb2.Receipt())
        _check_times(message)
        return receipt_of(message)
    except json_format.ParseError as error:
        raise _unreadable(str(error)) from None
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        raise _unreadable(str(error) or type(error).__name__) from None


def _read_json(content: bytes) -> dict[str, Any]:
    text = content.decode()
    if text.count(",") + text.count("[") + text.count("{") > _MOST_VALUES:
        raise ValueError("it has too many values")
    found = json.loads(text, object_pairs_hook=_unique)
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 -- what is read is at fault, not who reads
    _check_lengths(found)
    return found


def _check_lengths(found: dict[str, Any]) -> None:
    """What is too long is found here, since making messages of it takes longer than anything else."""
    for name in ("entries", "blocks"):
        if isinstance(found.get(name), list) and len(found[name]) > MOST_ENTRIES:
            raise ValueError(f"it has more than {MOST_ENTRIES:,} {name}")
    entries = found.get("entries")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            raise ValueError("it has an entry that is no JSON object")  # noqa: TRY004 -- as above
        for path in (entry.get("merkle_path"), entry.get("merklePath")):
            if path and len(path) > _LONGEST_PATH:
                raise ValueError(f"it has a path of {len(path):,} hashes")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names differ: else people and programs could read different things in it."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it names a field twice")
    return found


def _check_times(message: billing_pb2.Receipt) -> None:
    for block in message.blocks:
        if block.seal_time.nanos % 1_000_000:
            raise ValueError(f"block {block.number} was not sealed at a whole millisecond")


def _unreadable(what: str) -> ReceiptUnreadableError:
    said = shown(what.rstrip("."), longest=200)  # parts of the file may be in it
    return ReceiptUnreadableError(f"This is no receipt of a session: {said}.", field="file")
