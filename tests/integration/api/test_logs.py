"""What a whole server writes to standard error: JSON that names every call, and nothing of what was said in it."""

import json
import os
import re
import signal
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import grpc
import hpack
import pytest
from hyperframe.frame import DataFrame, HeadersFrame

from tests.fuzzing.http2 import PREFACE, SETTINGS, grpc_endings
from tests.integration.api.conftest import MODEL, Wire, text_of, wait_until, wire_to
from tests.integration.scaler.processes import replica_pids
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2

PROMPT = "the ferryman counts his silver spoons"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


@dataclass
class Story:
    """What was done with a server, and what it wrote."""

    lines: list[dict[str, object]]
    text: str
    api_key: str
    answer: str
    http_request_id: str
    refused_request_id: str

    def line(self, **fields: object) -> dict[str, object]:
        """The only line with these fields."""
        found = [line for line in self.lines if fields.items() <= line.items()]
        assert len(found) == 1, (fields, found)
        return found[0]


def _call_with_a_key_that_is_no_text(server: ServerProcess) -> None:
    """Send the key with one byte changed, as a line that is not clean might; read the refusal."""
    key = server.api_key.encode()
    headers = [(":method", "POST"), (":scheme", "http"), (":path", "/tidemill.v1.ModelService/ListModels")]
    headers += [(":authority", "here"), ("te", "trailers"), ("content-type", "application/grpc")]
    encoded = hpack.Encoder().encode([*headers, (b"authorization", b"Bearer " + key[:-1] + b"\xd2")])
    call = HeadersFrame(1, encoded, flags=["END_HEADERS"]).serialize()
    call += DataFrame(1, b"\0" * 5, flags=["END_STREAM"]).serialize()
    host, _, port = server.grpc.rpartition(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(PREFACE + SETTINGS + call)
        while not grpc_endings(answer):
            answer += connection.recv(65_536)
    assert grpc_endings(answer) == [(grpc.StatusCode.UNAUTHENTICATED.value[0], True)]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    arguments = ("--replica-device", "fake", "--log-format", "json", "--log-level", "debug")
    with server_process(tmp_path_factory.mktemp("logs"), *arguments) as server:
        with wire_to(server) as wire:
            wire.start(request_id="starts")
            answer = text_of(list(wire.generate(PROMPT, request_id="mine-1", max_tokens=5)))
            with pytest.raises(grpc.RpcError) as refused:
                list(_generate(wire, (("traceparent", TRACEPARENT), ("x-request-id", "evil id")), max_tokens=0))
            http_request_id = _ask_over_http(server)
            with wire_to(server, "tm_" + "0" * 43) as stranger, pytest.raises(grpc.RpcError):
                stranger.start(request_id="never-read")
            _call_with_a_key_that_is_no_text(server)
            urllib.request.urlopen(f"http://{server.http}/healthz").close()
            urllib.request.urlopen(f"http://{server.admin}/metrics").close()
            _kill_a_replica_in_mid_stream(server, wire)
        assert server.terminate() == 0
        text = server.log.read_text()
        yield Story(
            [json.loads(line) for line in text.splitlines()],
            text,
            server.api_key,
            answer,
            http_request_id,
            dict(refused.value.trailing_metadata())["x-request-id"],
        )


def _generate(
    wire: Wire, more: tuple[tuple[str, str], ...], **options: int
) -> Iterator[inference_pb2.GenerateResponse]:
    request = inference_pb2.GenerateRequest(
        model=MODEL,
        input=inference_pb2.Input(prompt=PROMPT),
        options=inference_pb2.GenerationOptions(**options),
    )
    return wire.inference.Generate(request, metadata=(*wire.metadata, *more), timeout=60)


def _ask_over_http(server: ServerProcess) -> str:
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 3})
    headers = {"authorization": f"Bearer {server.api_key}", "traceparent": TRACEPARENT, "x-request-id": "over-http"}
    request = urllib.request.Request(f"http://{server.http}/v1/chat/completions", body.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(answer.headers["x-request-id"])


def _kill_a_replica_in_mid_stream(server: ServerProcess, wire: Wire) -> None:
    (pid,) = replica_pids(server.process.pid)
    responses = wire.generate(PROMPT, request_id="killed", max_tokens=900)
    assert any(response.HasField("delta") for response in responses)
    os.kill(pid, signal.SIGKILL)
    (end,) = [response.end for response in responses if response.HasField("end")]
    assert end.error.message
    wait_until(lambda: "ended: The process was ended by SIGKILL" in server.log.read_text(), "the end is logged")


def test_every_line_is_an_object_with_time_level_logger_and_message(story: Story) -> None:
    assert story.lines
    for line in story.lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(line["time"]))
        assert datetime.fromisoformat(str(line["time"]))
        assert line["level"] in ("debug", "info", "warning", "error", "critical")
        assert line["logger"]
        assert "message" in line


