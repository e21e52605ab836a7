"""A client of LitServe in a process of its own: aiohttp, the fastest of the usual ones.

.venv-peers/bin/python -m tests.bench.platform.litserve_client --url http://127.0.0.1:PORT --mode streamed|joined|unary
"""

import argparse
import asyncio
import json
import sys
import time

import aiohttp
import uvloop

from tests.bench.platform.load import Load, Trace, requests, summary


async def generate(session: aiohttp.ClientSession, prompt: str, load: Load, *, is_unary: bool) -> Trace:
    """One answer."""
    trace = Trace(time.perf_counter())
    body = {"prompt": prompt, "max_tokens": load.max_tokens}
    async with session.post("/generate", json=body) as answer:
        answer.raise_for_status()
        if is_unary:
            trace.saw((await answer.json())["n"], time.perf_counter())
        else:
            async for line in answer.content:
                trace.saw(json.loads(line)["n"], time.perf_counter())
    return trace


async def run(url: str, load: Load, *, is_unary: bool) -> dict[str, float]:
    """One turn."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        traces: list[Trace] = []

        async def stream(prompt: str) -> None:
            for _ in range(load.rounds):
                trace = await generate(session, prompt, load, is_unary=is_unary)
                traces.append(trace)

        before = time.process_time()
        async with asyncio.TaskGroup() as group:
            for prompt in load.prompts():
                group.create_task(stream(prompt))
        found = summary(traces, time.process_time() - before)
    assert found["tokens"] == load.streams * load.rounds * load.max_tokens, found
    return found


async def wait_until_up(url: str) -> None:
    """Until its health page says so."""
    async with aiohttp.ClientSession(url) as session:
        for _ in range(600):
            try:
                async with session.get("/health") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError("LitServe did not come up within a minute")


def main() -> None:
    """A turn for each line of stdin."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", required=True)
    parser.add_argument("--mode", choices=("streamed", "joined", "unary"), required=True)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(wait_until_up(given.url))
        print(json.dumps({"ready": True, "aiohttp": aiohttp.__version__}), flush=True)
        for load in requests(sys.stdin):
            print(json.dumps(runner.run(run(given.url, load, is_unary=given.mode == "unary"))), flush=True)


if __name__ == "__main__":
    main()
