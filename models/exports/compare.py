"""Runs the standard builder on the tiny checkpoints and compares our devices with `transformers`, token by token.

python models/exports/compare.py FOLDER llama qwen3 ...    # needs the dependency group `train`
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from checkpoints import write_checkpoint
from transformers import PreTrainedModel

from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.devices.device import DeviceError, ModelRefusedError

# The builder's fp16 for `cpu` has no GroupQueryAttention; the one for `cuda` runs on the processor too.
TARGETS = {"fp32": "cpu", "fp16": "cuda", "int4": "cpu"}
PROMPT_LENGTHS = [1, 2, 3, 7, 16, 33, 64, 65, 100, 201, 300, 450]
NUM_NEW = 16
CHUNK = 100
SMALLEST_MARGIN = 2e-3  # logits; a closer race could end differently on another processor


def build(checkpoint: Path, folder: Path, precision: str) -> Path:
    """The builder's graph of a checkpoint."""
    line = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(folder)]
    line += [
        "-p",
        precision,
        "-e",
        TARGETS[precision],
        "-c",
        str(folder / "cache"),
        "--extra_options",
        "hf_remote=false",
    ]
    subprocess.run(line, check=True, capture_output=True)
    return folder / "model.onnx"


def ours(
    graph: Path, prompts: list[list[int]], context_length: int, device_type: type[CpuDevice] = CpuDevice
) -> list[list[int]]:
    """Greedy answers: each prompt in pieces, all answers in one batch."""
    device = device_type(num_threads=1, spinning=False)
    device.load(graph, num_slots=len(prompts) + 1, context_length=context_length, on_progress=lambda _: None)
    last = []
    for slot, prompt in enumerate(prompts):
        for start in range(0, len(prompt), CHUNK):
            logits = device.extend(slot, np.array(prompt[start : start + CHUNK]), start)
        last.append(int(logits.argmax()))
    answers, past = [[token] for token in last], np.array([len(prompt) for prompt in prompts])
    for _ in range(NUM_NEW - 1):
        last = device.decode(np.array(last), past).argmax(axis=1).tolist()
        past = past + 1
        for answer, token in zip(answers, last, strict=True):
            answer.append(token)
    return answers


def theirs(model: PreTrainedModel, prompt: list[int]) -> tuple[list[int], float]:
    """The answer of `generate`, and the smallest distance between its best and second logit."""
    ids = torch.tensor([prompt])
    lengths = {"max_new_tokens": NUM_NEW, "min_new_tokens": NUM_NEW, "eos_token_id": None}
    told = {"output_logits": True, "return_dict_in_generate": True, "do_sample": False}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **lengths, **told)
    best = torch.stack(out.logits)[:, 0].topk(2).values
    return out.sequences[0, len(prompt) :].tolist(), float((best[:, 0] - best[:, 1]).min())


def main() -> None:
    """Print how many answers are equal, by checkpoint and precision."""
    folder, random = Path(sys.argv[1]), np.random.default_rng(3)
    for name in sys.argv[2:]:
        checkpoint = folder / name / "checkpoint"
        checkpoint.mkdir(parents=True, exist_ok=True)
        model = write_checkpoint(name, checkpoint)
        context_length = 128 if name == "phi3-longrope" else 512  # one set of angles
        prompts, answers = [], []
        for length in (min(length, context_length - NUM_NEW) for length in PROMPT_LENGTHS):
            margin = 0.0
            while margin < SMALLEST_MARGIN:
                prompt = random.integers(6, 512, length).tolist()
                answer, margin = theirs(model, prompt)
            prompts.append(prompt)
            answers.append(answer)
        for precision in TARGETS:
            try:
                made = ours(build(checkpoint, folder / name / precision, precision), prompts, context_length)
            except (ModelRefusedError, DeviceError, subprocess.CalledProcessError) as error:
                print(f"{name} {precision}: {str(error)[:300]}")
                continue
            num_equal = sum(one == other for one, other in zip(made, answers, strict=True))
            print(f"{name} {precision}: {num_equal} of {len(prompts)} equal", flush=True)


if __name__ == "__main__":
    main()
