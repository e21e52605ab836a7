import json
import socket
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.integration.api.conftest import Wire, wire_to
from tests.server_process import ServerProcess, server_process
from tidemill.v1 import inference_pb2


def _get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=60) as response:
        return response.read().decode()


def _reflected(channel: grpc.Channel, *metadata: tuple[str, str]) -> set[str]:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = stub.ServerReflectionInfo(iter([request]), metadata=metadata)
    return {service.name for service in response.list_services_response.service}


def test_health_answers_without_a_key(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for service in ("", "tidemill.v1.InferenceService"):
            response = stub.Check(health_pb2.HealthCheckRequest(service=service))
            assert response.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_answers_on_loopback(server: ServerProcess) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        names = _reflected(channel)
    assert {f"tidemill.v1.{name}Service" for name in ("Session", "Model", "Inference", "Job", "Account")} <= names


def test_reflection_off_loopback_needs_a_key(tmp_path: Path) -> None:
    with server_process(tmp_path, "--host", "0.0.0.0", "--allow-plaintext") as server:
        port = server.grpc.rpartition(":")[2]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.RpcError) as refused:
                _reflected(channel)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            names = _reflected(channel, ("authorization", f"Bearer {server.api_key}"))
    assert "tidemill.v1.SessionService" in names


def test_the_http_and_admin_ports_say_how_the_process_is(server: ServerProcess, wire: Wire) -> None:
    wire.start()
    list(wire.generate())
    assert _get(server.http, "/healthz") == "ok\n"
    assert _get(server.admin, "/readyz") == "ready\n"
    assert json.loads(_get(server.admin, "/spares")) == {"wanted": 0, "ready": 0, "last_failure": None}
    metrics = _get(server.admin, "/metrics")
    assert 'tidemill_requests_total{code="OK",method="/tidemill.v1.InferenceService/Generate",reason=""}' in metrics
    assert 'tidemill_completion_tokens_total{model="tiny-llama"}' in metrics
    assert 'tidemill_ready_replicas{model="tiny-llama"} 1.0' in metrics


def test_a_page_that_is_not_there_is_404_and_on_the_public_port_only_a_key_learns_that(server: ServerProcess) -> None:
    for address, status in ((server.http, 401), (server.admin, 404)):
        with pytest.raises(urllib.error.HTTPError) as refused:
            _get(address, "/none")
        assert refused.value.code == status
        refused.value.close()


def test_no_key_and_no_prompt_is_in_the_log_even_at_debug(tmp_path: Path) -> None:
    private = "a very private sentence about herons"
    with server_process(tmp_path, "--log-level", "debug") as server, wire_to(server) as wire:
        wire.start()
        list(wire.generate(private))
        context_length = wire.model().context_length
        chat = inference_pb2.Chat(messages=[inference_pb2.Message(role="herons", content=private)])
        failing: list[dict[str, object]] = [
            {"prompt": private * context_length},
            {"input": inference_pb2.Input(chat=chat)},
            {"options": inference_pb2.GenerationOptions(stop=["herons", ""])},
            {"model": "herons"},
        ]
        for fields in failing:
            with pytest.raises(grpc.RpcError):
                list(wire.generate(**{"prompt": private, **fields}))
        with wire_to(server, "tm_herons") as stranger, pytest.raises(grpc.RpcError):
            stranger.start()
    log = server.log.read_text()
    assert "DEBUG" in log
    assert server.api_key not in log
    assert "herons" not in log


@pytest.mark.parametrize("method", ["POST", "HEAD"])
def test_what_is_no_http_behind_a_right_head_is_no_fault_of_ours(server: ServerProcess, method: str) -> None:
    head = f"{method} /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    host, _, port = server.http.rpartition(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(head + b"no chunk\r\n")
            while connection.recv(4096):
                pass
    assert "Exception in ASGI application" not in server.log.read_text()
    assert "Fatal error" not in server.log.read_text()