def test_no_prompt_no_answer_and_no_key_is_told(story: Story) -> None:
    assert story.answer
    key = story.api_key
    for secret in (PROMPT, "ferryman", "spoons", story.answer, key, key[3:], key[:-1], "0" * 43):
        assert json.dumps(secret)[1:-1] not in story.text
    assert "evil" not in story.text


def test_the_line_of_a_session_start_names_the_session(story: Story) -> None:
    started = story.line(logger="tidemill.access", request_id="starts")
    paid = story.line(logger="tidemill.access", request_id="mine-1")
    assert (started["session"], started["model"]) == (paid["session"], MODEL)


def test_a_generation_has_its_line_with_ids_and_counts(story: Story) -> None:
    line = story.line(logger="tidemill.access", request_id="mine-1")
    assert line["method"] == "/tidemill.v1.InferenceService/Generate"
    assert (line["code"], line["model"], line["account"]) == ("OK", MODEL, "local")
    assert (line["finish_reason"], line["completion_tokens"]) == ("length", 5)
    assert line["prompt_tokens"] >= 5  # type: ignore[operator]
    assert line["session"]
    assert line["duration_ms"] > 0  # type: ignore[operator]
    assert re.fullmatch("[0-9a-f]{32}", str(line["trace_id"]))
    assert re.fullmatch("[0-9a-f]{16}", str(line["span_id"]))


def test_the_replica_names_the_call_that_a_sequence_is_for(story: Story) -> None:
    line = story.line(logger="tidemill_serving.server.sequence_trace", request_id="mine-1")
    assert line["trace_id"] == story.line(logger="tidemill.access", request_id="mine-1")["trace_id"]
    assert line["model"] == MODEL
    assert str(line["replica"]).startswith(MODEL)


def test_a_refused_call_has_its_line_with_the_reason_and_the_callers_trace(story: Story) -> None:
    line = story.line(logger="tidemill.access", request_id=story.refused_request_id)
    assert (line["code"], line["reason"]) == ("INVALID_ARGUMENT", "FIELD_INVALID")
    assert line["trace_id"] == TRACE
    assert line["span_id"] != TRACEPARENT.split("-")[2]
    assert "completion_tokens" not in line


def test_a_stranger_has_a_line_without_an_account(story: Story) -> None:
    line = story.line(code="UNAUTHENTICATED", method="/tidemill.v1.SessionService/StartSession")
    assert line["reason"] == "API_KEY_INVALID"
    assert "account" not in line


def test_an_http_request_has_the_same_line(story: Story) -> None:
    assert story.http_request_id == "over-http"
    line = story.line(logger="tidemill.access", request_id="over-http")
    assert (line["method"], line["code"]) == ("POST /v1/chat/completions", "200")
    assert (line["trace_id"], line["account"], line["model"]) == (TRACE, "local", MODEL)
    assert line["completion_tokens"] == 3


def test_a_generation_that_broke_says_so_in_its_lines(story: Story) -> None:
    access = story.line(logger="tidemill.access", request_id="killed")
    assert (access["code"], access["reason"], access["finish_reason"]) == ("OK", "REPLICA_LOST", "error")
    warning = story.line(logger="tidemill_services.generation_run", request_id="killed")
    assert warning["level"] == "warning"
    assert warning["session"] == access["session"]


def test_health_checks_and_scrapes_have_no_line(story: Story) -> None:
    methods = {line["method"] for line in story.lines if line["logger"] == "tidemill.access"}
    assert methods == {
        "/tidemill.v1.ModelService/ListModels",
        "/tidemill.v1.InferenceService/Generate",
        "/tidemill.v1.SessionService/StartSession",
        "/tidemill.v1.SessionService/StopSession",
        "POST /v1/chat/completions",
    }


def test_the_access_log_can_be_left_out_and_text_shows_the_ids(tmp_path: Path) -> None:
    with server_process(tmp_path, "--replica-device", "fake", "--no-access-log", "--log-level", "debug") as server:
        with wire_to(server) as wire:
            wire.start()
            list(wire.generate(request_id="mine-2", max_tokens=3))
        assert server.terminate() == 0
        lines = server.log.read_text().splitlines()
    assert not any("tidemill.access" in line for line in lines)
    (line,) = [line for line in lines if "a sequence ended" in line]
    assert re.fullmatch(
        r"\S+Z DEBUG \S+: a sequence ended: length, 3 tokens "
        r"\[replica=\S+ model=tiny-llama request_id=mine-2 trace_id=[0-9a-f]{32} span_id=[0-9a-f]{16}\]",
        line,
    )


def test_a_server_that_cannot_start_says_so_as_json(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    with (
        pytest.raises(AssertionError, match="exit 1") as failed,
        server_process(tmp_path / "elsewhere", "--log-format", "json", "--data-dir", str(tmp_path / "data")),
    ):
        pass
    line = json.loads(str(failed.value).splitlines()[-1])
    assert line["level"] == "critical"
    assert str(tmp_path / "data") in line["message"]
