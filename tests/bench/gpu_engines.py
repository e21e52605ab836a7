"""One engine of the bench on a GPU, in a process of its own: prints its figures as one line of JSON.

Every engine counts alike: the decode rate of a batch is what its sequences make between a short run and a long one, so
that prompts and starts fall out; prefill is a prompt to its first token.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.gpu_shapes import (
    BATCHES,
    BYTES_OF_A_WEIGHT,
    CONTEXT_LENGTH,
    PREFILL_LENGTH,
    PROMPT_LENGTH,
    SHAPES,
    Shape,
)

Generate = Callable[[list[list[int]], int], None]
"""Answers prompts with exactly so many tokens each, greedily, and returns when the last one is there."""

NUM_REPEATS = 3
COPIED_BYTES = 1 << 30


def figures(generate: Generate, shape: Shape, num_tokens: int) -> dict[str, float]:
    """`decode@BATCH` and `prefill@1` in tokens a second."""
    dice = np.random.default_rng(5)

    def prompts(count: int, length: int) -> list[list[int]]:
        return dice.integers(10, shape.vocab_size - 10, (count, length)).tolist()

    def seconds(count: int, length: int, made: int) -> float:
        took = []
        for _ in range(NUM_REPEATS):
            asked, start = prompts(count, length), time.perf_counter()
            generate(asked, made)
            took.append(time.perf_counter() - start)
        return min(took)

    generate(prompts(1, PREFILL_LENGTH), 2)
    found = {}
    for batch in BATCHES:
        generate(prompts(batch, PROMPT_LENGTH), 4)  # what is compiled and recorded once
        many, few = (seconds(batch, PROMPT_LENGTH, made) for made in (num_tokens, num_tokens // 4))
        if many <= few:
            raise SystemExit(f"{num_tokens} tokens are too few to measure a rate")
        found[f"decode@{batch}"] = batch * (num_tokens - num_tokens // 4) / (many - few)
    found["prefill@1"] = PREFILL_LENGTH / seconds(1, PREFILL_LENGTH, 1)
    return found


def ours(given: argparse.Namespace) -> dict[str, float]:
    """The decoder engine through its thread and listener; no tokenizer, no wire."""
    from tests.unit.decoder.recorder import Recorder, open_letters
    from tidemill_serving.decoder.devices.accelerator import nvidia_gpu, processor
    from tidemill_serving.decoder.devices.cuda import CudaDevice
    from tidemill_serving.decoder.engine import DecoderEngine
    from tidemill_serving.decoder.model import DecoderModel
    from tidemill_serving.decoder.sequence import Limits
    from tidemill_serving.decoder.settings import DecoderSettings
    from tidemill_serving.engine import GenerationRequest, Phase

    shape = SHAPES[given.shape]
    device = CudaDevice(nvidia_gpu if given.device == "cuda" else lambda: processor(8 << 30))
    model = DecoderModel(given.graph / "model.onnx", Limits(CONTEXT_LENGTH, frozenset()), open_letters)
    engine = DecoderEngine(model, device, DecoderSettings(num_slots=max(BATCHES), prefix_cache=False))
    number = 0

    def generate(prompts: list[list[int]], num_tokens: int) -> None:
        nonlocal number
        recorder.ends.clear()
        numbers = range(number, number + len(prompts))
        number += len(prompts)
        for each, prompt in zip(numbers, prompts, strict=True):
            engine.submit(GenerationRequest(each, prompt, num_tokens))
        recorder.wait_for_ends(*numbers)

    recorder = Recorder()
    engine.start(recorder)
    if recorder.wait_until_settled() is not Phase.READY:
        raise SystemExit(recorder.phases[-1][2])
    try:
        found = figures(generate, shape, given.num_tokens)
    finally:
        engine.close()
    if given.device == "cuda":
        read = shape.num_read_weights * BYTES_OF_A_WEIGHT[given.graph.name] * found["decode@1"]
        found["bandwidth@1"] = 100 * read / read_rate()
    return found


def read_rate() -> float:
    """Bytes a second that the GPU's memory is read at, by copies within it: each byte is read once and written once."""
    from tidemill_serving.decoder.devices.accelerator import nvidia_gpu
    from tidemill_serving.decoder.devices.memory import Block

    memory = nvidia_gpu().memory
    source, target = (Block(memory.allocate(COPIED_BYTES), COPIED_BYTES) for _ in range(2))
    took = []
    for _ in range(5):
        start = time.perf_counter()
        memory.copy(target, source)
        took.append(time.perf_counter() - start)
    for block in (source, target):
        memory.free(block.address)
    return 2 * COPIED_BYTES / min(took)


