"""Bad input gets its own typed error, through the real wire."""

from collections.abc import Callable
from dataclasses import dataclass

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from tests.integration.api.conftest import MODEL, Wire, wire_to
from tests.server_process import ServerProcess
from tidemill.v1 import (
    inference_pb2,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    session_pb2,
)


@dataclass
class Refusal:
    code: grpc.StatusCode
    reason: str
    message: str
    field: str = ""


def refusal_of(call: Callable[[], object]) -> Refusal:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return refusal_in(raised.value)


def refusal_in(error: grpc.RpcError) -> Refusal:
    status = rpc_status.from_call(error)
    assert status is not None
    refusal = Refusal(error.code(), "", status.message)
    for detail in status.details:
        info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(info):
            refusal.reason = info.reason
        elif detail.Unpack(bad):
            refusal.field = bad.field_violations[0].field
    return refusal


def options(**sampling: float) -> inference_pb2.GenerationOptions:
    return inference_pb2.GenerationOptions(sampling=inference_pb2.Sampling(**sampling))


def chat(role: str, template: str = "") -> inference_pb2.Input:
    messages = [inference_pb2.Message(role=role, content="hello")]
    return inference_pb2.Input(chat=inference_pb2.Chat(messages=messages, template=template))


def test_a_call_without_a_key_is_refused(server: ServerProcess) -> None:
    with wire_to(server, "") as wire:
        refusal = refusal_of(wire.start)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_MISSING")


@pytest.mark.parametrize("api_key", ["wrong-one", "tm_" + "0" * 43, "Bearer tm_"])
def test_a_wrong_key_is_refused(server: ServerProcess, api_key: str) -> None:
    with wire_to(server, api_key) as wire:
        refusal = refusal_of(wire.start)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "API_KEY_INVALID")
    assert api_key not in refusal.message


@pytest.mark.rule("S21")
def test_a_generation_that_nothing_pays_for_is_refused_with_a_hint(wire: Wire) -> None:
    refusal = refusal_of(lambda: list(wire.generate()))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_SESSION")
    assert "session start" in refusal.message


def test_a_wrong_prompt_is_named_before_anybody_needs_a_session(wire: Wire) -> None:
    refusal = refusal_of(lambda: list(wire.generate("many words " * 2000)))
    assert refusal.reason == "CONTEXT_EXCEEDED"
    refusal = refusal_of(lambda: list(wire.generate(input=inference_pb2.Input(prompt=""))))
    assert refusal.reason == "PROMPT_EMPTY"


def test_an_unknown_model_is_refused_by_its_name(wire: Wire) -> None:
    refusal = refusal_of(lambda: wire.start(model="no-such-model"))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND")
    assert "no-such-model" in refusal.message


@pytest.mark.rule("A12")
def test_no_model_where_there_are_several_lists_them_and_names_the_field_that_lacks_one(wire: Wire) -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("model", lambda: wire.start(model="")),
        ("name", lambda: wire.models.GetModel(model_pb2.GetModelRequest(), metadata=wire.metadata)),
        ("name", lambda: wire.models.StartModel(model_pb2.StartModelRequest(), metadata=wire.metadata)),
        ("name", lambda: wire.models.StopModel(model_pb2.StopModelRequest(), metadata=wire.metadata)),
        ("name", lambda: list(wire.models.WatchModel(model_pb2.WatchModelRequest(), metadata=wire.metadata))),
    ]
    for field, call in calls:
        refusal = refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MODEL_REQUIRED")
        assert refusal.field == field
        assert MODEL in refusal.message


