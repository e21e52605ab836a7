"""Exports the tiny checkpoints as Optimum does, and compares our answers with those of `transformers`, token by token.

    python models/exports/optimum_exports.py FOLDER llama qwen3 ...
    python models/exports/optimum_exports.py --fixtures       # writes tests/models/optimum anew

Needs an environment of its own with `optimum-onnx`, since that asks for an older transformers than the builder does:
see README.md.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import checkpoints
import numpy as np
import torch
from checkpoints import CHECKPOINTS, write_checkpoint
from compare import NUM_NEW, PROMPT_LENGTHS, SMALLEST_MARGIN, ours, theirs
from optimum.exporters.onnx import main_export
from transformers import PreTrainedModel

from tidemill_serving.decoder.devices.device import DeviceError, ModelRefusedError
from tidemill_serving.decoder.devices.growing import GrowingCacheDevice

FIXTURES = Path(__file__).parents[2] / "tests" / "models" / "optimum"
FIXTURE_NAMES = ("llama", "gemma")  # one that is told its positions, and one that counts them by the width
FIXTURE_LENGTHS = (1, 2, 7, 16, 33, 65, 100)
SMALLER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 16}
MOST_TRIES = 50  # for a prompt whose answer is no close race


def export(name: str, folder: Path) -> tuple[PreTrainedModel, Path]:
    """The checkpoint's model, and the folder that Optimum wrote of it."""
    checkpoint, made = folder / name / "checkpoint", folder / name / "onnx"
    checkpoint.mkdir(parents=True, exist_ok=True)
    model = write_checkpoint(name, checkpoint)
    main_export(str(checkpoint), output=made, task="text-generation-with-past", device="cpu", do_validation=False)
    return model, made


def cases_of(model: PreTrainedModel, lengths: tuple[int, ...] | list[int]) -> list[dict[str, list[int]]]:
    """Prompts with the answers of `generate`."""
    random, cases = np.random.default_rng(3), []
    for length in lengths:
        for _ in range(MOST_TRIES):
            prompt = random.integers(6, 512, length).tolist()
            tokens, margin = theirs(model, prompt)
            if margin >= SMALLEST_MARGIN:
                break
        cases.append({"prompt": prompt, "tokens": tokens})
    return cases


def compare(name: str, folder: Path) -> str:
    """How many answers are equal, in one batch and within the whole context."""
    model, made = export(name, folder)
    cases = cases_of(model, [length for length in PROMPT_LENGTHS if length + NUM_NEW <= 512])
    prompts = [case["prompt"] for case in cases]
    try:
        answers = ours(made / "model.onnx", prompts, 512, device_type=GrowingCacheDevice)
    except (ModelRefusedError, DeviceError) as error:
        return str(error)[:300]
    wrong = [len(case["prompt"]) for case, answer in zip(cases, answers, strict=True) if answer != case["tokens"]]
    return f"{len(cases) - len(wrong)} of {len(cases)} equal" + (f", not those of {wrong} tokens" if wrong else "")


def write_fixtures() -> None:
    """Exports of still smaller checkpoints, as the tests import and serve them."""
    checkpoints.adjust(**SMALLER, num_key_value_heads=1)
    with tempfile.TemporaryDirectory() as scratch:
        for name in FIXTURE_NAMES:
            model, made = export(name, Path(scratch))
            target = FIXTURES / name
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir(parents=True)
            for file in ("model.onnx", "config.json", "generation_config.json", "tokenizer_config.json"):
                shutil.copy(made / file, target)
            (target / "cases.json").write_text(json.dumps(cases_of(model, FIXTURE_LENGTHS)) + "\n")


def main() -> None:
    """Print how many answers are equal, by checkpoint."""
    torch.set_num_threads(2)
    if sys.argv[1] == "--fixtures":
        write_fixtures()
        return
    for name in sys.argv[2:] or CHECKPOINTS:
        print(f"{name}: {compare(name, Path(sys.argv[1]))}", flush=True)


if __name__ == "__main__":
    main()
