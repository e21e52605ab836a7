"""Spans of a real server and its replica, as a real collector would get them."""

import json
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import grpc
import pytest

from tests.collector import CollectedSpan, grpc_collector, http_collector
from tests.integration.api.conftest import MODEL, Wire, wire_to
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2
from tidemill_telemetry.otel_variables import asked_by, wrong_variable
from tidemill_telemetry.tracing import NoTracing, SpanEnd, SpanKind, Tracing, open_tracing

PROMPT = "the ferryman counts his silver spoons"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PAGES_TRACE, UNRECORDED_TRACE = "a" * 32, "b" * 32
CALLED_BY = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", "rojo=1"))


def traced_server(tmp_path: Path, endpoint: str) -> AbstractContextManager[ServerProcess]:
    """One that sends nothing before its end, so that what arrives was flushed there."""
    return server_process(
        tmp_path / "server",
        "--replica-device",
        "fake",
        "--log-format",
        "json",
        OTEL_EXPORTER_OTLP_ENDPOINT=endpoint,
        OTEL_BSP_SCHEDULE_DELAY="600000",
    )


def generate(wire: Wire, more: tuple[tuple[str, str], ...] = (), *, request_id: str, max_tokens: int = 2) -> None:
    request = inference_pb2.GenerateRequest(
        model=MODEL,
        input=inference_pb2.Input(prompt=PROMPT),
        options=inference_pb2.GenerationOptions(max_tokens=max_tokens),
        request_id=request_id,
    )
    list(wire.inference.Generate(request, metadata=(*wire.metadata, *more), timeout=60))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[CollectedSpan], str]]:
    """The spans of a server in which a few things were done, and its log."""
    folder = tmp_path_factory.mktemp("traces")
    with http_collector() as collector:
        with traced_server(folder, collector.endpoint) as server:
            headers = {"authorization": f"Bearer {server.api_key}", "traceparent": f"00-{PAGES_TRACE}-{CALLER}-01"}
            urllib.request.urlopen(urllib.request.Request(f"http://{server.http}/v1/models", headers=headers)).close()
            urllib.request.urlopen(f"http://{server.http}/healthz").close()
            with wire_to(server) as wire:
                with pytest.raises(grpc.RpcError):
                    generate(wire, request_id="unpaid")
                wire.start()
                generate(wire, CALLED_BY, request_id="mine", max_tokens=7)
                generate(wire, (("traceparent", f"00-{UNRECORDED_TRACE}-{CALLER}-00"),), request_id="unrecorded")
            assert server.terminate() == 0
        yield collector.spans, server.log.read_text()


def test_a_generation_is_three_spans_below_its_callers(story: tuple[list[CollectedSpan], str]) -> None:
    spans = [span for span in story[0] if span.trace_id == TRACE]
    by_name = {span.name: span for span in spans}
    assert len(spans) == len(by_name) == 3, spans
    call = by_name["tidemill.v1.InferenceService/Generate"]
    generation = by_name[f"text_completion {MODEL}"]
    sequence = by_name["sequence"]
    assert (call.parent_id, generation.parent_id, sequence.parent_id) == (CALLER, call.span_id, generation.span_id)
    assert (call.kind, generation.kind, sequence.kind) == ("SERVER", "CLIENT", "SERVER")
    assert (call.service, generation.service, sequence.service) == ("tidemill", "tidemill", "tidemill-replica")
    assert {call.state, generation.state, sequence.state} == {"rojo=1"}
    assert not any(span.is_error for span in spans)
    _check_attributes(call, generation, sequence)
    line = next(json.loads(line) for line in story[1].splitlines() if '"mine"' in line)
    assert (line["trace_id"], line["span_id"]) == (TRACE, call.span_id)


def _check_attributes(call: CollectedSpan, generation: CollectedSpan, sequence: CollectedSpan) -> None:
    assert call.attributes["rpc.system.name"] == "grpc"
    assert call.attributes["rpc.method"] == "tidemill.v1.InferenceService/Generate"
    assert call.attributes["rpc.response.status_code"] == "OK"
    assert call.attributes["tidemill.request_id"] == "mine"
    assert generation.attributes["gen_ai.request.model"] == MODEL
    assert generation.attributes["gen_ai.usage.output_tokens"] == 7
    assert generation.attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert generation.events == ["leased", "first token"]
    assert sequence.attributes["gen_ai.usage.output_tokens"] == 7
    assert "ferryman" not in str((call, generation, sequence))


