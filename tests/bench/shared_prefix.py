"""How much sooner the first token comes when a prompt's opening is known.

    python -m tests.bench.shared_prefix [--package FOLDER] [--threads N] [--rounds N]

In turns: a prompt of 512 tokens that nobody sent before and 16 of its own, and one that shares its 512 with all others
of its kind. The time runs from the submission to the first token, through the whole engine, with nothing else running.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import numpy as np

from tests.unit.decoder.recorder import Recorder
from tidemill_models.package import load_package
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import GenerationRequest, Phase

TINY = Path(__file__).parents[1] / "models" / "tiny-llama"
NUM_SHARED, NUM_OWN = 512, 16


def main() -> int:
    """Print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=Path, default=TINY)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    settings = DecoderSettings(num_threads=given.threads)
    device = CpuDevice(num_threads=settings.threads(), spinning=settings.spinning)
    model, recorder = DecoderModel.from_package(load_package(given.package)), Recorder()
    engine = DecoderEngine(model, device, settings)
    engine.start(recorder)
    if recorder.wait_until_settled() is not Phase.READY:
        sys.stdout.write(f"{recorder.phases[-1][2]}\n")
        return 1
    dice = np.random.default_rng(5)

    def tokens(count: int) -> list[int]:
        return dice.integers(10, 500, count).tolist()

    def first_token_ms(number: int, prompt: list[int]) -> float:
        start = time.perf_counter()
        engine.submit(GenerationRequest(number, prompt, 1))
        recorder.wait_for_ends(number)
        return 1000 * (time.perf_counter() - start)

    opening, unknown, known = tokens(NUM_SHARED), list[float](), list[float]()
    first_token_ms(0, opening + tokens(NUM_OWN))
    for number in range(1, 2 * given.rounds, 2):
        unknown.append(first_token_ms(number, tokens(NUM_SHARED + NUM_OWN)))
        known.append(first_token_ms(number + 1, opening + tokens(NUM_OWN)))
        assert recorder.ends[number + 1].num_cached_prompt_tokens == NUM_SHARED
    engine.close()
    slow, quick = statistics.median(unknown), statistics.median(known)
    sys.stdout.write(
        f"{given.package.name}: first token of {NUM_SHARED} + {NUM_OWN} tokens after {slow:.1f} ms, "
        f"with the opening known after {quick:.1f} ms: {slow / quick:.1f} times sooner\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
