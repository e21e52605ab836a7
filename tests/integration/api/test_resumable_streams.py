"""Generations with a request id, through the real wire: attached again, at once, after a restart, by others."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.fault.test_server_life import SLOWLY, VERY_SLOWLY
from tests.integration.api.account_calls import make_account, make_key, retry_seconds_of, revoke
from tests.integration.api.conftest import Wire, none_runs_to_its_end, text_of, wait_until, wire_to
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import ServerProcess, server_process
from tidemill import Client
from tidemill.v1 import inference_pb2, usage_pb2

LENGTH = inference_pb2.FINISH_REASON_LENGTH
CANCELLED = inference_pb2.FINISH_REASON_CANCELLED
STOPPED = inference_pb2.FINISH_REASON_SESSION_STOPPED


@pytest.fixture
def name() -> str:
    return uuid.uuid4().hex


def counted(stream: Iterator[inference_pb2.GenerateResponse]) -> list[inference_pb2.GenerateResponse]:
    """All messages but the keep-alives."""
    return [message for message in stream if not message.HasField("keep_alive")]


def begin(wire: Wire, name: str, num_messages: int, **fields: object) -> list[inference_pb2.GenerateResponse]:
    """The first messages of a stream that is then cut."""
    stream = wire.generate(request_id=name, **fields)
    seen: list[inference_pb2.GenerateResponse] = []
    while len(seen) < num_messages:
        seen += counted(iter([next(stream)]))
    stream.cancel()  # type: ignore[attr-defined]
    return seen


def cancel(wire: Wire, name: str) -> bool:
    request = inference_pb2.CancelGenerationRequest(request_id=name)
    return wire.inference.CancelGeneration(request, metadata=wire.metadata).already_ended


def test_a_cut_stream_goes_on_from_the_next_message(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    whole = text_of(list(slow_wire.generate(max_tokens=200)))
    seen = begin(slow_wire, name, 3, max_tokens=200)  # in few messages, where the machine is slow
    seen += counted(slow_wire.generate(max_tokens=200, request_id=name, resume_after=seen[-1].sequence_number))
    assert [message.sequence_number for message in seen] == list(range(1, len(seen) + 1))
    assert text_of(seen) == whole
    assert seen[-1].end.finish_reason == LENGTH
    assert seen[-1].end.usage.completion_tokens == 200
    assert sum(message.delta.num_tokens for message in seen) == 200
    assert counted(slow_wire.generate(max_tokens=200, request_id=name)) == seen
    wait_until(lambda: slow_wire.model().demand == 0, "the demand of none")


def test_an_answer_of_one_token_is_one_message_for_whom_that_suits(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    (whole,) = counted(slow_wire.generate(max_tokens=1, request_id=name, joins_end=True))
    assert (whole.sequence_number, whole.last_delta.num_tokens, whole.end.usage.completion_tokens) == (2, 1, 1)
    delta, end = counted(slow_wire.generate(max_tokens=1, request_id=name))
    assert (delta.sequence_number, delta.delta) == (1, whole.last_delta)
    assert (end.sequence_number, end.end, end.HasField("last_delta")) == (2, whole.end, False)


@pytest.mark.rule("A2")
def test_a_cut_stream_goes_on_although_its_account_may_make_no_more_requests(
    slow_server: ServerProcess, slow_wire: Wire, name: str
) -> None:
    account = make_account(slow_wire, requests_per_minute=8)
    with wire_to(slow_server, make_key(slow_wire, account).secret) as customer:
        customer.start()
        seen = begin(customer, name, 2, max_tokens=200)

        def ask_until_refused() -> None:
            for _ in range(40):  # the limit and more, also when a minute ends meanwhile
                customer.model()

        assert retry_seconds_of(ask_until_refused) > 0
        seen += counted(customer.generate(max_tokens=200, request_id=name, resume_after=seen[-1].sequence_number))
        assert seen[-1].end.finish_reason == LENGTH
        assert cancel(customer, name)


@pytest.mark.rule("A13")
def test_the_same_request_id_with_another_body_is_refused(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    begin(slow_wire, name, 1)
    refusal = refusal_of(lambda: list(slow_wire.generate("another prompt", request_id=name)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refusal.field == "request_id"


@pytest.mark.rule("A10")
def test_a_revoked_key_ends_what_runs_on_without_a_call_and_its_place_is_free(tmp_path: Path, name: str) -> None:
    with server_process(tmp_path, *VERY_SLOWLY) as server, wire_to(server) as wire:
        account = make_account(wire, concurrent_generations=1)
        first, second = (make_key(wire, account) for _ in range(2))
        with wire_to(server, first.secret) as customer, wire_to(server, second.secret) as colleague:
            customer.start()
            begin(customer, name, 1, max_tokens=1000)
            revoke(wire, first.api_key.name)
            end = list(colleague.generate(max_tokens=1000, request_id=name))[-1].end
            assert end.finish_reason == STOPPED
            assert 0 < end.usage.completion_tokens < 1000
            colleague.start()
            assert list(colleague.generate(max_tokens=1))[-1].end.finish_reason == LENGTH


@pytest.mark.rule("A13")
def test_the_same_request_id_of_another_account_is_another_generation(wire: Wire, neighbour: Wire, name: str) -> None:
    texts = []
    for caller, prompt in ((wire, "one prompt"), (neighbour, "and another one")):
        caller.start()
        texts.append(text_of(list(caller.generate(prompt, request_id=name))))
    assert cancel(wire, name)
    assert texts[0] != texts[1]


def test_a_repeat_attaches_although_its_session_has_ended(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    seen = counted(slow_wire.generate(max_tokens=20, request_id=name))
    slow_wire.stop()
    assert counted(slow_wire.generate(max_tokens=20, request_id=name)) == seen
    refusal = refusal_of(lambda: list(slow_wire.generate(max_tokens=20, request_id=name + "x")))
    assert refusal.reason == "NO_SESSION"


def test_what_was_refused_may_be_asked_again_with_its_request_id(slow_wire: Wire, name: str) -> None:
    assert refusal_of(lambda: list(slow_wire.generate(request_id=name))).reason == "NO_SESSION"
    assert refusal_of(lambda: list(slow_wire.generate("", request_id=name))).reason == "PROMPT_EMPTY"
    slow_wire.start()
    assert counted(slow_wire.generate(request_id=name))[-1].end.finish_reason == LENGTH


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"request_id": "r", "resume_after": -1}, "resume_after"),
        ({"resume_after": 1}, "resume_after"),
        ({"request_id": "r" * 129}, "request_id"),
        ({"request_id": "a\nb"}, "request_id"),
    ],
)
def test_a_wrong_field_of_a_resumed_call_is_named(wire: Wire, fields: dict[str, object], field: str) -> None:
    refusal = refusal_of(lambda: list(wire.generate(**fields)))
    assert (refusal.reason, refusal.field) == ("FIELD_INVALID", field)
    if "request_id" in fields and field == "request_id":
        assert refusal_of(lambda: cancel(wire, str(fields["request_id"]))).field == field


def test_nobody_goes_on_from_a_message_that_was_never_sent(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    assert refusal_of(lambda: list(slow_wire.generate(request_id=name, resume_after=3))).reason == "GENERATION_LOST"
    begin(slow_wire, name, 1)
    refusal = refusal_of(lambda: list(slow_wire.generate(request_id=name, resume_after=1_000)))
    assert (refusal.reason, refusal.field) == ("FIELD_INVALID", "resume_after")


def test_a_cancelled_generation_ends_for_all_and_gives_its_place_back(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    assert cancel(slow_wire, name)
    begin(slow_wire, name, 3, max_tokens=1000)
    attached = slow_wire.generate(max_tokens=1000, request_id=name)
    next(attached)
    assert not cancel(slow_wire, name)
    end = list(attached)[-1].end
    assert end.finish_reason == CANCELLED
    assert 3 <= end.usage.completion_tokens < 1000
    wait_until(lambda: slow_wire.model().demand == 0, "the demand of none")
    assert cancel(slow_wire, name)


def test_a_client_that_breaks_off_leaves_nothing_running(slow_server: ServerProcess, slow_wire: Wire) -> None:
    slow_wire.start()
    list(slow_wire.generate())
    with (
        none_runs_to_its_end(slow_server, slow_wire),
        Client(slow_server.api_key, target=slow_server.grpc, model="tiny-llama") as client,
    ):
        for _ in client.complete_prompt("on and on", max_tokens=1000):
            break


def test_sessions_and_servers_that_stop_or_are_killed_end_it_with_a_word(tmp_path: Path, name: str) -> None:
    with server_process(tmp_path, "--stop-grace", "0.2", *VERY_SLOWLY) as server, wire_to(server) as wire:
        wire.start()
        begin(wire, name, 5, max_tokens=1000)
        wire.stop()
        stopped = counted(wire.generate(max_tokens=1000, request_id=name))[-1].end
        assert stopped.finish_reason == STOPPED
        wire.start()
        begin(wire, name + "-cut", 5, max_tokens=1000)
        server.kill()
    with server_process(tmp_path, *SLOWLY) as server, wire_to(server) as wire:
        for again in ({}, {"resume_after": 3}):
            ended, usage = ended_of(lambda again=again: list(wire.generate(max_tokens=1000, request_id=name, **again)))
            assert ended == "GENERATION_ENDED"
            assert usage == stopped.usage
            cut = refusal_of(
                lambda again=again: list(wire.generate(max_tokens=1000, request_id=name + "-cut", **again))
            )
            assert (cut.code, cut.reason) == (grpc.StatusCode.ALREADY_EXISTS, "GENERATION_LOST")
        begin(wire, name + "-new", 5, max_tokens=400)
        attached = wire.generate(max_tokens=400, request_id=name + "-new")
        next(attached)
        server.process.terminate()
        end = list(attached)[-1].end
        assert (end.finish_reason, end.usage.completion_tokens) == (LENGTH, 400)
        assert server.process.wait(60) == 0


def ended_of(call: Callable[[], object]) -> tuple[str, usage_pb2.Usage]:
    """The reason of a refusal that carries a usage, and that usage."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    status = rpc_status.from_call(refused.value)
    assert status is not None
    info, usage = error_details_pb2.ErrorInfo(), usage_pb2.Usage()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(usage)
    return info.reason, usage