def test_an_http_request_is_a_span_too(story: tuple[list[CollectedSpan], str]) -> None:
    (page,) = [span for span in story[0] if span.trace_id == PAGES_TRACE]
    assert (page.name, page.parent_id, page.kind) == ("GET /v1/models", CALLER, "SERVER")
    assert page.attributes["http.route"] == "/v1/models"
    assert page.attributes["http.response.status_code"] == 200


def test_a_health_check_is_no_span(story: tuple[list[CollectedSpan], str]) -> None:
    assert not [span for span in story[0] if "healthz" in span.name]


def test_a_refused_call_is_a_span_and_the_callers_mistake_no_failure(story: tuple[list[CollectedSpan], str]) -> None:
    (call,) = [span for span in story[0] if span.attributes.get("tidemill.request_id") == "unpaid"]
    assert (call.parent_id, call.is_error) == ("", False)
    assert call.attributes["rpc.response.status_code"] == "FAILED_PRECONDITION"
    assert call.attributes["tidemill.reason"] == "NO_SESSION"


def test_what_the_caller_does_not_record_is_not_recorded_and_its_trace_is_logged(
    story: tuple[list[CollectedSpan], str],
) -> None:
    assert UNRECORDED_TRACE not in {span.trace_id for span in story[0]}
    assert UNRECORDED_TRACE in story[1]


def test_a_server_whose_collector_never_answers_serves_and_ends(tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        traced_server(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}") as server,
    ):
        with wire_to(server) as wire:
            assert wire.model().name
        assert server.terminate() == 0
    assert [json.loads(line) for line in server.log.read_text().splitlines()]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_closing_does_not_wait_for_a_collector_that_never_answers(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        tracing = opened(f"http://127.0.0.1:{silent.getsockname()[1]}", protocol, monkeypatch)
        tracing.begin("x", SpanKind.SERVER, None).end(lambda: SpanEnd({}))
        began = time.monotonic()
        tracing.close()
        assert time.monotonic() - began < 60


def test_spans_go_over_grpc_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with grpc_collector() as collector:
        tracing = opened(collector.endpoint, "grpc", monkeypatch)
        call = tracing.begin("call", SpanKind.SERVER, None)
        inner = tracing.begin("inner", SpanKind.CLIENT, call.context)
        now = time.monotonic()
        events = [("second", now), ("first", now - 1)]
        inner.end(lambda: SpanEnd({"a": 1, "b": ["c"]}, events=events, fault="REPLICA_LOST"))
        call.end(lambda: SpanEnd({}, name="renamed"))
        tracing.close()
    first, second = collector.spans
    assert (first.name, first.parent_id, first.events) == ("inner", second.span_id, ["first", "second"])
    assert (first.is_error, first.attributes) == (True, {"a": 1, "b": ["c"], "error.type": "REPLICA_LOST"})
    assert (second.name, second.parent_id, second.is_error) == ("renamed", "", False)
    assert first.trace_id == second.trace_id == call.context.trace_id


def opened(endpoint: str, protocol: str, monkeypatch: pytest.MonkeyPatch) -> Tracing:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)  # the exporters read it there
    tracing = open_tracing("x", {}, asked)
    assert not isinstance(tracing, NoTracing)
    return tracing


def test_asked_for_and_not_installed_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "tidemill_telemetry.otel", raising=False)
    tracing = open_tracing("x", {}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert isinstance(tracing, NoTracing)
    assert "pip install 'tidemill[otel]'" in caplog.text


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "it may be http/protobuf or grpc"),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json", "it may be http/protobuf or grpc"),
        ("OTEL_TRACES_EXPORTER", "console", "it may be otlp or none"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "127.0.0.1:4318", "it begins with http:// or https://"),
    ],
)
def test_a_variable_that_cannot_be_so_is_said_in_a_sentence(
    variable: str, value: str, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318", variable: value}
    assert isinstance(open_tracing("x", {}, asked), NoTracing)
    assert f"they are not recorded: {variable} is {value!r}; {sentence}" in caplog.text


def test_a_variable_that_is_empty_says_nothing() -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "127.0.0.1:4317", "OTEL_TRACES_EXPORTER": ""}
    assert asked_by(asked) == "OTEL_EXPORTER_OTLP_ENDPOINT"
    assert wrong_variable(asked | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}) == ""


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_nobody_records_unless_asked(environ: dict[str, str]) -> None:
    assert isinstance(open_tracing("x", {}, environ), NoTracing)


def test_what_nobody_records_is_not_even_described() -> None:
    tracing = NoTracing()
    call = tracing.begin("call", SpanKind.SERVER, None)
    inner = tracing.begin("inner", SpanKind.CLIENT, call.context)
    assert inner.context == call.context

    def describe() -> SpanEnd:
        raise AssertionError

    inner.end(describe)
    call.end(describe)
    tracing.close()
