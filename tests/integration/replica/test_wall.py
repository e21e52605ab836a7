"""Server and client over a real connection; the engine is moved by hand, so that each moment can be chosen."""

import asyncio
import time

import grpc
import grpc.aio
import pytest

from tests.integration.replica.served_engine import served_engine, until, until_health
from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_services.domain.errors import ReaderTooSlowError, ReplicaLostError
from tidemill_services.engine_client import (
    EngineFinish,
    EngineRequest,
    Patience,
    ReplicaClient,
    ReplicaPhase,
    ReplicaRejectedError,
    ReplicaStatus,
    SendingCost,
)
from tidemill_serving.engine import FinishReason, Phase, SequenceOutput
from tidemill_serving.server import replica
from tidemill_serving.settings import ServerSettings

REQUEST = EngineRequest(prompt_tokens=[5, 6], max_tokens=10)


async def test_a_reader_that_keeps_up_gets_one_output_for_each_step() -> None:
    async with served_engine() as served, served.client() as client:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        for letter in "tide":
            served.engine.make(letter)
            assert (await anext(stream)).text == letter
        served.engine.finish(1)
        assert (await anext(stream)).finish_reason is EngineFinish.STOP


async def test_a_client_says_how_long_steps_are_to_gather_for_its_generations() -> None:
    async with served_engine() as served, served.client() as client:
        streams = [client.generate(REQUEST) for _ in range(3)]
        await until(lambda: len(served.engine.requests) == 3)
        gathering, asked = served.replica._switchboard._gathering, SendingCost().gather_microseconds
        assert gathering.microseconds == 3 * asked > 0
        streams[0].close()
        await until(lambda: served.engine.aborted == [1])
        served.engine.finish(1, FinishReason.CANCELLED)
        await until(lambda: gathering.microseconds == 2 * asked)


async def test_steps_that_a_reader_slept_through_come_as_one_output() -> None:
    async with served_engine() as served, served.client() as client:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        for letter in "tidemill":
            served.engine.make(letter)
        served.engine.num_free_tokens = 7
        served.engine.make("!")
        await until(lambda: client.num_buffered_bytes == 9 * (1 + 4))  # of each token its letter and its id
        assert client.status.load.num_free_tokens == 7
        output = await anext(stream)
        assert (output.text, output.num_tokens) == ("tidemill!", 9)
        stream.close()


async def test_a_reader_that_stops_reading_is_cut_at_its_limit_and_others_go_on() -> None:
    async with served_engine() as served, served.client() as client:
        slow, quick = client.generate(REQUEST), client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 2)
        num_made = 0
        while 1 not in served.engine.aborted:
            served.engine.make("x" * 100_000)
            num_made += 1
            assert (await anext(quick)).text == "x" * 100_000
            await asyncio.sleep(0.005)
        assert 2 not in served.engine.aborted
        kept = await anext(slow)
        assert 1 << 20 < len(kept.text) <= (1 << 20) + 100_000
        with pytest.raises(ReaderTooSlowError):
            await anext(slow)
        quick.close()


async def test_a_process_that_does_not_read_its_connection_is_cut_and_its_sequences_end() -> None:
    async with served_engine(ServerSettings(max_pending_size=300_000)) as served, served.stub() as stub:
        call = stub.Connect(metadata=served.metadata())
        await call.write(pb.ConnectRequest(submit=pb.Submit(sequence_id=1, prompt_tokens=[1], max_tokens=5, top_p=1)))
        await until(lambda: len(served.engine.requests) == 1)
        async with asyncio.timeout(60):
            while not served.engine.aborted:
                served.engine.make("x" * 100_000)
                await asyncio.sleep(0.005)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in call:
                pass
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_all_sequences_of_a_caller_share_one_message_a_step() -> None:
    settings = ServerSettings(status_seconds=3600, heartbeat_seconds=0.02)  # no status comes between the steps
    async with served_engine(settings) as served, served.stub() as stub:
        call = stub.Connect(metadata=served.metadata())
        first = await call.read()
        assert first.WhichOneof("event") == "status"
        for sequence_id in range(1, 9):
            submit = pb.Submit(sequence_id=sequence_id, prompt_tokens=[1], max_tokens=5, top_p=1)
            await call.write(pb.ConnectRequest(submit=submit))
        await until(lambda: len(served.engine.requests) == 8)
        for number in (1, 2, 3):
            served.engine.make("x")
            step = (await call.read()).step
            assert step.number == number
            assert [output.sequence_id for output in step.outputs] == list(range(1, 9))
        call.cancel()


