"""What Optimum really writes of tiny checkpoints is imported, marked slow, and answers as transformers does.

`models/exports/optimum_exports.py --fixtures` made the files, with the prompts and the answers of `generate`.
"""

import importlib.util
import json
import shutil
import subprocess
import sys

import pytest

from tests.integration.decoder.models import MODELS, TINY, running_engine
from tests.unit.decoder.recorder import request
from tidemill_models.importing.package_maker import Wishes, import_model
from tidemill_models.importing.source import FolderSource
from tidemill_serving.decoder.devices.growing import Abilities, GrowingCacheDevice

ABILITIES = {
    "llama": Abilities(takes_chunks=True, takes_batches=True),
    "gemma": Abilities(takes_chunks=True, takes_batches=False),  # positions are counted from the width
}


@pytest.fixture(params=ABILITIES)
def name(request):
    return request.param


@pytest.fixture
def imported(name, tmp_path):
    export = tmp_path / "export"
    shutil.copytree(MODELS / "optimum" / name, export)
    shutil.copy(TINY / "tokenizer.json", export)  # the script trains the same one
    source = FolderSource(export)
    return import_model(source, tmp_path / "models", Wishes(name), origin="a test", try_out=lambda package: None)


def test_it_becomes_a_package_that_says_it_is_slow(imported):
    assert imported.package.decoder.cache == "grows"
    assert imported.package.decoder.context_length == 512
    assert "slow" in imported.package.manifest.description


def test_its_answers_are_those_of_transformers_in_a_crowd(imported, name):
    cases = json.loads((MODELS / "optimum" / name / "cases.json").read_text())
    with running_engine(
        imported.package.folder, device=GrowingCacheDevice, num_slots=4, num_waiting_places=16, max_chunk_length=32
    ) as (engine, recorder):
        assert engine._device._abilities == ABILITIES[name]
        for number, case in enumerate(cases):
            tokens = len(case["tokens"])
            engine.submit(request(number, case["prompt"], tokens, ignore_eos=True))
        recorder.wait_for_ends(*range(len(cases)))
    for number, case in enumerate(cases):
        assert recorder.tokens[number] == case["tokens"], f"a prompt of {len(case['prompt'])} tokens"


@pytest.mark.torch
def test_every_architecture_that_optimum_exports_answers_as_transformers_does(tmp_path):
    if importlib.util.find_spec("optimum") is None:
        pytest.skip("NO EXPORT WAS MADE: optimum-onnx is not installed; see models/exports/README.md")
    script = MODELS.parents[1] / "models" / "exports" / "optimum_exports.py"
    names = ["llama", "qwen2", "qwen3", "mistral", "phi3", "gemma", "gemma3", "gpt2"]
    line = [sys.executable, str(script), str(tmp_path), *names]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    told = [line for line in done.stdout.splitlines() if line.partition(":")[0] in names]
    assert told == [f"{name}: 12 of 12 equal" for name in names]
