"""The models that these tests run, and an engine on the real device."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.unit.decoder.recorder import Recorder
from tidemill_models.package import load_package
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import Phase

MODELS = Path(__file__).parents[2] / "models"
GRAPHS = MODELS / "graphs"
TINY = MODELS / "tiny-llama"
POSITIONS = MODELS / "tiny-llama-positions"


@dataclass(frozen=True)
class Case:
    """A prompt and what Hugging Face answers to it, greedily."""

    prompt: list[int]
    tokens: list[int]


def reference() -> tuple[int, list[Case]]:
    """max_tokens, and the stored cases."""
    content = json.loads((MODELS / "tiny-llama-reference.json").read_text())
    return content["max_tokens"], [Case(**case) for case in content["cases"]]


@contextmanager
def running_engine(
    package: Path, *, device: type[CpuDevice] = CpuDevice, **settings: object
) -> Iterator[tuple[DecoderEngine, Recorder]]:
    """An engine that is READY, and what it says."""
    wishes = DecoderSettings(**{"num_threads": 1, "spinning": False, **settings})  # type: ignore[arg-type]
    runs_on = device(num_threads=wishes.threads(), spinning=wishes.spinning)
    engine, recorder = DecoderEngine(DecoderModel.from_package(load_package(package)), runs_on, wishes), Recorder()
    engine.start(recorder)
    try:
        assert recorder.wait_until_settled() is Phase.READY, recorder.phases[-1]
        yield engine, recorder
    finally:
        engine.close()
