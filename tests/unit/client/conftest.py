"""The client's fixtures: a mill in memory and clients of it, on a machine without settings."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.ports import kept_port
from tests.unit.client.mill import KEY, Mill
from tidemill import AsyncClient, Client
from tidemill.cli.app import app
from tidemill.plans import following


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("TIDEMILL_API_KEY", "TIDEMILL_TARGET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TIDEMILL_CONFIG", str(tmp_path / "config.toml"))


@pytest.fixture(autouse=True)
def _farewells_are_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: a client waits for 2 seconds."""
    monkeypatch.setattr(following, "FAREWELL_TIMEOUT", 60.0)


@pytest.fixture
def mill() -> Iterator[Mill]:
    found = Mill()
    with kept_port() as port:
        found.start(port)
        yield found
        found.stop()


@pytest.fixture
def client(mill: Mill) -> Iterator[Client]:
    with Client(KEY, target=mill.target) as found:
        yield found


@pytest.fixture
async def async_client(mill: Mill) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(KEY, target=mill.target) as found:
        yield found


@pytest.fixture
def tidemill(mill: Mill, monkeypatch: pytest.MonkeyPatch):
    """Runs a command line and returns what it printed and how it ended."""
    monkeypatch.setenv("TIDEMILL_TARGET", mill.target)
    monkeypatch.setenv("TIDEMILL_API_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()

    def run(*arguments: str, text: str | None = None) -> Result:
        result = runner.invoke(app, list(arguments), input=text, prog_name="tidemill")
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
