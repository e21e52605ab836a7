import re
from dataclasses import fields
from pathlib import Path

from tidemill_services.settings import Settings

OPERATIONS = (Path(__file__).resolve().parents[3] / "docs" / "operations.md").read_text()


def test_every_setting_and_nothing_else_stands_in_the_table() -> None:
    rows = {
        name
        for line in OPERATIONS.splitlines()
        if line.startswith("| `TIDEMILL_")
        for name in re.findall(r"`(TIDEMILL_\w+)`", line.split("|")[1])
    }
    assert rows == {f"TIDEMILL_{setting.name.upper()}" for setting in fields(Settings)}