async def test_generations_that_are_sent_in_one_message_run_in_its_order() -> None:
    async with served_engine() as served, served.stub() as stub:
        call = stub.Connect(metadata=served.metadata())
        one, two, three = (pb.Submit(sequence_id=n, prompt_tokens=[n], max_tokens=5, top_p=1) for n in (1, 2, 3))
        await call.write(pb.ConnectRequest(submit=one, more_submits=[two, three]))
        await call.write(pb.ConnectRequest(abort=pb.Abort(sequence_id=2)))
        await until(lambda: served.engine.aborted == [2])
        assert [request.prompt_tokens for request in served.engine.requests.values()] == [(1,), (2,), (3,)]
        call.cancel()


async def test_a_caller_that_ends_its_side_has_its_sequences_aborted_and_the_stream_ended() -> None:
    async with served_engine() as served, served.stub() as stub:
        call = stub.Connect(metadata=served.metadata())
        await call.write(pb.ConnectRequest(submit=pb.Submit(sequence_id=1, prompt_tokens=[1], max_tokens=5, top_p=1)))
        await until(lambda: len(served.engine.requests) == 1)
        await call.done_writing()
        await until(lambda: served.engine.aborted == [1])
        async for message in call:
            assert message.WhichOneof("event") == "status"
        assert await call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("metadata", [(), (("authorization", "Bearer " + "0" * 64),), (("authorization", ""),)])
