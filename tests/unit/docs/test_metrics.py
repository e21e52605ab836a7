"""What docs/metrics.md says must be what the pages show, and what Prometheus takes."""

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from prometheus_client.metrics_core import Metric

from tests.metrics_document import BLOCKS, DOCUMENT, EXPRESSIONS
from tests.prometheus_server import prometheus_programs
from tidemill_services.domain.ledger import EntryKind
from tidemill_services.domain.session import SessionState
from tidemill_services.engine_client import ReplicaStats
from tidemill_services.metrics import Metrics
from tidemill_services.metrics.billing import LedgerTotals
from tidemill_services.scaler.replicas import PoolCounts
from tidemill_services.store.ledger_seal import Totals

__all__ = ["prometheus_programs"]

_ROW = re.compile(r"^\| `(tidemill_\w+)` \| (\w+) \| ([\w, ]*)\|", re.MULTILINE)


def rows_of(heading: str) -> dict[str, tuple[str, set[str]]]:
    """The table below a heading: type and labels by name."""
    section = DOCUMENT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {name: (kind, set(labels.replace(",", " ").split())) for name, kind, labels in _ROW.findall(section)}


def shown(families: Iterable[Metric]) -> dict[str, tuple[str, set[str]]]:
    """The same of a page."""
    return {
        f"{family.name}_total" if family.type == "counter" else family.name: (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in families
        if family.name.startswith("tidemill_")
    }


async def test_every_series_of_a_process_and_nothing_else_stands_there_with_its_type_and_labels() -> None:
    metrics = Metrics()
    metrics.calls.begin("/tidemill.v1.InferenceService/Generate")
    metrics.calls.end("/tidemill.v1.InferenceService/Generate", "OK", "", 0.1)
    metrics.http.begin()
    metrics.http.end("/v1/models", 200, "", 0.1)
    metrics.generations.of("tiny").begin()
    metrics.pools.watch(lambda: {"tiny": PoolCounts(1, 2, 3, 4, 5, 6)})
    metrics.engines.watch(lambda: {"tiny": {"replica-1": ReplicaStats()}})
    metrics.sessions.show_open({("tiny", SessionState.ACTIVE): 1})
    assert rows_of("What one process did") == shown(metrics.registry.collect())


def test_every_series_of_the_ledger_and_nothing_else_stands_there_with_its_type_and_labels() -> None:
    totals = {("herons", "tiny", kind.value): Totals() for kind in EntryKind}
    assert rows_of("What the ledger holds") == shown(LedgerTotals(7, totals, 0).collect())


def test_expressions_name_only_series_that_are_there() -> None:
    there = {**rows_of("What one process did"), **rows_of("What the ledger holds")}
    parts = {
        f"{name}_{part}" for name, (kind, _) in there.items() if kind == "histogram" for part in ("bucket", "count")
    }
    named = {name for expression in EXPRESSIONS for name in re.findall(r"\btidemill_\w+", expression)}
    assert named
    assert named <= set(there) | parts


def test_promtool_takes_the_configuration_and_the_alerts(prometheus_programs: None, tmp_path: Path) -> None:
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text)
    for command in (["config", "prometheus.yml"], ["rules", "tidemill-alerts.yml"]):
        checked = subprocess.run(
            ["promtool", "check", *command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "SUCCESS" in checked.stdout
