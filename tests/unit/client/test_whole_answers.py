"""Answers that come whole, in one message: cut, lost, refused, left."""

import threading
from functools import partialmethod

import grpc
import pytest

import tidemill
from tests.unit.client.mill import KEY, Cut, Hold, Mill, Refusal, broken_end, keep_alive
from tests.unit.client.test_resuming import LOST, until
from tidemill import AsyncClient, Client
from tidemill.plans import following
from tidemill.v1 import inference_pb2


@pytest.fixture(autouse=True)
def _nothing_to_pay(mill: Mill) -> None:
    mill.needs_session = False


def test_a_call_that_is_cut_is_made_again_for_the_same_generation(client: Client, mill: Mill) -> None:
    mill.script("cut", "some", Cut(), " more", Cut())
    found = client.complete("cut")
    assert (found.text, found.finish_reason, found.usage is not None) == ("some more", "stop", True)
    requests = mill.requests["Complete"]
    assert [request.resume_after for request in requests] == [0, 0, 0]
    assert len({request.request_id for request in requests}) == 1
    assert (mill.requests["Generate"], mill.requests["CancelGeneration"]) == ([], [])


async def test_it_is_so_with_asyncio(async_client: AsyncClient, mill: Mill) -> None:
    mill.script("cut", "some", Cut(), " more")
    assert await async_client.complete_prompt("cut", stream=False) == "some more"
    assert len({request.request_id for request in mill.requests["Complete"]}) == 1


def test_what_a_restarted_server_lost_is_asked_anew(client: Client, mill: Mill) -> None:
    mill.script("cut", Cut(), "some text")
    refusals = [LOST]
    mill.refuse_when(lambda _: refusals.pop() if len(mill.requests["Complete"]) == 2 else None)
    assert client.complete_prompt("cut", stream=False) == "some text"
    first, second, third = mill.requests["Complete"]
    assert first.request_id == second.request_id != third.request_id


def test_a_connection_that_stays_away_is_an_error_and_ends_the_generation(
    client: Client, mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LONGEST_ABSENCE", 0.3)
    mill.script("cut", *(Cut() for _ in range(50)))
    with pytest.raises(tidemill.UnreachableError):
        client.complete("cut")
    until(mill, "CancelGeneration", 1)


@pytest.mark.parametrize("with_asyncio", [False, True])
async def test_an_error_after_text_carries_the_text(
    client: Client, async_client: AsyncClient, mill: Mill, with_asyncio: bool
) -> None:
    mill.script("broken", "some", broken_end("REPLICA_LOST", "The replica was lost."))
    with pytest.raises(tidemill.ReplicaLostError) as caught:
        await async_client.complete("broken") if with_asyncio else client.complete("broken")
    assert caught.value.partial_text == "some"
    assert caught.value.request_id == mill.requests["Complete"][0].request_id
    assert mill.requests["CancelGeneration"] == []


def test_who_wants_to_hear_how_it_goes_gets_the_stream(client: Client, mill: Mill) -> None:
    mill.script("wake", keep_alive(), "up", " now")
    seen: list[tidemill.Progress] = []
    assert client.complete_prompt("wake", stream=False, on_progress=seen.append) == "up now"
    assert ([one.state for one in seen], mill.requests["Complete"]) == (["starting"], [])


def test_a_timeout_ends_the_generation(client: Client, mill: Mill) -> None:
    mill.script("long", Hold())
    with pytest.raises(tidemill.DeadlineExceededError):
        client.complete("long", timeout=0.2)
    until(mill, "CancelGeneration", 1)


def test_a_refusal_is_typed_and_names_the_field(client: Client, mill: Mill) -> None:
    mill.fail_next("Complete", Refusal(grpc.StatusCode.INVALID_ARGUMENT, "FIELD_INVALID", "top_p is 7.", "top_p"))
    with pytest.raises(tidemill.FieldInvalidError) as caught:
        client.complete("hello", top_p=7)
    assert caught.value.field == "top_p"


def test_closing_the_client_ends_what_another_thread_waits_for(mill: Mill) -> None:
    hold = Hold()
    mill.script("long", hold)
    client = Client(KEY, target=mill.target)
    closer = threading.Thread(target=lambda: hold.reached.wait(60) and client.close())
    closer.start()
    with pytest.raises(tidemill.CallCancelledError):
        client.complete("long")
    closer.join()
    assert hold.abandoned.wait(60)


@pytest.mark.parametrize("method", ["Complete", "Generate"])
def test_a_ctrl_c_that_comes_while_the_call_is_opened_ends_its_generation(
    client: Client, mill: Mill, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    hold = Hold()
    mill.script("long", hold)
    kind, name = (
        (grpc.UnaryUnaryMultiCallable, "future")
        if method == "Complete"
        else (grpc.UnaryStreamMultiCallable, "__call__")
    )

    def interrupted(self, request, *, start, **options):
        call = start(self, request, **options)
        if isinstance(request, inference_pb2.GenerateRequest):
            assert hold.reached.wait(60)
            raise KeyboardInterrupt
        return call

    for implementation in kind.__subclasses__():
        monkeypatch.setattr(implementation, name, partialmethod(interrupted, start=getattr(implementation, name)))
    with pytest.raises(KeyboardInterrupt):
        client.complete_prompt("long", stream=False) if method == "Complete" else next(client.complete_prompt("long"))
    until(mill, "CancelGeneration", 1)
    assert mill.requests["CancelGeneration"][0].request_id == mill.requests[method][0].request_id
