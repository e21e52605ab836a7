"""Every answer says by what name its call stands in the log."""

import http.client
import re
from contextlib import closing

import grpc
import pytest

import tidemill
from tests.integration.api.conftest import Wire, wait_until
from tests.server_process import ServerProcess
from tidemill.v1 import model_pb2

GENERATED = re.compile(r"[0-9a-f]{32}")


def ask(wire: Wire, *ids: str) -> str:
    """Call with these `x-request-id`; the one that comes back."""
    metadata = (*wire.metadata, *(("x-request-id", each) for each in ids))
    _, call = wire.models.ListModels.with_call(model_pb2.ListModelsRequest(), metadata=metadata)
    return id_of(call)


def id_of(call: grpc.Call) -> str:
    (found,) = [value for key, value in call.trailing_metadata() if key == "x-request-id"]
    return found


def test_a_call_is_named_by_its_caller_or_by_us(wire: Wire) -> None:
    assert ask(wire, "mine") == "mine"
    assert ask(wire, "two words", "mine") == "mine"
    assert GENERATED.fullmatch(ask(wire))
    assert ask(wire) != ask(wire)


@pytest.mark.parametrize("named", ["two words", "-", 'quo"ted', "x" * 129, "a;b"])
def test_what_cannot_be_a_name_is_replaced(wire: Wire, named: str) -> None:
    assert GENERATED.fullmatch(ask(wire, named))


def test_the_requests_own_id_is_its_name(wire: Wire) -> None:
    metadata = (*wire.metadata, ("x-request-id", "of-the-metadata"))
    request = model_pb2.StartModelRequest(name="tiny-llama", request_id="of-the-message")
    _, call = wire.models.StartModel.with_call(request, metadata=metadata)
    assert id_of(call) == "of-the-message"


@pytest.mark.parametrize("named", ["ünï", "two words"])
def test_a_printable_id_that_fits_no_header_still_serves_its_purpose(wire: Wire, named: str) -> None:
    request = model_pb2.StartModelRequest(name="tiny-llama", request_id=named)
    _, call = wire.models.StartModel.with_call(request, metadata=wire.metadata)
    assert GENERATED.fullmatch(id_of(call))


def test_a_stream_and_a_refusal_say_it_too(wire: Wire) -> None:
    stream = wire.models.WatchModel(model_pb2.WatchModelRequest(name="none-such"), metadata=wire.metadata)
    with pytest.raises(grpc.RpcError) as refused:
        list(stream)
    assert GENERATED.fullmatch(id_of(refused.value))
    wire.start()
    stream = wire.generate(request_id="of-the-stream")
    assert list(stream)
    assert id_of(stream) == "of-the-stream"


def test_the_clients_errors_have_it(server: ServerProcess) -> None:
    with tidemill.Client(server.api_key, target=server.grpc) as client, pytest.raises(tidemill.TidemillError) as raised:
        client.get_model("none-such")
    assert GENERATED.fullmatch(raised.value.request_id)
    named = f"request_id={raised.value.request_id}"
    wait_until(lambda: named in server.log.read_text(), "the call's line is written")


@pytest.mark.parametrize(("path", "status"), [("/healthz", 200), ("/v1/models", 401), ("/nowhere", 401)])
def test_every_http_answer_has_its_header(server: ServerProcess, path: str, status: int) -> None:
    with closing(http.client.HTTPConnection(server.http, timeout=60)) as connection:
        for sent, expected in (({"x-request-id": "mine"}, re.compile("mine")), ({}, GENERATED)):
            connection.request("GET", path, headers=sent)
            response = connection.getresponse()
            response.read()
            assert response.status == status
            assert expected.fullmatch(response.headers["x-request-id"])


def test_no_header_can_write_a_line_of_its_own(server: ServerProcess) -> None:
    with closing(http.client.HTTPConnection(server.http, timeout=60)) as connection:
        connection.putrequest("GET", "/v1/models")
        connection.putheader("x-request-id", b"forged\x0b\x85 line")
        connection.endheaders()
        connection.getresponse().read()
        connection.request("GET", "/v1/models", headers={"x-request-id": "after-the-odd-one"})
        connection.getresponse().read()
    wait_until(lambda: "after-the-odd-one" in server.log.read_text(), "the line of the call after it")
    assert "forged" not in server.log.read_text()
