"""`tidemill model import` as a process: from a hub over HTTP, from a folder, and what it says when it cannot."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.hub import COMMIT, running_hub
from tests.integration.models.exports import builder_folder, transformers_js_folder
from tidemill_models.check import check_package
from tidemill_models.errors import ModelImportError
from tidemill_models.importing import convert
from tidemill_models.importing.source import FolderSource

LARGE = "onnx/model.onnx"
COMMAND = "import typer; from tidemill_services.import_command import import_command; typer.run(import_command)"
TIMEOUT = 250  # seconds, for a process on a busy machine


@pytest.fixture
def hub(tmp_path):
    """A hub with one repository in the layout of transformers.js, and two graphs."""
    export = transformers_js_folder(tmp_path / "repository")
    (export / "onnx" / "decoder_model_merged.onnx").unlink()
    (export / "onnx" / "model_fp16.onnx").unlink()
    with running_hub(export) as running:
        yield running


@pytest.fixture
def start(tmp_path):
    """Starts the command with a data directory of its own."""

    def started(*words: str, endpoint: str = "http://127.0.0.1:9", **environ: str) -> subprocess.Popen[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "HF_"))}
        plain |= {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "TIDEMILL_DATA_DIR": str(tmp_path / "data"),
        }
        line = [sys.executable, "-c", COMMAND, *words]
        return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=plain | environ)

    return started


@pytest.fixture
def run(start):
    """Runs it to its end; returns (status, standard output, standard error)."""

    def done(*words: str, **options: str) -> tuple[int, str, str]:
        with start(*words, **options) as process:
            out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, out, err

    return done


def test_a_hubs_model_is_fetched_tried_and_put_where_the_server_finds_it(run, hub, tmp_path):
    status, out, err = run("hf:owner/name@main", "--variant", "fp32", "--json", endpoint=hub.endpoint)
    assert status == 0, err
    told = json.loads(out)
    assert told["cache"] == "in-place"
    assert told["tokens_per_second"] > 0
    package = check_package(tmp_path / "data" / "models" / "name")
    assert package.digest == told["digest"]
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    assert package.manifest.description == f"llama, float32, imported from hf:owner/name@main at {COMMIT[:12]}."
    fetched = {name for name, _ in hub.requests}
    assert LARGE in fetched
    assert "onnx/model_q8.onnx" not in fetched
    assert "Fetching model.onnx, 0.6 MB." in err
    assert not any((tmp_path / "data" / "downloads").iterdir())


def test_a_download_that_was_cut_goes_on_also_in_another_process(start, run, hub, tmp_path):
    size, quarter = len(hub.files[LARGE]), len(hub.files[LARGE]) // 4
    hub.cuts[LARGE], hub.stalls = [quarter], True
    with start("hf:owner/name", "--variant", "fp32", "--no-trial", endpoint=hub.endpoint) as first:
        assert hub.cut_happened.wait(TIMEOUT)
        part = tmp_path / "data" / "downloads" / "owner--name" / COMMIT / "onnx" / "model.onnx.part"
        while not part.exists() or part.stat().st_size < quarter - (1 << 16):
            assert first.poll() is None
            time.sleep(0.05)
        first.kill()
    kept = part.stat().st_size
    hub.cuts[LARGE], hub.stalls = [quarter], False
    status, _, err = run("hf:owner/name", "--variant", "fp32", "--no-trial", endpoint=hub.endpoint)
    assert status == 0, err
    starts = [asked for name, asked in hub.requests if name == LARGE]
    assert starts[:2] == ["", f"bytes={kept}-"]
    assert len(starts) == 3
    assert 0 < kept < int(starts[2].removeprefix("bytes=").removesuffix("-")) < size
    check_package(tmp_path / "data" / "models" / "name")


def test_a_damaged_file_is_thrown_away(run, hub, tmp_path):
    hub.damaged.add("tokenizer.json")
    status, _, err = run("hf:owner/name", "--variant", "fp32", endpoint=hub.endpoint)
    assert status == 1
    assert "tokenizer.json came damaged, and was thrown away: try again" in err
    assert not any((tmp_path / "data" / "models").glob("*"))


def test_a_gated_repository_is_said_to_be_one(run, hub):
    hub.is_gated = True
    status, _, err = run("hf:owner/name", "--variant", "fp32", "--json", endpoint=hub.endpoint)
    assert status == 1
    assert "is gated: accept its terms there, and set HF_TOKEN" in json.loads(err)["error"]["message"]


def test_a_repository_that_is_not_there_is_said_to_be_missing(run, hub):
    status, _, err = run("hf:owner/other", endpoint=hub.endpoint)
    assert status == 1
    assert "is not there, or needs a key" in err


def test_a_checkpoint_names_the_extra_that_converts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "find_spec", lambda name: None)
    checkpoint = builder_folder(tmp_path / "checkpoint")
    (checkpoint / "model.onnx").rename(checkpoint / "model.safetensors")
    with pytest.raises(ModelImportError, match=r"run `pip install 'tidemill\[convert\]'`"):
        convert.convert(FolderSource(checkpoint), "int8", tmp_path)


def test_a_graph_that_does_not_run_is_refused_by_its_trial(run, tmp_path):
    export = builder_folder(tmp_path / "export")
    content = bytearray((export / "model.onnx").read_bytes())
    position = content.index(b"SkipSimplifiedLayerNormalization")
    content[position : position + 4] = b"Skup"
    (export / "model.onnx").write_bytes(content)
    status, _, err = run(str(export))
    assert status == 1
    assert "The model does not run here: the graph model.onnx cannot be loaded" in err
    shutil.rmtree(export)
    models = Path(tmp_path / "data" / "models")
    assert not models.exists() or not any(models.iterdir())
