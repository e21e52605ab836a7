"""The bench on a GPU, as far as it goes without one: its arguments, its table, and its trials on the processor."""

import json
import subprocess
import sys

import pytest

from tests.bench import gpu, gpu_engines, gpu_limits
from tests.bench.gpu_shapes import BATCHES, SHAPES


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "one of the arguments --models --make --limits is required"),
        (["--models", "/nowhere"], "is no folder"),
        (["--limits", "--shape", "70b"], "invalid choice: '70b'"),
        (["--limits", "--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, sentence, capsys):
    with pytest.raises(SystemExit):
        gpu.main(arguments)
    assert sentence in capsys.readouterr().err


def test_the_table_shows_what_was_missed_first_and_names_no_absent_peer():
    turns = {f"decode@{batch}": 100.0 for batch in BATCHES} | {"prefill@1": 500.0}
    samples = {"ours": [turns | {"bandwidth@1": 70.0}], "onnxruntime-genai": [turns | {"decode@8": 200.0}]}
    rows = gpu.rows_of("1b", "fp16", samples)
    lines = gpu.table(rows).splitlines()
    assert lines[2] == "| 1b | ours | fp16 | decode | 8 | 0.50 x | onnxruntime-genai | target ≥ 1: **missed** |"
    assert any("bandwidth | 1 | 70.00 % |  | target ≥ 60: met" in line for line in lines)
    assert "transformers" not in gpu.table(rows)
    assert json.dumps([row.record() for row in rows])


def test_the_shapes_have_about_as_many_weights_as_their_names_say():
    assert SHAPES["1b"].num_read_weights == pytest.approx(1.24e9, rel=0.02)
    assert SHAPES["8b"].num_read_weights == pytest.approx(7.5e9, rel=0.02)


def test_an_engine_needs_a_shape_and_a_graph(capsys):
    with pytest.raises(SystemExit):
        gpu_engines.main(["ours"])
    assert "--shape, --checkpoint, --graph" in capsys.readouterr().err


@pytest.mark.parametrize("name", gpu_limits.LIMITS)
def test_what_no_run_may_be_given_fails_on_the_processor_and_what_we_rely_on_holds(name):
    line = [sys.executable, "-m", "tests.bench.gpu_limits", name, "--device", "cpu"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=100, check=False)
    relied_on = {
        "appending in place": "equal to the whole prompt but for 0.00",
        "a mask as wide as the cache": "differs by 0.0000; with the sum in the first column by 0.0000",
    }
    if name in relied_on:
        assert done.stdout.startswith(relied_on[name])
    else:
        assert done.returncode != 0 or done.stdout.startswith("refused: ")
