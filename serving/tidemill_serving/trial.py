"""`python -m tidemill_serving.trial PACKAGE`: load a package, answer a few tokens, and say in JSON how that went."""

import json
import sys
import time
from pathlib import Path

import numpy as np

from tidemill_models.errors import ModelPackageError
from tidemill_models.package import load_package
from tidemill_serving.decoder.devices.device import DeviceError, ModelRefusedError
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.package_engine import cpu_device

_NUM_TOKENS = 16
_PROMPT = np.arange(3, 11, dtype=np.int64)


def main(arguments: list[str]) -> int:
    """Print {"load_seconds", "tokens_per_second"} and return 0, or {"refusal"} and 1."""
    try:
        found = _try(Path(arguments[0]))
    except (ModelPackageError, ModelRefusedError, DeviceError) as error:
        sys.stdout.write(json.dumps({"refusal": str(error)}) + "\n")
        return 1
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _try(folder: Path) -> dict[str, float]:
    package, start = load_package(folder), time.monotonic()
    device = cpu_device(package, DecoderSettings())
    vocab_size = device.load(
        package.graph_path,
        num_slots=2,
        context_length=package.decoder.context_length,
        on_progress=lambda _: None,
    )
    loaded = time.monotonic()
    room = package.decoder.context_length
    prompt = _PROMPT[: max(1, min(len(_PROMPT), room - _NUM_TOKENS))] % vocab_size
    logits, past = device.extend(0, prompt, 0), len(prompt)
    first, num_made = time.monotonic(), 0
    while num_made < _NUM_TOKENS and past < room:
        if not np.isfinite(logits).all():
            raise DeviceError("the model's logits are not finite")
        token = np.array([logits.argmax()], np.int64)
        logits, past, num_made = device.decode(token, np.array([past], np.int64))[0], past + 1, num_made + 1
    device.close()
    return {
        "load_seconds": round(loaded - start, 3),
        "tokens_per_second": round(num_made / max(time.monotonic() - first, 1e-6), 1),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
