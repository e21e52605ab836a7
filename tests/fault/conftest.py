"""Servers to strain, and the summary of what was measured: printed at the end, written as JSON where
`TIDEMILL_STRAIN_REPORT` says.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fault.long_answers import long_server_process
from tests.scale import IS_FULL
from tests.server_process import ServerProcess

_PROPERTY = "strain"


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Keeps figures of the test for the summary."""

    def keep(**figures: object) -> None:
        request.node.user_properties.append((_PROPERTY, {name: str(figure) for name, figure in figures.items()}))

    return keep


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that processes of other users may read, as those of PostgreSQL are."""
    with tempfile.TemporaryDirectory(prefix="tidemill-fault-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def long_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server with the model `long-llama`, for tests that leave it whole."""
    with long_server_process(tmp_path_factory.mktemp("long-server"), "--stop-grace", "1") as server:
        yield server


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all tests that kept some."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = [
        {"test": report.nodeid.rpartition("::")[2], "outcome": report.outcome, "figures": figures}
        for report in reports
        if report.when == "call" and (figures := _figures(report))
    ]
    if not rows:
        return
    form = "full" if IS_FULL else "short"
    terminalreporter.section(f"strain, {form} form")
    for row in rows:
        terminalreporter.line(f"{row['test']}  [{row['outcome']}]")
        for name, figure in row["figures"].items():
            terminalreporter.line(f"    {name.replace('_', ' ')}: {figure}")
    if path := os.environ.get("TIDEMILL_STRAIN_REPORT"):
        Path(path).write_text(json.dumps({"form": form, "tests": rows}, indent=1) + "\n")


def _figures(report: pytest.TestReport) -> dict[str, str]:
    figures: dict[str, str] = {}
    for name, kept in report.user_properties:
        if name == _PROPERTY:
            figures |= kept
    return figures