@pytest.mark.parametrize(
    ("fields", "reason", "field"),
    [
        ({"input": inference_pb2.Input(prompt="")}, "PROMPT_EMPTY", "input"),
        ({"input": inference_pb2.Input()}, "PROMPT_EMPTY", "input"),
        ({"input": inference_pb2.Input(chat=inference_pb2.Chat())}, "PROMPT_EMPTY", "input"),
        ({"input": chat("wizard")}, "ROLE_UNKNOWN", "input"),
        ({"input": chat("user", template="none-such")}, "CHAT_TEMPLATE_REFUSED", "input"),
        ({"options": options(temperature=-1)}, "FIELD_INVALID", "options.sampling.temperature"),
        ({"options": options(temperature=float("nan"))}, "FIELD_INVALID", "options.sampling.temperature"),
        ({"options": options(top_p=0)}, "FIELD_INVALID", "options.sampling.top_p"),
        ({"options": options(top_p=1.5)}, "FIELD_INVALID", "options.sampling.top_p"),
        ({"options": options(top_k=-1)}, "FIELD_INVALID", "options.sampling.top_k"),
        ({"options": inference_pb2.GenerationOptions(max_tokens=0)}, "FIELD_INVALID", "options.max_tokens"),
        ({"options": inference_pb2.GenerationOptions(stop=[""])}, "FIELD_INVALID", "options.stop[0]"),
        ({"model": "Not A Name"}, "FIELD_INVALID", "model"),
        ({"session": "sessions/../x"}, "FIELD_INVALID", "session"),
    ],
)
def test_a_wrong_field_is_named(wire: Wire, fields: dict[str, object], reason: str, field: str) -> None:
    wire.start()
    refusal = refusal_of(lambda: list(wire.generate(**fields)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert refusal.field == field


def test_a_prompt_over_the_context_is_refused_with_both_numbers(wire: Wire) -> None:
    wire.start()
    context_length = wire.model().context_length
    refusal = refusal_of(lambda: list(wire.generate("many words " * context_length)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTEXT_EXCEEDED")
    numbers = [int(word) for word in refusal.message.replace(",", " ").replace(";", " ").split() if word.isdigit()]
    assert context_length in numbers
    assert max(numbers) > context_length


def test_a_session_that_ended_pays_for_nothing(wire: Wire) -> None:
    name = wire.start().session.name
    wire.stop()
    refusal = refusal_of(lambda: list(wire.generate(session=name)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SESSION_ENDED")


def test_a_session_of_nobody_is_not_found(wire: Wire) -> None:
    request = session_pb2.GetSessionRequest(name="sessions/0123456789abcdef0123456789abcdef")
    refusal = refusal_of(lambda: wire.sessions.GetSession(request, metadata=wire.metadata))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")


def test_a_session_of_another_account_is_not_found(wire: Wire, neighbour: Wire) -> None:
    name = wire.start().session.name
    get = session_pb2.GetSessionRequest(name=name)
    calls: list[Callable[[], object]] = [
        lambda: neighbour.sessions.GetSession(get, metadata=neighbour.metadata),
        lambda: neighbour.stop(name=name, model=""),
        lambda: neighbour.sessions.HeartbeatSession(
            session_pb2.HeartbeatSessionRequest(name=name, holder="x"), metadata=neighbour.metadata
        ),
        lambda: list(
            neighbour.sessions.WatchSession(session_pb2.WatchSessionRequest(name=name), metadata=neighbour.metadata)
        ),
        lambda: neighbour.sessions.UpdateSession(
            session_pb2.UpdateSessionRequest(
                session=session_pb2.Session(name=name), update_mask=FieldMask(paths=["labels"])
            ),
            metadata=neighbour.metadata,
        ),
        lambda: list(neighbour.generate(session=name)),
        lambda: list(neighbour.generate(session=name, model="")),
    ]
    for call in calls:
        refusal = refusal_of(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "SESSION_NOT_FOUND")
    everything = neighbour.sessions.ListSessions(session_pb2.ListSessionsRequest(), metadata=neighbour.metadata)
    assert name not in [session.name for session in everything.sessions]
    assert not wire.sessions.GetSession(get, metadata=wire.metadata).bill.final


def test_a_users_key_cannot_force_a_model_to_stop(wire: Wire, neighbour: Wire) -> None:
    name = wire.start().session.name
    request = model_pb2.StopModelRequest(name=MODEL, force=True)
    refusal = refusal_of(lambda: neighbour.models.StopModel(request, metadata=neighbour.metadata))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_REQUIRED")
    session = wire.sessions.GetSession(session_pb2.GetSessionRequest(name=name), metadata=wire.metadata)
    assert not session.bill.final


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"limits": session_pb2.SessionLimits(max_spend_microcredits=1)}, "limits.max_spend_microcredits"),
        ({"limits": session_pb2.SessionLimits(max_spend_microcredits=-(2**63))}, "limits.max_spend_microcredits"),
        ({"limits": session_pb2.SessionLimits(idle_timeout=Duration(nanos=999_999_999))}, "limits.idle_timeout"),
        ({"limits": session_pb2.SessionLimits(idle_timeout=Duration(seconds=2**62))}, "limits.idle_timeout"),
        ({"limits": session_pb2.SessionLimits(max_duration=Duration(seconds=-5))}, "limits.max_duration"),
        ({"liveness": 99}, "liveness"),
        ({"holder": "x" * 129}, "holder"),
        ({"labels": {"": "no key"}}, "labels"),
        ({"model": "Not A Name"}, "model"),
    ],
)
def test_a_session_is_not_started_with_what_nothing_would_keep_to(
    wire: Wire, fields: dict[str, object], field: str
) -> None:
    refusal = refusal_of(lambda: wire.start(**fields))
    assert (refusal.code, refusal.reason, refusal.field) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "FIELD_INVALID",
        field,
    )


def test_an_update_says_what_it_changes(wire: Wire) -> None:
    name = wire.start().session.name
    for session, paths, field in (
        (session_pb2.Session(name=name), [], "update_mask"),
        (session_pb2.Session(name=name), ["labels", "state"], "update_mask"),
        (session_pb2.Session(name=name), ["x" * 1_000_000], "update_mask"),
        (session_pb2.Session(), ["labels"], "session.name"),
        (session_pb2.Session(name=name, labels={"": "x"}), ["labels"], "labels"),
        (
            session_pb2.Session(name=name, limits=session_pb2.SessionLimits(idle_timeout=Duration())),
            ["limits.idle_timeout"],
            "limits.idle_timeout",
        ),
    ):
        request = session_pb2.UpdateSessionRequest(session=session, update_mask=FieldMask(paths=paths))
        refusal = refusal_of(lambda request=request: wire.sessions.UpdateSession(request, metadata=wire.metadata))
        assert (refusal.reason, refusal.field) == ("FIELD_INVALID", field)


def test_a_model_is_not_asked_for_by_what_is_no_name(wire: Wire) -> None:
    calls: list[Callable[[], object]] = [
        lambda: wire.models.GetModel(model_pb2.GetModelRequest(name="Not A Name"), metadata=wire.metadata),
        lambda: list(wire.models.WatchModel(model_pb2.WatchModelRequest(name="Not A Name"), metadata=wire.metadata)),
    ]
    for call in calls:
        refusal = refusal_of(call)
        assert (refusal.reason, refusal.field) == ("FIELD_INVALID", "name")


def test_what_is_drafted_answers_unimplemented_and_only_to_a_valid_key(server: ServerProcess, wire: Wire) -> None:
    jobs = job_pb2_grpc.JobServiceStub(wire.channel)
    calls: list[Callable[..., object]] = [
        lambda **more: jobs.GetJob(job_pb2.GetJobRequest(), **more),
        lambda **more: list(jobs.WatchJob(job_pb2.WatchJobRequest(), **more)),
    ]
    for call in calls:
        refusal = refusal_of(lambda call=call: call(metadata=wire.metadata))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNIMPLEMENTED")
        refusal = refusal_of(lambda call=call: call())
        assert refusal.reason == "API_KEY_MISSING"
