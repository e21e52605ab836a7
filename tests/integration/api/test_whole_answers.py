"""Complete through the real wire: what Generate's stream says, in one message."""

from pathlib import Path

import grpc
import pytest

from tests.fault.test_cut_connections import metric
from tests.fault.test_server_life import VERY_SLOWLY
from tests.integration.api.conftest import Wire, none_runs_to_its_end, text_of, wait_until, wire_to
from tests.integration.api.test_refusals import refusal_of
from tests.integration.api.test_resumable_streams import CANCELLED, LENGTH, begin, cancel, counted, name
from tests.integration.api.test_token_payment import CREDIT, charges_of, cost_of, payer
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import errors_pb2, inference_pb2

__all__ = ["name"]


def request(
    prompt: str = "once upon a time", *, max_tokens: int = 8, **fields: object
) -> inference_pb2.GenerateRequest:
    options = inference_pb2.GenerationOptions(
        max_tokens=max_tokens, sampling=inference_pb2.Sampling(temperature=0), **fields.pop("options", {})
    )
    given = inference_pb2.Input(prompt=prompt)
    return inference_pb2.GenerateRequest(**{"model": "tiny-llama", "input": given, "options": options, **fields})


def whole(wire: Wire, *arguments: str, seconds: float = 60, **fields: object) -> inference_pb2.CompleteResponse:
    return wire.inference.Complete(request(*arguments, **fields), metadata=wire.metadata, timeout=seconds)


def begin_whole(wire: Wire, **fields: object) -> "grpc.Future":
    return wire.inference.Complete.future(request(**fields), metadata=wire.metadata, timeout=60)


@pytest.mark.parametrize("request_id", [False, True])
def test_it_says_what_the_stream_says(wire: Wire, name: str, request_id: bool) -> None:
    wire.start()
    options = {"top_logprobs": 2, "stop": ["never said"]}
    streamed = counted(wire.inference.Generate(request(options=dict(options)), metadata=wire.metadata, timeout=60))
    answer = whole(wire, options=dict(options), request_id=name if request_id else "")
    assert answer.text == text_of(streamed) != ""
    assert answer.end.finish_reason == streamed[-1].end.finish_reason
    used, told = answer.end.usage, streamed[-1].end.usage
    assert (used.prompt_tokens, used.completion_tokens) == (told.prompt_tokens, told.completion_tokens)
    assert list(answer.logprobs) == [each for message in streamed for each in message.delta.logprobs]
    assert len(answer.logprobs) == used.completion_tokens > 0


def test_either_method_attaches_to_the_same_generation(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    seen = begin(slow_wire, name, 3, max_tokens=200)
    answer = whole(slow_wire, max_tokens=200, request_id=name)
    assert (answer.end.finish_reason, answer.end.usage.completion_tokens) == (LENGTH, 200)
    seen += counted(slow_wire.generate(max_tokens=200, request_id=name, resume_after=seen[-1].sequence_number))
    assert text_of(seen) == answer.text
    assert seen[-1].end == answer.end
    assert whole(slow_wire, max_tokens=200, request_id=name) == answer
    assert refusal_of(lambda: whole(slow_wire, "another", request_id=name)).reason == "REQUEST_ID_REUSED"


def test_many_calls_of_one_request_id_get_one_answer(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    calls = [begin_whole(slow_wire, max_tokens=50, request_id=name) for _ in range(20)]
    assert len({call.result().SerializeToString(deterministic=True) for call in calls}) == 1


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"request_id": "r", "resume_after": 3}, "resume_after"),
        ({"request_id": "r" * 129}, "request_id"),
    ],
)
def test_a_wrong_field_is_named(wire: Wire, fields: dict[str, object], field: str) -> None:
    refusal = refusal_of(lambda: whole(wire, **fields))
    assert (refusal.reason, refusal.field) == ("FIELD_INVALID", field)


def test_what_is_wrong_before_any_text_is_a_status(slow_wire: Wire, name: str) -> None:
    assert refusal_of(lambda: whole(slow_wire, request_id=name)).reason == "NO_SESSION"
    assert refusal_of(lambda: whole(slow_wire, "", request_id=name)).reason == "PROMPT_EMPTY"
    slow_wire.start()
    assert whole(slow_wire, request_id=name).end.finish_reason == LENGTH


def test_a_call_that_is_cancelled_ends_its_generation(slow_server: ServerProcess, slow_wire: Wire) -> None:
    slow_wire.start()
    whole(slow_wire)
    with none_runs_to_its_end(slow_server, slow_wire):
        call = begin_whole(slow_wire, max_tokens=1_000)
        wait_until(lambda: slow_wire.model().demand > 0, "a running generation")
        call.cancel()


def test_one_that_somebody_cancels_has_its_text(slow_wire: Wire, name: str) -> None:
    slow_wire.start()
    begin(slow_wire, name, 3, max_tokens=1_000)
    call = begin_whole(slow_wire, max_tokens=1_000, request_id=name)
    assert not cancel(slow_wire, name)
    answer = call.result()
    assert answer.end.finish_reason == CANCELLED
    assert answer.text
    assert cancel(slow_wire, name)


def test_a_server_that_stops_ends_it_with_the_text_until_there(tmp_path: Path, name: str) -> None:
    with server_process(tmp_path, "--stop-grace", "0.2", *VERY_SLOWLY) as server, wire_to(server) as wire:
        wire.start()
        begin(wire, name, 3, max_tokens=1_000)
        call = begin_whole(wire, max_tokens=1_000, request_id=name)
        wait_until(lambda: metric(server, "tidemill_attached_calls_total") >= 1, "a call that attached")
        server.process.terminate()
        answer = call.result()
    assert answer.end.finish_reason == inference_pb2.FINISH_REASON_ERROR
    assert answer.end.error.reason == errors_pb2.Error.REASON_DRAINING
    assert answer.text


def test_a_deadline_ends_the_call(slow_wire: Wire) -> None:
    slow_wire.start()
    with pytest.raises(grpc.RpcError) as caught:
        whole(slow_wire, max_tokens=1_000, seconds=0.5)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    wait_until(lambda: slow_wire.model().demand == 0, "the demand of none")


@pytest.mark.rule("T3")
def test_one_that_tokens_pay_is_charged_once_and_in_full_and_one_that_nobody_got_is_not(
    slow_server: ServerProcess, slow_wire: Wire, name: str
) -> None:
    with payer(slow_server, slow_wire, 100 * CREDIT) as paying:
        usage = whole(paying, max_tokens=20, request_id=name).end.usage
        assert usage.cost_microcredits == cost_of(paying, usage) > 0
        assert whole(paying, max_tokens=20, request_id=name).end.usage == usage
        call = begin_whole(paying, max_tokens=1_000, request_id=name + "-left")
        wait_until(lambda: slow_wire.model().demand > 0, "a running generation")
        call.cancel()
        cancel(paying, name + "-left")
        wait_until(lambda: slow_wire.model().demand == 0, "the demand of none")
        wait_until(lambda: len(charges_of(paying)) == 1, "one charge")
        assert -charges_of(paying)[0].amount_microcredits == usage.cost_microcredits
