"""What GroupQueryAttention does with what no run may be given: the reasons for `Room`'s checks, and two promises.

`python -m tests.bench.gpu_limits NAME --device cuda|cpu` tries one of them and says what happened.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

GRAPH = Path(__file__).parents[1] / "models" / "graphs" / "tiny-llama-fp16.onnx"
NUM_LAYERS, NUM_HEADS, HEAD_SIZE, LENGTH = 2, 2, 16, 32


class Raw:
    """The tiny half-precision graph without any of our checks, its cache bound as past and as present."""

    def __init__(self, device: str) -> None:
        providers = {"cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"], "cpu": ["CPUExecutionProvider"]}[device]
        options = ort.SessionOptions()
        options.log_severity_level = 4
        self.session = ort.InferenceSession(GRAPH, options, providers=providers, enable_fallback=0)
        if self.session.get_providers()[0] != providers[0]:
            raise SystemExit("ONNX Runtime cannot use the GPU")
        self._device = device

    def cache(self, num_rows: int) -> list[Any]:
        """An array of zeros for the keys and one for the values of each layer."""
        shape = (num_rows, NUM_HEADS, LENGTH, HEAD_SIZE)
        return [
            ort.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float16), self._device, 0)
            for _ in range(2 * NUM_LAYERS)
        ]

    def run(self, caches: list[Any], token_ids: list[list[int]], mask: Any) -> np.ndarray:
        """Logits [B, S, V]."""
        binding = self.session.io_binding()
        names = [f"past_key_values.{layer}.{part}" for layer in range(NUM_LAYERS) for part in ("key", "value")]
        for name, cache in zip(names, caches, strict=True):
            binding.bind_ortvalue_input(name, cache)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), cache)
        binding.bind_cpu_input("input_ids", np.array(token_ids, np.int64).reshape(len(mask), -1 if token_ids else 1))
        binding.bind_cpu_input("attention_mask", np.array(mask, np.int64))
        binding.bind_output("logits", "cpu")
        self.session.run_with_iobinding(binding)
        return np.asarray(binding.copy_outputs_to_cpu()[0], np.float32)


def _a_row_without_a_token(raw: Raw) -> str:
    raw.run(raw.cache(2), [[5], [6]], [[1, 0], [0, 0]])
    return "ran"


def _a_mask_wider_than_the_cache(raw: Raw) -> str:
    raw.run(raw.cache(1), [[5]], np.ones((1, LENGTH + 1)))
    return "ran"


def _an_empty_batch(raw: Raw) -> str:
    raw.run(raw.cache(0), [], np.ones((0, 1)))
    return "ran"


def _several_tokens_behind_a_past_in_a_batch(raw: Raw) -> str:
    raw.run(raw.cache(2), [[5, 6], [7, 8]], np.ones((2, 4)))
    return "ran"


def _appending_in_place(raw: Raw) -> str:
    caches = raw.cache(2)
    whole = raw.run(raw.cache(1), [[5, 6, 7]], np.ones((1, 3)))[0, -1]
    raw.run(caches, [[5], [9]], np.ones((2, 1)))
    raw.run(caches, [[6], [8]], np.ones((2, 2)))
    pieces = raw.run(caches, [[7], [8]], np.ones((2, 3)))[0, -1]
    return f"equal to the whole prompt but for {np.abs(whole - pieces).max():.4f}"


def _a_mask_as_wide_as_the_cache(raw: Raw) -> str:
    sums, ones = np.zeros((1, LENGTH)), np.zeros((1, LENGTH))
    sums[0, 0], ones[0, :3] = 3, 1
    caches = raw.cache(1)
    raw.run(caches, [[5, 6]], np.ones((1, 2)))
    narrow, wide, summed = (raw.run(caches, [[7]], mask)[0, -1] for mask in (np.ones((1, 3)), ones, sums))
    by_width, by_sum = np.abs(narrow - wide).max(), np.abs(wide - summed).max()
    return f"differs by {by_width:.4f}; with the sum in the first column by {by_sum:.4f}"


LIMITS: dict[str, Callable[[Raw], str]] = {
    "a row without a token": _a_row_without_a_token,
    "a mask wider than the cache": _a_mask_wider_than_the_cache,
    "an empty batch": _an_empty_batch,
    "several tokens behind a past in a batch": _several_tokens_behind_a_past_in_a_batch,
    "appending in place": _appending_in_place,
    "a mask as wide as the cache": _a_mask_as_wide_as_the_cache,
}


def main() -> int:
    """Say what happened; where the process ends, its code says it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=LIMITS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    raw = Raw(given.device)
    try:
        found = LIMITS[given.name](raw)
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has no common base class
        found = f"refused: {str(error).rpartition('Status Message: ')[2][:200]}"
    sys.stdout.write(f"{found}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
