"""Connections that are cut at random: every text is whole, every generation runs once, no place stays taken."""

import asyncio
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.cutting_proxy import CuttingProxy
from tests.fault.test_server_life import SLOWLY
from tests.integration.api.conftest import MODEL, text_of, wait_until, wire_to
from tests.scale import count
from tests.server_process import ServerProcess, server_process
from tidemill import AsyncClient

pytestmark = pytest.mark.fault

NUM_AT_ONCE = 8
NUM_TOKENS = 120
OPTIONS = {"max_tokens": NUM_TOKENS, "temperature": 0.0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with server_process(tmp_path, *SLOWLY) as process:
        yield process


def metric(server: ServerProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{server.admin}/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


async def become_free(server: ServerProcess) -> None:
    for name in ("tidemill_leased_places", "tidemill_running_generations"):
        await asyncio.to_thread(wait_until, lambda name=name: metric(server, name) == 0, f"0 {name}")


async def test_texts_are_whole_and_made_once_whatever_is_cut(server: ServerProcess) -> None:
    num_streams = count(20, full=1000)
    prompts = [f"stream {number}" for number in range(num_streams)]
    async with AsyncClient(server.api_key, target=server.grpc, model=MODEL) as client:
        await client.start_session()
        uncut = await asyncio.gather(
            *(client.complete_prompt(prompt, stream=False, **OPTIONS) for prompt in prompts[:20])
        )
        made_before = metric(server, "tidemill_completion_tokens_total")
        begun_before = metric(server, "tidemill_generations_total")

        places = asyncio.Semaphore(NUM_AT_ONCE)
        texts: dict[str, str] = {}

        async def stream(target: str, prompt: str) -> None:
            # A client of its own: a connection of its own, which carries about 35 bytes a token.
            async with places, AsyncClient(server.api_key, target=target, model=MODEL) as one:
                answer = await one.complete_prompt(prompt, **OPTIONS)
                texts[prompt] = "".join([text async for text in answer])
                assert answer.usage is not None
                assert answer.usage.completion_tokens == NUM_TOKENS
                assert answer.finish_reason == "length"

        async with CuttingProxy(server.grpc, seed=7, bytes_until_cut=(600, 4_000)) as proxy:
            num_run = 0
            while proxy.num_cuts < num_streams / 2:  # once; a slow machine sends fewer bytes
                async with asyncio.TaskGroup() as group:
                    for prompt in prompts:
                        group.create_task(stream(proxy.target, prompt), name=prompt)
                num_run += num_streams
                assert [texts[prompt] for prompt in prompts[:20]] == list(uncut)
        assert metric(server, "tidemill_generations_total") - begun_before == num_run
        assert metric(server, "tidemill_completion_tokens_total") - made_before == num_run * NUM_TOKENS
        await become_free(server)
        assert (await client.stop_session()).final


async def test_a_hundred_calls_with_one_request_id_run_once(server: ServerProcess) -> None:
    with wire_to(server) as wire:
        wire.start()
        streams = [wire.generate(max_tokens=60, request_id="the same") for _ in range(100)]
        answers = [list(stream) for stream in streams]
        assert len({text_of(answer) for answer in answers}) == 1
        assert {answer[-1].end.usage.completion_tokens for answer in answers} == {60}
        assert metric(server, "tidemill_generations_total") == 1
        assert metric(server, "tidemill_completion_tokens_total") == 60
        assert metric(server, "tidemill_attached_calls_total") == 99
        await become_free(server)
