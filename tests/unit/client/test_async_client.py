"""The asyncio client: the same plans, carried out by the other transport."""

import asyncio
import inspect
import socket

import pytest

import tidemill
from tests.unit.client.mill import KEY, Hold, Mill, Refusal, broken_end, keep_alive
from tidemill import AsyncClient, Client
from tidemill.errors import BY_REASON


async def test_a_prompt_streams_and_ends_with_usage(async_client: AsyncClient) -> None:
    async with async_client.session() as session:
        stream = await async_client.complete_prompt("hello")
        assert [text async for text in stream] == ["You", " said:", " hello"]
    assert (stream.text, stream.finish_reason) == ("You said: hello", "stop")
    assert stream.usage is not None
    assert session.bill.final


async def test_texts_completions_and_batches(async_client: AsyncClient) -> None:
    await async_client.start_session()
    assert await async_client.complete_prompt("one", stream=False) == "You said: one"
    assert await async_client.complete_prompt(["one", "two"], stream=False) == ["You said: one", "You said: two"]
    chat = [{"role": "user", "content": "hi"}]
    assert await async_client.complete_chat(chat, stream=False) == "You said: user:hi"
    assert (await async_client.complete(chat, max_tokens=1)).finish_reason == "length"
    assert [one.text for one in await async_client.complete_batch(["one", chat])] == [
        "You said: one",
        "You said: user:hi",
    ]
    assert (await async_client.stop_session()).final


async def test_sessions_and_models(async_client: AsyncClient) -> None:
    session = await async_client.start_session()
    assert await async_client.get_session(session.name) == session
    assert await async_client.list_sessions() == [session]
    assert [one.name for one in await async_client.list_models()] == ["models/tide-nano"]
    assert not await async_client.model_is_running()
    assert (await async_client.wait_until_model_running()).is_running
    assert (await async_client.start_model(wait=True)).is_running
    assert (await async_client.stop_model()).state == "stopped"
    assert (await async_client.get_model()).state == "stopped"


async def test_a_watch_yields_until_it_is_closed(async_client: AsyncClient) -> None:
    await async_client.start_model()
    async with async_client.watch_model() as views:
        assert [view.state async for view in views] == ["queued", "starting", "starting", "ready"]


async def test_an_error_in_mid_stream_comes_after_the_text(async_client: AsyncClient, mill: Mill) -> None:
    mill.needs_session = False
    mill.script("cut", keep_alive(), "some", broken_end("REPLICA_LOST", "Lost."))
    stream = await async_client.complete_prompt("cut")
    assert await anext(stream) == "some"
    with pytest.raises(tidemill.ReplicaLostError) as caught:
        await anext(stream)
    assert caught.value.partial_text == "some"


async def test_closing_a_stream_cancels_it_and_ends_the_iteration(async_client: AsyncClient, mill: Mill) -> None:
    mill.needs_session = False
    hold = Hold()
    mill.script("long", "some", hold, " more")
    stream = await async_client.complete_prompt("long")
    assert await anext(stream) == "some"
    assert await asyncio.to_thread(hold.reached.wait, 60)
    await stream.close()
    assert [text async for text in stream] == []
    assert stream.finish_reason == "cancelled"
    assert await asyncio.to_thread(hold.abandoned.wait, 60)


async def test_cancelling_the_task_cancels_the_call(async_client: AsyncClient, mill: Mill) -> None:
    mill.needs_session = False
    hold = Hold()
    mill.script("long", hold, "never")
    task = asyncio.create_task(async_client.complete_prompt("long", stream=False))
    assert await asyncio.to_thread(hold.reached.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(hold.abandoned.wait, 60)


async def test_many_tasks_share_one_client(async_client: AsyncClient, mill: Mill) -> None:
    mill.needs_session = False
    texts = await asyncio.gather(*(async_client.complete_prompt(str(n), stream=False) for n in range(32)))
    assert texts == [f"You said: {n}" for n in range(32)]


@pytest.mark.parametrize("reason", ["NO_SESSION", "MODEL_REQUIRED", "QUEUE_FULL"])
async def test_refusals_are_typed(async_client: AsyncClient, mill: Mill, reason: str) -> None:
    mill.fail_next("GetSession", Refusal(BY_REASON[reason].code, reason, field="name"))
    with pytest.raises(BY_REASON[reason]) as caught:
        await async_client.get_session("sessions/1")
    assert caught.value.field == "name"


async def test_an_idempotent_call_is_repeated(async_client: AsyncClient, mill: Mill) -> None:
    mill.fail_next("StartSession", Refusal(BY_REASON["DRAINING"].code, "DRAINING"))
    await async_client.start_session()
    assert len({one.request_id for one in mill.requests["StartSession"]}) == 1


async def test_where_no_server_answers_the_error_says_how_to_start_one() -> None:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        async with AsyncClient(KEY, target=f"127.0.0.1:{place.getsockname()[1]}") as client:
            with pytest.raises(tidemill.UnreachableError, match="tidemill serve"):
                await client.list_models()


async def test_print_prompt_prints_and_returns(
    async_client: AsyncClient, mill: Mill, capsys: pytest.CaptureFixture
) -> None:
    mill.needs_session = False
    printed = await async_client.print_prompt(await async_client.complete_prompt("hello"))
    assert capsys.readouterr().out == "You said: hello\n"
    assert (printed.text, printed.finish_reason) == ("You said: hello", "stop")


async def test_a_closed_client_says_so(async_client: AsyncClient) -> None:
    await async_client.list_models()
    await async_client.close()
    with pytest.raises(tidemill.ConfigError, match="closed"):
        await async_client.list_models()


def test_both_clients_have_the_same_methods_with_the_same_parameters() -> None:
    def shape(client: type) -> dict[str, list[tuple[str, object]]]:
        methods = {name: found for name, found in inspect.getmembers(client, callable) if not name.startswith("_")}
        return {
            name: [(one.name, one.default) for one in inspect.signature(found).parameters.values()]
            for name, found in methods.items()
        }

    assert shape(Client) == shape(AsyncClient)
