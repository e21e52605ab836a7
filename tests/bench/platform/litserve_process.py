"""LitServe in front of the same engine and fake device, set up as its documentation advises for concurrent streams:
asynchronous, with its fast queue.

    .venv-peers/bin/python -m tests.bench.platform.litserve_process --package FOLDER --port N --mode MODE

The mode `streamed` yields each token as it comes, as LitServe's examples do: a line of JSON each. `joined` joins by
hand what waits, as Tidemill does by itself. `unary` answers with one JSON object.
"""

import argparse
import asyncio
import json
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import litserve

from tidemill_models.package import load_package
from tidemill_models.tokenizer import Tokenizer
from tidemill_serving.decoder.devices.fake import FakeDevice
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import GenerationRequest, Phase, Step


class FakeApi(litserve.LitAPI):
    """The engine on the fake device, and the pieces of a generation."""

    def __init__(self, package: str, tick_ms: int, mode: str) -> None:
        super().__init__(stream=mode != "unary", enable_async=True, api_path="/generate")
        self._package, self._tick_ms, self._joins = package, tick_ms, mode != "streamed"

    def setup(self, device: str) -> None:
        """Start the engine; LitServe calls this in its worker."""
        opened = load_package(Path(self._package))
        self._tokenizer = Tokenizer.from_file(opened.tokenizer_path)
        fake = FakeDevice(vocab_size=self._tokenizer.vocabulary_size, tick=timedelta(milliseconds=self._tick_ms))
        settings = DecoderSettings(num_slots=opened.manifest.scaling.slots)
        self._engine = DecoderEngine(DecoderModel.from_package(opened), fake, settings)
        self._waiting: dict[int, asyncio.Queue[Any]] = {}
        self._last_id = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._engine.start(self)

    def on_phase(self, phase: Phase, progress: float, detail: str) -> None:
        """See EngineListener."""

    def on_step(self, step: Step) -> None:
        """See EngineListener."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._pass_on, step)

    def _pass_on(self, step: Step) -> None:
        for output in step.outputs:
            self._waiting[output.sequence_id].put_nowait(output)

    async def decode_request(self, request):  # without types: LitServe makes a schema of them
        """The body as it is."""
        return request

    async def pieces(self, x: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Token by token, or what came since the last piece, until the end."""
        self._loop = asyncio.get_running_loop()
        self._last_id += 1
        number = self._last_id
        queue = self._waiting[number] = asyncio.Queue()
        self._engine.submit(GenerationRequest(number, self._tokenizer.encode(x["prompt"]), x["max_tokens"]))
        is_open = True
        while is_open:
            outputs = [await queue.get()]
            while self._joins and not queue.empty():
                outputs.append(queue.get_nowait())
            is_open = outputs[-1].finish_reason is None
            text = "".join(output.text for output in outputs)
            yield {"text": text, "n": sum(len(output.token_ids) for output in outputs)}
        del self._waiting[number]


class StreamedApi(FakeApi):
    """Answers with a line of JSON for each piece."""

    async def predict(self, x: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The pieces as they come."""
        async for piece in self.pieces(x):
            yield piece

    async def encode_response(self, output):
        """JSON lines."""
        async for piece in output:
            yield json.dumps(piece) + "\n"


class WholeApi(FakeApi):
    """Answers with one object."""

    async def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        """The whole answer."""
        pieces = [piece async for piece in self.pieces(x)]
        return {"text": "".join(piece["text"] for piece in pieces), "n": sum(piece["n"] for piece in pieces)}

    async def encode_response(self, output):
        """The object."""
        return output


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--package", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--tick-ms", type=int, default=0)
    parser.add_argument("--mode", choices=("streamed", "joined", "unary"), required=True)
    given = parser.parse_args()
    print(json.dumps({"litserve": litserve.__version__, "pid": os.getpid()}), flush=True)
    kind = WholeApi if given.mode == "unary" else StreamedApi
    api = kind(given.package, given.tick_ms, given.mode)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True, timeout=False)
    server.run(host="127.0.0.1", port=given.port, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main()
