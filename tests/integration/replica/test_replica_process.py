"""The replica as a process: how it starts, serves many, and ends."""

import asyncio
import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.replica import held_replica
from tests.integration.replica.replica_process import (
    TINY_LLAMA,
    command,
    read_all,
    replica_process,
    until_ready,
)
from tests.integration.replica.served_engine import health, until, until_health
from tidemill_models.tokenizer import Tokenizer
from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.engine_client import (
    EngineFinish,
    EngineRequest,
    OnBehalf,
    ReplicaClient,
    ReplicaPhase,
    ReplicaRejectedError,
)
from tidemill_serving.decoder.devices.fake import fake_answer

TOKENIZER = Tokenizer.from_file(TINY_LLAMA / "tokenizer.json")
LONG = EngineRequest(prompt_tokens=[40, 41], max_tokens=1000)


def expected_tokens(prompt: list[int], num_tokens: int) -> list[int]:
    return fake_answer(prompt, num_tokens, TOKENIZER.vocabulary_size)


async def test_a_replica_says_its_address_then_loads_and_then_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(held_replica.FOLDER, str(tmp_path))
    held = [tmp_path / held_replica.LOADING, tmp_path / held_replica.WARMING]
    for file in held:
        file.touch()
    async with replica_process(program=held_replica.PROGRAM) as replica:
        client = ReplicaClient(replica.address, replica.token)
        await client.open()
        assert client.status.phase is ReplicaPhase.LOADING
        for file, phase in zip(held, (ReplicaPhase.WARMING, ReplicaPhase.READY), strict=True):
            file.unlink()
            await until(lambda phase=phase: client.status.phase is phase)
        await until_health(replica.address, "SERVING")
        await client.close()
        replica.process.terminate()
        assert await replica.exit_code() == 0
        assert replica.process.stdout is not None
        assert replica.process.stdout.read() == b""  # the address was all


async def test_streams_of_several_control_processes_stay_apart() -> None:
    async with replica_process(slots=24, tick_ms=1) as replica:

        async def one_caller(caller: int) -> None:
            async with replica.client() as client:
                prompts = [[50 + caller, 60 + number] for number in range(8)]
                streams = [client.generate(EngineRequest(prompt, 60 + caller)) for prompt in prompts]
                for prompt, stream in zip(prompts, streams, strict=True):
                    _, token_ids, last = await read_all(stream)
                    assert token_ids == expected_tokens(prompt, 60 + caller)
                    assert last.finish_reason is EngineFinish.LENGTH
                    assert (last.num_prompt_tokens, last.num_completion_tokens) == (2, 60 + caller)

        async with asyncio.TaskGroup() as tasks:
            for caller in range(3):
                tasks.create_task(one_caller(caller))


