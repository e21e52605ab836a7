"""What one side of the private contract writes, as the other side reads it."""

from dataclasses import asdict

import pytest

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_services.engine_client import EngineRequest, OnBehalf
from tidemill_services.engine_client.wire import read_stats, read_status, write_submit
from tidemill_serving.engine import EngineStats, Load, Phase
from tidemill_serving.server.wire import read_submit, write_status
from tidemill_telemetry.call_record import Origin
from tidemill_telemetry.trace_context import TraceContext

TRACE = TraceContext("a" * 32, "b" * 16, 1, "rojo=1")


@pytest.mark.parametrize("origin", [None, Origin("mine", TRACE), Origin("mine", TraceContext.new())])
def test_the_replica_knows_the_call_that_a_generation_is_for(origin: Origin | None) -> None:
    message = write_submit(1, EngineRequest([5], 3), OnBehalf(origin=origin))
    assert read_submit(message.submit, 7).origin == origin


@pytest.mark.parametrize(
    "origin",
    [
        pb.Origin(request_id="two\nlines", traceparent=TRACE.traceparent),
        pb.Origin(request_id="mine", traceparent="00-x"),
        pb.Origin(traceparent=TRACE.traceparent),
    ],
)
def test_an_origin_that_cannot_be_is_ignored(origin: pb.Origin) -> None:
    submit = pb.Submit(sequence_id=1, prompt_tokens=[5], max_tokens=3, top_p=1, origin=origin)
    assert read_submit(submit, 7).origin is None


def test_what_a_replica_says_of_itself_is_fit_for_the_store() -> None:
    assert read_status(pb.Status(detail="it\0 broke")).detail == "it broke"


def test_a_replica_says_for_how_long_its_engine_has_shown_no_life() -> None:
    load = Load(1, 0, 8, 100)
    wedged = write_status(Phase.READY, 1.0, "", silent_seconds=7.25, stats=EngineStats(), load=load).status
    assert wedged.silent_for.ToMilliseconds() == 7_250
    assert not read_status(wedged).responsive
    lively = write_status(Phase.READY, 1.0, "", silent_seconds=None, stats=EngineStats(), load=load).status
    assert not lively.HasField("silent_for")
    assert read_status(lively).responsive


def test_what_an_engine_did_comes_over_the_wire_whole() -> None:
    stats = EngineStats(*range(1, 11))
    status = write_status(Phase.READY, 1.0, "", silent_seconds=None, stats=stats, load=Load(1, 0, 8, 100)).status
    read = read_stats(status.stats)
    assert read.resident_bytes > 0
    assert all(getattr(read, name) == value for name, value in asdict(stats).items())


def test_a_replica_learns_the_salt_and_whether_the_answer_must_be_exact() -> None:
    request, on_behalf = EngineRequest([5, 6], 10, exact=True), OnBehalf(account_salt=b"\x00salt")
    read = read_submit(write_submit(1, request, on_behalf).submit, 7)
    assert (read.account_salt, read.exact) == (b"\x00salt", True)
