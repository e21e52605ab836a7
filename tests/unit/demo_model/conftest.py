"""The demo model's scripts import one another by their own names, as programs in one folder do."""

from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[3] / "models" / "tide_nano"


@pytest.fixture(autouse=True)
def scripts(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the scripts, on the path for one test."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return SCRIPTS