async def test_every_call_without_the_launchers_token_is_refused(metadata: tuple[tuple[str, str], ...]) -> None:
    async with served_engine() as served, served.stub() as stub:
        call = stub.Connect(metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Drain(pb.DrainRequest(), metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert served.token not in (caught.value.details() or "")
        assert not served.running.done()


async def test_a_client_with_a_wrong_token_is_told_so() -> None:
    async with served_engine() as served:
        with pytest.raises(ReplicaLostError, match="does not accept our token"):
            await ReplicaClient(served.address, "0" * 64).open()


async def test_a_client_of_nobody_is_told_at_once() -> None:
    async with served_engine() as served:
        address = served.address
    async with asyncio.timeout(60):
        with pytest.raises(ReplicaLostError, match=address):
            await ReplicaClient(address, "0" * 64).open()


async def test_health_follows_the_engine_and_needs_no_token() -> None:
    async with served_engine() as served:
        for service in ("", "tidemill.engine.v1.EngineService"):
            await until_health(served.address, "SERVING", service)
        served.engine.responsive = False
        await until_health(served.address, "NOT_SERVING")
        served.engine.responsive = True
        await until_health(served.address, "SERVING")
        served.replica.drain(5)
        served.engine.responsive = False


async def test_each_change_of_the_replica_is_seen_and_the_last_one_is_the_loss() -> None:
    async with served_engine() as served, served.client() as client:
        seen: list[ReplicaStatus] = []

        async def watch() -> None:
            async for status in client.statuses():
                seen.append(status)  # noqa: PERF401 -- looked at while it grows

        watching = asyncio.create_task(watch())
        await until(lambda: bool(seen) and seen[-1].takes_generations)
        served.engine.responsive = False
        await until(lambda: not seen[-1].responsive)
        assert not seen[-1].takes_generations
        served.engine.responsive = True
        await until(lambda: seen[-1].responsive)
        await client.drain(5)
        await watching
        assert [status.phase for status in seen[-2:]] == [ReplicaPhase.DRAINING, ReplicaPhase.DRAINING]
        assert [status.connected for status in seen[-2:]] == [True, False]


async def test_a_status_comes_again_and_again_so_that_silence_means_loss() -> None:
    settings = ServerSettings(status_seconds=0.2, heartbeat_seconds=0.02)
    async with served_engine(settings) as served, served.client(Patience(silence=3.0)) as client:
        await asyncio.sleep(4.0)
        assert client.status.connected


async def test_a_silent_replica_is_lost_and_its_streams_with_it() -> None:
    settings = ServerSettings(status_seconds=3600)
    async with served_engine(settings) as served, served.client(Patience(silence=2.0)) as client:
        stream = client.generate(REQUEST)
        with pytest.raises(ReplicaLostError, match=r"said nothing for 2 s"):
            await anext(stream)
        assert not client.status.connected
        with pytest.raises(ReplicaLostError):
            client.generate(REQUEST)


async def test_a_silent_replica_gets_nothing_new_until_it_speaks_again() -> None:
    settings = ServerSettings(status_seconds=3600, heartbeat_seconds=0.02)
    async with served_engine(settings) as served, served.client(Patience(stale=1.0, silence=60)) as client:
        assert client.status.takes_generations
        stream = client.generate(REQUEST)
        ended: list[bool] = []  # for each end of the stream, whether a generation could have been sent then
        stream.on_end(lambda: ended.append(client.status.takes_generations))
        with pytest.raises(ReplicaLostError, match="it shows no life"):
            await anext(stream)
        assert client.status.connected
        assert ended == [False]
        with pytest.raises(ReplicaLostError, match="it shows no life"):
            client.generate(REQUEST)
        served.engine.responsive = False
        await until_health(served.address, "NOT_SERVING")
        served.engine.responsive = True
        await until(lambda: client.status.takes_generations)


async def test_what_a_replica_still_makes_of_given_up_streams_is_dropped_and_cancelled() -> None:
    async with served_engine() as served, served.client() as client:
        given_up = [client.generate(REQUEST) for _ in range(3)]
        await until(lambda: len(served.engine.requests) == 3)
        served.engine.make("shown ")
        await until(lambda: client.num_buffered_bytes > 0)
        served.engine.responsive = False
        await until(lambda: not client.status.responsive)
        assert client.num_streams == 0
        served.engine.responsive = True
        served.engine.make("late")
        await until(lambda: sorted(served.engine.aborted) == [1, 2, 3])
        await until(lambda: client.status.takes_generations)
        stream = client.generate(REQUEST)
        await until(lambda: 4 in served.engine.requests)
        served.engine.make("new", 4)
        assert (await anext(stream)).text == "new"
        for old in given_up:
            assert (await anext(old)).text == "shown "
            with pytest.raises(ReplicaLostError):
                await anext(old)
        assert client.num_buffered_bytes == 0
        stream.close()


async def test_a_replica_whose_engine_shows_no_life_ends_its_streams_and_says_since_when() -> None:
    async with served_engine() as served, served.client() as client:
        assert client.status.last_life is None
        stream = client.generate(REQUEST)
        served.engine.lived_at = time.monotonic() - 7
        served.engine.responsive = False
        with pytest.raises(ReplicaLostError, match="it shows no life"):
            await anext(stream)
        assert client.status.last_life == pytest.approx(served.engine.lived_at, abs=5)
        served.engine.responsive = True
        await until(lambda: client.status.responsive)
        assert client.status.last_life is None


async def test_a_replica_whose_engine_stays_dead_is_lost_in_the_end() -> None:
    async with served_engine() as served, served.client(Patience(unresponsive=0.5)) as client:
        served.engine.responsive = False
        await until(lambda: not client.status.connected)
        assert "its engine showed no life for 0.5 s" in client.status.detail
        assert client.status.last_life == pytest.approx(served.engine.lived_at, abs=5)


async def test_a_replica_that_stood_still_as_a_whole_excuses_its_engine_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replica, "EXCUSE_SECONDS", 4.0)
    async with served_engine() as served, served.client() as client:
        await until(lambda: client.status.takes_generations)
        time.sleep(1.2)  # noqa: ASYNC251 -- nothing of this process runs
        served.engine.responsive = False
        await asyncio.sleep(0.2)
        assert client.status.responsive
        await until(lambda: not client.status.responsive)


async def test_a_process_that_stood_still_itself_ends_no_stream() -> None:
    settings = ServerSettings(status_seconds=0.1, heartbeat_seconds=0.02)
    async with served_engine(settings) as served, served.client(Patience(stale=1.0, silence=1.5)) as client:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        time.sleep(2)  # noqa: ASYNC251 -- nothing of this process runs, nor is anything read
        served.engine.make("still here")
        assert (await anext(stream)).text == "still here"
        stream.close()


async def test_rejected_when_full_and_the_next_try_may_succeed() -> None:
    async with served_engine(num_places=1) as served, served.client() as client:
        first, second = client.generate(REQUEST), client.generate(REQUEST)
        with pytest.raises(ReplicaRejectedError):
            await anext(second)
        served.engine.finish(1)
        assert (await anext(first)).finish_reason is EngineFinish.STOP
        third = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        third.close()


async def test_what_cannot_be_run_ends_with_its_sentence_and_the_connection_stays() -> None:
    async with served_engine() as served, served.client() as client:
        for wrong, words in (
            (EngineRequest([], 10), "prompt_tokens is empty"),
            (EngineRequest([1], 0), "max_tokens must be at least 1"),
            (EngineRequest([1], 1, temperature=float("nan")), "temperature must be a number"),
            (EngineRequest([1], 1, top_p=0.0), "top_p must be above 0"),
            (EngineRequest([1], 1, stop=("",)), "stop holds an empty string"),
        ):
            (output,) = [output async for output in client.generate(wrong)]
            assert output.finish_reason is EngineFinish.ERROR
            assert words in output.error
        assert client.status.takes_generations


async def test_numbers_that_the_contract_cannot_hold_start_nothing() -> None:
    async with served_engine() as served, served.client() as client:
        for wrong in (EngineRequest([-1], 10), EngineRequest([1], 1 << 40)):
            with pytest.raises(ValueError, match="range"):
                client.generate(wrong)
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        stream.close()


async def test_a_drain_cuts_what_still_runs_after_its_grace_and_says_so() -> None:
    async with served_engine() as served, served.client() as client:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        served.engine.make("so far")
        await client.drain(30)
        await client.drain(0.2)  # the grace that ends first counts
        await until(lambda: served.engine.aborted == [1])
        served.engine.finish(1, FinishReason.CANCELLED)
        outputs = [output async for output in stream]
        assert "".join(output.text for output in outputs) == "so far"
        assert outputs[-1].finish_reason is EngineFinish.CANCELLED
        assert await served.running is None
        assert served.engine.closed


@pytest.mark.parametrize("seconds", [-(2**62), -1, 2**62])
async def test_a_drain_with_an_absurd_grace_is_a_drain(seconds: int) -> None:
    async with served_engine() as served, served.client() as client, served.stub() as stub:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        await stub.Drain(pb.DrainRequest(grace={"seconds": seconds}), metadata=served.metadata())
        await until(lambda: client.status.phase is ReplicaPhase.DRAINING)
        served.engine.finish(1)
        assert (await anext(stream)).finish_reason is EngineFinish.STOP
        assert await served.running is None


async def test_a_client_that_was_not_opened_takes_nothing_and_closes() -> None:
    client = ReplicaClient("127.0.0.1:1", "0" * 64)
    with pytest.raises(ReplicaLostError, match="not connected"):
        client.generate(REQUEST)
    with pytest.raises(ReplicaLostError, match="not connected"):
        await client.drain(1)
    await client.close()


async def test_an_engine_that_does_not_answer_the_cut_cannot_hold_the_drain_up() -> None:
    settings = ServerSettings(heartbeat_seconds=0.02, cut_seconds=0.2)
    async with served_engine(settings) as served, served.client() as client:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        served.replica.drain(0.1)
        async with asyncio.timeout(60):
            assert await served.running is None
        with pytest.raises(ReplicaLostError):
            await anext(stream)


async def test_a_failed_engine_is_heard_with_its_sentence_before_the_server_ends() -> None:
    async with served_engine() as served, served.client() as client:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        served.engine.become(Phase.FAILED, 0.0, "The memory is full.")
        output = await anext(stream)
        assert (output.finish_reason, output.error) == (EngineFinish.ERROR, "The memory is full.")
        assert (client.status.phase, client.status.detail) == (ReplicaPhase.FAILED, "The memory is full.")
        assert await served.running == "The memory is full."


async def test_closing_the_client_ends_its_streams_here_and_there() -> None:
    async with served_engine() as served:
        async with served.client() as client:
            stream = client.generate(REQUEST)
            await until(lambda: len(served.engine.requests) == 1)
        with pytest.raises(ReplicaLostError, match="closed"):
            await anext(stream)
        await until(lambda: served.engine.aborted == [1])


async def test_characters_of_every_kind_arrive_whole() -> None:
    async with served_engine() as served, served.client() as client:
        stream = client.generate(REQUEST)
        await until(lambda: len(served.engine.requests) == 1)
        served.engine.step(SequenceOutput(1, "größer 🌊 潮\x00", (1, 2, 3), FinishReason.LENGTH, "", 2, 3))
        output = await anext(stream)
        assert (output.text, output.token_ids) == ("größer 🌊 潮\x00", (1, 2, 3))
