"""The platform's bench works at all: its trial, on the tests' tiny model and without peers. No figure is judged."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_bench_measures_the_platform_the_engine_and_each_process(tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    command = [sys.executable, "-m", "tests.bench.platform", "--trial", "--json", str(written)]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    records = json.loads(written.read_text())
    assert {"processor", "grpcio", "onnxruntime"} <= {record["metric"] for record in records}
    values = {
        (record["bench"], record["metric"], record["subject"]): record["value"]
        for record in records
        if "subject" in record
    }
    for subject in ("platform", "engine"):
        assert values["whole", "throughput", subject] > 0
    for process in ("client", "control", "replica", "engine"):
        assert values["wire", "processor time of a token, saturated", process] > 0
    for subject in ("platform", "bare gRPC"):
        assert values["wire", "unary calls", subject] > 0
    for metric in ("control plane's time of a token by the floor's, paced", "unary calls by the floor's"):
        assert values["wire", metric, "platform"] > 0
    assert values["wire", "processor time of an admission", "control"] > 0
