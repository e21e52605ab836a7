"""The program with which docs/receipts.md tells people to check a receipt."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.client.sealed_ledger import one_session
from tidemill.receipt import receipt_of
from tidemill.receipt_file import write_receipt
from tidemill.sealed_row import SealedRow

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "receipts.md").read_text()


@pytest.fixture
def receipt(tmp_path: Path) -> Path:
    write_receipt(receipt_of(one_session().receipt()), tmp_path / "receipt.json")
    return tmp_path / "receipt.json"


def check(receipt: Path) -> subprocess.CompletedProcess[str]:
    (program,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    line = [sys.executable, "-I", "-S", "-c", program, str(receipt)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


def test_it_needs_the_standard_library_only_and_accepts_a_good_receipt(receipt: Path) -> None:
    done = check(receipt)
    assert (done.stdout, done.stderr) == ("sessions/1 cost 4200 microcredits for 6 seconds.\n", "")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('\\"billed_seconds\\":5', '\\"billed_seconds\\":4', "row 4 was changed"),
        ('"cost_microcredits": "4200"', '"cost_microcredits": "4199"', "the cost does not add up"),
        ('"2023-11-14T22:13:20.202Z"', '"2023-11-14T22:13:20.203Z"', "block 2 was changed"),
        ('"sessions/1"', '"sessions/2"', "the row is another session's"),
    ],
)
def test_it_finds_what_was_changed(receipt: Path, old: str, new: str, says: str) -> None:
    assert old in receipt.read_text()
    receipt.write_text(receipt.read_text().replace(old, new))
    assert says in check(receipt).stderr


def test_every_name_of_a_row_is_explained() -> None:
    table = DOCUMENT[DOCUMENT.index("| name | means |") : DOCUMENT.index("## By hand")]
    explained = {
        name
        for line in table.splitlines()[2:]
        for name in re.findall(r"`(\w+)`", line.split("|")[1] if "|" in line else "")
    }
    assert explained == set(SealedRow.__slots__)