def transformers(given: argparse.Namespace) -> dict[str, float]:
    """Continuous batching of transformers, in half precision; it has no 4 bits beside it."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    dtype = torch.float16 if given.device == "cuda" else torch.float32
    model = AutoModelForCausalLM.from_pretrained(given.checkpoint, dtype=dtype, attn_implementation="sdpa")
    model = model.to(given.device).eval()

    def generate(prompts: list[list[int]], num_tokens: int) -> None:
        config = GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
        found = model.generate_batch(inputs=prompts, generation_config=config)
        made = [len(each.generated_tokens) for each in found.values()]
        if made != [num_tokens] * len(prompts):
            raise SystemExit(f"transformers made {made} tokens instead of {num_tokens} each")

    return figures(generate, SHAPES[given.shape], given.num_tokens)


def genai(given: argparse.Namespace) -> dict[str, float]:
    """onnxruntime-genai's Generator on the same graph; nobody joins or leaves its batch."""
    import onnxruntime_genai as og

    config = og.Config(str(given.graph))
    if given.device == "cpu":
        config.clear_providers()  # the builder wrote CUDA there
    model = og.Model(config)

    def generate(prompts: list[list[int]], num_tokens: int) -> None:
        parameters = og.GeneratorParams(model)
        length = len(prompts[0]) + num_tokens
        parameters.set_search_options(batch_size=len(prompts), max_length=length, min_length=length, do_sample=False)
        generator = og.Generator(model, parameters)
        generator.append_tokens(np.array(prompts, np.int32))
        for _ in range(num_tokens):
            generator.generate_next_token()

    return figures(generate, SHAPES[given.shape], given.num_tokens)


def make(given: argparse.Namespace) -> dict[str, float]:
    """A checkpoint of random weights, drawn once, and a graph of it by the builder."""
    if not (given.checkpoint / "config.json").exists():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        torch.manual_seed(5)
        sizes = asdict(SHAPES[given.shape])
        config = LlamaConfig(
            **sizes, max_position_embeddings=CONTEXT_LENGTH, tie_word_embeddings=False, dtype="float16"
        )
        with torch.device(given.device):
            LlamaForCausalLM(config).half().save_pretrained(given.checkpoint)
        _write_tokenizer(given.checkpoint, sizes["vocab_size"])
    line = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", "random", "-i", str(given.checkpoint)]
    line += ["-o", str(given.graph), "-p", given.graph.name, "-e", "cuda", "-c", str(given.graph / "cache")]
    subprocess.run([*line, "--extra_options", "hf_remote=false"], check=True, stdout=sys.stderr)
    return {}


def _write_tokenizer(folder: Path, vocabulary_size: int) -> None:
    """One word for each token; the builder and its peers want to find one."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{number}": number for number in range(vocabulary_size)}
    tokenizer: Any = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="t1", eos_token="t2").save_pretrained(folder)


ENGINES: dict[str, Callable[[argparse.Namespace], dict[str, float]]] = {
    "ours": ours,
    "transformers": transformers,
    "onnxruntime-genai": genai,
    "make": make,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one, and print what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--graph", type=Path, required=True, help="its folder, named after its precision")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--num-tokens", type=int, default=128)
    given = parser.parse_args(arguments)
    sys.stdout.write(json.dumps(ENGINES[given.engine](given)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
