"""What docs/ledger.md says of hashes, against what is hashed."""

import base64
import json
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from tidemill_services.domain import merkle
from tidemill_services.domain.ledger import Contra, EntryKind, LedgerEntry, Posting, canonical_row
from tidemill_services.domain.ledger_block import NO_BLOCK_HASH, LedgerBlock, block_hash

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "ledger.md").read_text()
ROWS = [
    LedgerEntry(number, "a", number, Posting(EntryKind.GRANT, Contra.GRANTS, 1, reason="für"), number, 0, 5)
    for number in range(1, 8)
]


def example(first_name: str) -> dict[str, object]:
    """The JSON of the document that begins with this name."""
    (text,) = re.findall(rf'   (\{{"{first_name}":.*?\}})\n   ```', DOCUMENT, re.DOTALL)
    found: dict[str, object] = json.loads(text)
    return found


def test_a_row_has_the_fields_of_the_example_in_their_order() -> None:
    assert list(json.loads(canonical_row(ROWS[0]))) == list(example("account"))
    assert b"f\\u00fcr" in canonical_row(ROWS[0])


def test_a_block_is_hashed_as_the_example_says() -> None:
    block = LedgerBlock(1, 1, 7, bytes(range(32)), NO_BLOCK_HASH, 9)
    said = dict.fromkeys(example("first_sequence"))
    said |= {"first_sequence": 1, "last_sequence": 7, "merkle_root": bytes(range(32)).hex(), "number": 1}
    said |= {"previous_hash": "0" * 64, "seal_ms": 9}
    assert block_hash(block) == sha256(json.dumps(said, separators=(",", ":")).encode()).digest()


@pytest.mark.skipif(not (shutil.which("jq") and shutil.which("xxd")), reason="the tools of the example are missing")
def test_the_shell_lines_lead_from_the_first_row_to_the_root(tmp_path: Path) -> None:
    leaves = [merkle.leaf_hash(canonical_row(row)) for row in ROWS]
    (path,) = merkle.paths(leaves, [0])
    entry = {"row": canonical_row(ROWS[0]).decode(), "merkle_path": [base64.b64encode(each).decode() for each in path]}
    blocks = [{"merkle_root": base64.b64encode(merkle.root(leaves)).decode()}]
    (tmp_path / "receipt.json").write_text(json.dumps({"entries": [entry], "blocks": blocks}))
    (lines,) = re.findall(r"```\n(node=.*?)```", DOCUMENT, re.DOTALL)
    told = subprocess.run(["sh", "-ec", lines], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == [merkle.root(leaves).hex()] * 2
