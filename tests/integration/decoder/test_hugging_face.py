"""The same comparison with Hugging Face computed live, on prompts that nobody has seen before."""

import importlib.util
import sys

import numpy as np
import pytest

from tests.integration.decoder.models import MODELS, TINY, running_engine
from tests.unit.decoder.recorder import request

pytestmark = pytest.mark.torch
BUILD = MODELS.parents[1] / "models" / "tiny_llama"


@pytest.fixture(scope="module")
def build():
    """The script that made the model; the same seed makes the same weights."""
    pytest.importorskip("torch", reason="torch is not installed: run this in an environment with the group `train`")
    pytest.importorskip("transformers", reason="transformers is not installed: see the group `train`")
    sys.path.insert(0, str(BUILD))
    try:
        spec = importlib.util.spec_from_file_location("tiny_llama_build", BUILD / "build.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BUILD))


@pytest.mark.filterwarnings("default")
def test_fresh_prompts_get_hugging_faces_answers(build):
    model = build.make_model()
    random = np.random.default_rng()
    cases = []
    while len(cases) < 12:
        prompt = random.integers(6, 512, int(random.integers(1, 400))).tolist()
        tokens, margin = build.greedy(model, prompt)
        if margin > build.SMALLEST_MARGIN:
            cases.append((prompt, tokens))
    with running_engine(TINY, num_slots=5, num_waiting_places=12, max_chunk_length=64) as (engine, recorder):
        for i, (prompt, _) in enumerate(cases):
            engine.submit(request(i, prompt, build.MAX_NEW_TOKENS))
        recorder.wait_for_ends(*range(12))
    for i, (prompt, tokens) in enumerate(cases):
        assert recorder.tokens[i] == tokens, f"prompt {prompt}"
