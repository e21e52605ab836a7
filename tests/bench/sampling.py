"""Times the choice of tokens: milliseconds a step, for the mixes of options that callers send.

    python -m tests.bench.sampling [--threads N] [--json FILE]

Each row of logits is a sequence of its own with a prompt of 512 tokens and 200 tokens made. The reference does the
same with numpy the plain way: penalties over the whole vocabulary, and one full sort of it.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from tidemill_serving.decoder.picker import Picker
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import Sampling

VOCAB_SIZE = 32_000
BATCHES = (1, 8, 32)
PROMPT_LENGTH, ANSWER_LENGTH = 512, 200
NUM_RUNS = 15
SPREAD = 3.0  # standard deviation of the logits: flatter than a trained model's, which is the harder case

PENALTIES = {"repetition_penalty": 1.2, "presence_penalty": 0.5, "frequency_penalty": 0.5}
MIXES: dict[str, tuple[dict[str, float], int | None]] = {  # sampling, and the likeliest tokens to tell
    "greedy": ({"temperature": 0.0}, None),
    "temperature 0.8": ({"temperature": 0.8}, None),
    "top-k 40": ({"temperature": 0.8, "top_k": 40}, None),
    "top-p 0.9": ({"temperature": 0.8, "top_p": 0.9}, None),
    "top-p 0.9 at temperature 2": ({"temperature": 2.0, "top_p": 0.9}, None),
    "temperature 0.5, top-p 0.9": ({"temperature": 0.5, "top_p": 0.9}, None),
    "top-k 2,000": ({"temperature": 0.8, "top_k": 2000}, None),
    "top-k 40, top-p 0.9": ({"temperature": 0.8, "top_k": 40, "top_p": 0.9}, None),
    "min-p 0.05": ({"temperature": 0.8, "min_p": 0.05}, None),
    "penalties, greedy": ({"temperature": 0.0, **PENALTIES}, None),
    "log-probabilities, top 5": ({"temperature": 0.0}, 5),
    "all together": ({"temperature": 0.8, "top_k": 40, "top_p": 0.9, "min_p": 0.05, **PENALTIES}, 5),
}


def step_of_ours(
    logits: np.ndarray, options: dict[str, float], num_logprobs: int | None, num_threads: int
) -> Callable[[], object]:
    """What the engine does with a step's logits."""
    chance = np.random.default_rng(0)
    wishes, picker = [], Picker(num_threads)
    for row in range(len(logits)):
        prompt = chance.integers(0, VOCAB_SIZE, PROMPT_LENGTH)
        sampling = Sampling(seed=row, **options)  # type: ignore[arg-type]
        wish = Wish(sampling, prompt=prompt, num_logprobs=num_logprobs)
        for token in chance.integers(0, VOCAB_SIZE, ANSWER_LENGTH).tolist():
            wish.count(token)
        wishes.append(wish)
    return lambda: picker.pick(wishes, logits)


def step_of_reference(logits: np.ndarray, wish: dict[str, float], num_logprobs: int | None) -> Callable[[], object]:
    """The same, row by row, with a sorted vocabulary."""
    chance = np.random.default_rng(0)
    counts = np.bincount(chance.integers(0, VOCAB_SIZE, ANSWER_LENGTH), minlength=VOCAB_SIZE)
    seen = (np.bincount(chance.integers(0, VOCAB_SIZE, PROMPT_LENGTH), minlength=VOCAB_SIZE) + counts) > 0

    def step() -> None:
        for row in logits:
            changed = row
            if "repetition_penalty" in wish:
                divided = np.where(row < 0, row * wish["repetition_penalty"], row / wish["repetition_penalty"])
                changed = np.where(seen, divided, row) - wish["frequency_penalty"] * counts
                changed = changed - wish["presence_penalty"] * (counts > 0)
            order = np.argsort(-changed)
            if wish["temperature"]:
                scaled = changed[order] / wish["temperature"]
                weights = np.exp(scaled - scaled[0])
                weights[wish.get("top_k", VOCAB_SIZE) :] = 0.0
                weights /= weights.sum()
                weights[(np.cumsum(weights) - weights) >= wish.get("top_p", 1.0)] = 0.0
                weights[weights < wish.get("min_p", 0.0) * weights[0]] = 0.0
                order[np.searchsorted(np.cumsum(weights), chance.random() * weights.sum())]
            if num_logprobs is not None:
                shifted = row - row.max()
                (shifted - np.log(np.exp(shifted).sum()))[np.argsort(-row)[:num_logprobs]]

    return step


def milliseconds(step: Callable[[], object], num_runs: int = NUM_RUNS) -> float:
    """Of the median run."""
    step()
    seconds = []
    for _ in range(num_runs):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    return 1e3 * median(seconds)


def main() -> None:
    """Print a row a mix, and write them to --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    given = parser.parse_args()
    chance = np.random.default_rng(1)
    rows = []
    print(f"milliseconds a step, vocabulary {VOCAB_SIZE}; in brackets with a full sort")
    print(f"{'':28}" + "".join(f"{f'batch {size}':>18}" for size in BATCHES))
    for name, (wish, num_logprobs) in MIXES.items():
        cells = []
        for size in BATCHES:
            logits = chance.normal(0.0, SPREAD, (size, VOCAB_SIZE)).astype(np.float32)
            ours = milliseconds(step_of_ours(logits, wish, num_logprobs, given.threads))
            reference = milliseconds(step_of_reference(logits, wish, num_logprobs), 3)
            for engine, value in (("tidemill", ours), ("full sort", reference)):
                rows.append(
                    {"engine": engine, "metric": f"sampling, {name}", "batch": size, "value": value, "unit": "ms"}
                )
            cells.append(f"{ours:9.3f} ({reference:6.1f})")
        print(f"{name:28}" + "".join(f"{cell:>18}" for cell in cells))
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
