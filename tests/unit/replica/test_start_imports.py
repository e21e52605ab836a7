"""What a replica imports before its port is open, and before it has loaded a graph."""

import subprocess
import sys

import pytest

LISTENING = ("tidemill_serving.replica_process",)
LOADING = ("tidemill_serving.decoder.engine", "tidemill_serving.decoder.devices.cpu")
HEAVY = {"alembic", "jinja2", "opentelemetry", "pydantic", "rich", "sqlalchemy", "tokenizers", "typer"}
NUMBERS = {"numpy", "onnxruntime"}
OF_ORIGINALS = {f"tidemill_serving.decoder.devices.{name}" for name in ("growing", "original_graph", "own_kernels")}


@pytest.mark.parametrize(
    ("imported", "wanted", "unwanted"),
    [
        (LISTENING, {"grpc"}, HEAVY | NUMBERS | OF_ORIGINALS),
        (LISTENING + LOADING, NUMBERS, HEAVY | OF_ORIGINALS | {"numpy.random", "tidemill_models.check"}),
    ],
    ids=["before it listens", "before it loads a prepared graph"],
)
def test_a_start_imports_only_what_it_needs(imported: tuple[str, ...], wanted: set[str], unwanted: set[str]) -> None:
    script = f"import sys, {', '.join(imported)}; print('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert wanted <= loaded
    assert not unwanted & loaded