async def test_two_hundred_generations_run_at_once_and_none_is_mistaken_for_another() -> None:
    async with replica_process(slots=200, tick_ms=10) as replica, replica.client() as client:
        prompts = [[40 + number % 100, 41 + number // 100] for number in range(200)]
        streams = [client.generate(EngineRequest(prompt, 1000)) for prompt in prompts]  # 10 s, unless they are aborted
        token_ids: list[list[int]] = [[] for _ in streams]

        async def read(number: int) -> None:
            async for output in streams[number]:
                token_ids[number] += output.token_ids

        async with asyncio.TaskGroup() as tasks:
            for number in range(200):
                tasks.create_task(read(number))
            await until(lambda: client.status.load.num_running == 200, 240)
            await until(lambda: min(map(len, token_ids)) >= 100, 240)
            for stream in streams:
                stream.abort()
        assert token_ids == [
            expected_tokens(prompt, len(made)) for prompt, made in zip(prompts, token_ids, strict=True)
        ]
        await until(lambda: client.status.load.num_running == 0)


async def test_the_text_is_the_tokens_text() -> None:
    async with replica_process(tick_ms=0) as replica, replica.client() as client:
        prompt = TOKENIZER.encode("Is the mill running?")
        text, token_ids, _ = await read_all(client.generate(EngineRequest(prompt, 50)))
        decoded = TOKENIZER.text_stream(prompt)
        assert text == decoded.push(token_ids) + decoded.finish()


async def test_a_caller_that_goes_away_gives_its_slots_back_at_once() -> None:
    async with replica_process(tick_ms=50) as replica, replica.client() as staying:  # 50 s, unless they are ended
        stream = staying.generate(LONG)
        await anext(stream)
        async with replica.client() as leaving:
            streams = [leaving.generate(LONG) for _ in range(5)]
            for other in streams:
                await anext(other)
            while staying.status.load.num_running != 6:
                await anext(stream)
        left_at = time.monotonic()
        while staying.status.load.num_running != 1:
            await anext(stream)
        assert time.monotonic() - left_at < 30
        stream.close()


async def test_a_closed_stream_gives_its_slot_back_at_once() -> None:
    async with replica_process(slots=2, tick_ms=50) as replica, replica.client() as client:
        kept, closed = client.generate(LONG), client.generate(LONG)
        await anext(kept)
        await anext(closed)
        closed.close()
        while client.status.load.num_running != 1:
            await anext(kept)
        kept.close()


async def test_an_aborted_stream_ends_with_what_was_made() -> None:
    async with replica_process(tick_ms=50) as replica, replica.client() as client:
        stream = client.generate(LONG)
        first = await anext(stream)
        stream.abort()
        _, token_ids, last = await read_all(stream)
        assert last.finish_reason is EngineFinish.CANCELLED
        assert last.num_completion_tokens == first.num_tokens + len(token_ids) < 1000


async def test_time_that_is_over_ends_a_generation() -> None:
    async with replica_process(tick_ms=50) as replica, replica.client() as client:
        request, on_behalf = EngineRequest([40], 1000), OnBehalf(time_left_seconds=0.3)
        started = time.monotonic()
        _, _, last = await read_all(client.generate(request, on_behalf))
        assert last.finish_reason is EngineFinish.DEADLINE
        assert time.monotonic() - started > 0.2


async def test_a_full_replica_rejects_and_its_waiting_places_are_few() -> None:
    async with replica_process(slots=1, tick_ms=50) as replica, replica.client() as client:
        streams = [client.generate(LONG) for _ in range(12)]
        firsts = [asyncio.create_task(anext(stream)) for stream in streams]
        await until(lambda: firsts[0].done() and firsts[-1].done())
        rejected = [first.done() and first.exception() is not None for first in firsts]
        assert rejected == sorted(rejected)  # the first ones run or wait
        assert 5 <= sum(rejected) <= 11
        assert isinstance(firsts[-1].exception(), ReplicaRejectedError)
        for stream in streams:
            stream.close()
        await asyncio.gather(*firsts, return_exceptions=True)


async def test_sigterm_lets_running_streams_finish_and_takes_nothing_new() -> None:
    async with replica_process(slots=50, tick_ms=50) as replica, replica.client() as client:
        streams = [client.generate(EngineRequest([40 + number], 100)) for number in range(50)]
        for stream in streams:
            await anext(stream)
        replica.process.send_signal(signal.SIGTERM)
        await until_health(replica.address, "NOT_SERVING")
        with pytest.raises(ReplicaRejectedError):
            await anext(client.generate(LONG))
        for number, stream in enumerate(streams):
            _, token_ids, last = await read_all(stream)
            assert last.finish_reason is EngineFinish.LENGTH
            assert token_ids == expected_tokens([40 + number], 100)[-len(token_ids) :]
            assert last.num_completion_tokens == 100
        assert await replica.exit_code() == 0


async def test_sigterm_cuts_what_runs_beyond_its_grace() -> None:
    options = ["--drain-grace-seconds", "0.3"]
    async with replica_process(tick_ms=50, options=options) as replica, replica.client() as client:
        stream = client.generate(LONG)
        await anext(stream)
        replica.process.send_signal(signal.SIGTERM)
        _, _, last = await read_all(stream)
        assert last.finish_reason is EngineFinish.CANCELLED
        assert await replica.exit_code() == 0


async def test_a_drain_by_call_ends_the_process_with_zero() -> None:
    async with replica_process(tick_ms=50) as replica, replica.client() as client:
        stream = client.generate(EngineRequest([40], 100))
        first = await anext(stream)  # from here on it runs, for 5 s
        await asyncio.gather(client.drain(60), client.drain(60))
        _, token_ids, _ = await read_all(stream)
        assert [*first.token_ids, *token_ids] == expected_tokens([40], 100)
        assert await replica.exit_code() == 0
        with pytest.raises(ReplicaLostError):
            await client.drain(1)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_ends_the_process_at_once(second: signal.Signals) -> None:
    async with replica_process(tick_ms=50) as replica, replica.client() as client:
        stream = client.generate(LONG)
        await anext(stream)
        replica.process.send_signal(signal.SIGTERM)
        await until(lambda: client.status.phase is ReplicaPhase.DRAINING)
        replica.process.send_signal(second)
        assert await replica.exit_code() == 128 + second
        with pytest.raises(ReplicaLostError):
            await read_all(stream)


async def test_a_package_that_was_changed_fails_with_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "changed"
    shutil.copytree(TINY_LLAMA, package)
    graph = bytearray((package / "model.onnx").read_bytes())
    graph[-1] ^= 1
    (package / "model.onnx").write_bytes(graph)
    await _expect_failure(package, tmp_path, monkeypatch, "model.onnx: was changed")


async def test_a_package_that_is_not_there_fails_with_its_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _expect_failure(tmp_path / "nowhere", tmp_path, monkeypatch, "model.toml: is missing")


async def _expect_failure(package: Path, hold: Path, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """Told to who is connected when it fails, which is held until then; and said as the last word."""
    monkeypatch.setenv(held_replica.FOLDER, str(hold))
    (hold / held_replica.LOADING).touch()
    async with replica_process(package, program=held_replica.PROGRAM) as replica:
        client = ReplicaClient(replica.address, replica.token)
        await client.open()
        (hold / held_replica.LOADING).unlink()
        failures = [status async for status in client.statuses() if status.phase is ReplicaPhase.FAILED]
        assert words in failures[0].detail
        assert await health_or_gone(replica.address) != "SERVING"
        assert await replica.exit_code() == 1
        assert words in replica.stderr_lines()[-1]
        await client.close()


async def health_or_gone(address: str) -> str:
    try:
        return await health(address)
    except Exception as error:  # noqa: BLE001 -- the process may have ended already
        return type(error).__name__


async def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("0" * 64)
    async with replica_process() as replica:
        options = ["--listen", replica.address, "--token-file", str(token)]
        ended = await asyncio.to_thread(subprocess.run, command(options=options), capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")
    assert f"cannot listen on {replica.address}" in ended.stderr.decode().splitlines()[-1]


async def test_what_callers_say_is_not_logged() -> None:
    async with replica_process(options=["--log-level", "debug"], tick_ms=0) as replica, replica.client() as client:
        prompt = TOKENIZER.encode("a very secret question")
        text, token_ids, _ = await read_all(client.generate(EngineRequest(prompt, 30, stop=("secretstop",))))
        replica.process.terminate()
        assert await replica.exit_code() == 0
        logged = "\n".join(replica.stderr_lines())
        for secret in ("secretstop", replica.token, text, ", ".join(map(str, token_ids[:4])), str(prompt)[1:-1]):
            assert secret not in logged


async def test_the_real_engine_answers_through_the_wire_as_the_reference_says() -> None:
    reference = json.loads((TINY_LLAMA.parent / "tiny-llama-reference.json").read_text())
    cases = reference["cases"][:8]
    options = ["--threads", "1"]
    async with replica_process(device="cpu", options=options) as replica, replica.client() as client:
        streams = [client.generate(EngineRequest(case["prompt"], reference["max_tokens"])) for case in cases]
        for case, stream in zip(cases, streams, strict=True):
            _, token_ids, last = await read_all(stream)
            assert token_ids == case["tokens"]
            assert last.num_prompt_tokens == len(case["prompt"])


async def test_a_replica_that_is_drained_while_it_loads_ends_with_zero() -> None:
    async with replica_process() as replica:
        replica.process.send_signal(signal.SIGTERM)
        assert await replica.exit_code() == 0


async def test_a_reopened_client_finds_the_replica_as_it_is() -> None:
    async with replica_process(tick_ms=0) as replica:
        for _ in range(5):
            async with replica.client() as client:
                assert (await until_ready(client)).load.num_slots == 8
                _, token_ids, _ = await read_all(client.generate(EngineRequest([40], 10)))
                assert token_ids == expected_tokens([40], 10)
