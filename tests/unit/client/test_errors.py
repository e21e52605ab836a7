"""What the wire says becomes an error of ours."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

import tidemill
from tests.unit.client.mill import Mill, Refusal
from tidemill.connection import Connection
from tidemill.errors import BY_REASON, TidemillError
from tidemill.statuses import error_of_call, error_of_message
from tidemill.v1 import errors_pb2

REASONS = [name for name in errors_pb2.Error.Reason.keys() if name != "REASON_UNSPECIFIED"]  # noqa: SIM118


class Failure:
    """A failed call, as gRPC shows it."""

    def __init__(self, code: grpc.StatusCode, details: str = "", metadata: tuple = ()) -> None:
        self._code, self._details, self._metadata = code, details, metadata

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def trailing_metadata(self) -> tuple:
        return self._metadata


SERVER = Connection("127.0.0.1:7400", "key")


def failure_of(refusal: Refusal) -> Failure:
    return Failure(refusal.code, refusal.message, refusal.status().trailing_metadata)


@pytest.mark.parametrize("name", REASONS)
def test_every_reason_has_a_class_of_its_own(name: str) -> None:
    reason = name.removeprefix("REASON_")
    from_message = error_of_message(errors_pb2.Error(reason=name, message="Do this.", field="a.b"), request_id="r1")
    code = BY_REASON[reason].code
    from_status = error_of_call(failure_of(Refusal(code, reason, "Do this.", "a.b")), SERVER, request_id="r1")
    assert type(from_message) is type(from_status) is BY_REASON[reason]
    for error in (from_message, from_status):
        assert (str(error), error.field, error.reason, error.request_id) == ("Do this.", "a.b", reason, "r1")
        assert error.code is code
    assert getattr(tidemill, type(from_message).__name__) is type(from_message)
    assert from_message.__doc__


def test_every_class_with_a_reason_stands_in_the_contract() -> None:
    assert {f"REASON_{reason}" for reason in BY_REASON} == set(REASONS)


def test_how_long_to_wait_is_read_from_both_forms() -> None:
    message = errors_pb2.Error(reason="REASON_QUEUE_FULL", retry_delay=Duration(seconds=2))
    assert error_of_message(message).retry_after == timedelta(seconds=2)
    refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", retry_seconds=3)
    assert error_of_call(failure_of(refusal), SERVER).retry_after == timedelta(seconds=3)


def test_a_reason_that_is_newer_than_this_client_keeps_its_name_and_kind() -> None:
    error = error_of_call(failure_of(Refusal(grpc.StatusCode.FAILED_PRECONDITION, "TIDE_TOO_LOW")), SERVER)
    assert type(error) is tidemill.FailedPreconditionError
    assert (error.reason, str(error)) == ("TIDE_TOO_LOW", "It is refused.")
    message = errors_pb2.Error(message="New.")
    message.MergeFromString(errors_pb2.Error(reason=99).SerializeToString())  # type: ignore[arg-type]
    assert (type(error_of_message(message)), error_of_message(message).reason) == (TidemillError, "99")


def test_another_domains_reason_is_not_taken_for_ours() -> None:
    refusal = Refusal(grpc.StatusCode.NOT_FOUND, "NO_SESSION", domain="example.org")
    assert type(error_of_call(failure_of(refusal), SERVER)) is tidemill.NotFoundError


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK])
def test_every_bare_code_becomes_an_error_with_that_code(code: grpc.StatusCode) -> None:
    error = error_of_call(Failure(code, "what it says"), SERVER)
    assert error.code is code
    assert isinstance(error, TidemillError)


def test_details_that_are_no_status_do_not_hide_the_code() -> None:
    failure = Failure(grpc.StatusCode.NOT_FOUND, "gone", (("grpc-status-details-bin", b"\xff\xff\xff"),))
    assert type(error_of_call(failure, SERVER)) is tidemill.NotFoundError


def test_a_message_that_is_too_large_for_grpc_is_said_in_a_sentence() -> None:
    text = "SERVER: Received message larger than max (5000000 vs. 4194304)"
    error = error_of_call(Failure(grpc.StatusCode.RESOURCE_EXHAUSTED, text), SERVER)
    assert isinstance(error, tidemill.ResourceExhaustedError)
    assert (error.reason, error.code) == ("MESSAGE_TOO_LARGE", grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert "5000000 vs. 4194304" in str(error)
    assert str(error).endswith("send less at once.")


def test_a_lost_connection_is_not_called_a_missing_server() -> None:
    error = error_of_call(Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed"), SERVER)
    assert isinstance(error, tidemill.UnreachableError)
    assert str(error) == "The connection to 127.0.0.1:7400 was lost: Socket closed"


_CONNECT = "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:7400: "
_HANDSHAKE = f"{_CONNECT}Tls handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{_HANDSHAKE}OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK", "has expired: its"),
        (f"{_HANDSHAKE}OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate is not yet valid", "not valid yet"),
        (f"{_HANDSHAKE}OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: unable to get local issuer", "by nobody that"),
        (f"{_CONNECT}Custom verification check failed with error: UNAUTHENTICATED: Hostname Verification Check failed.",
         "is for another name"),
        (f"{_HANDSHAKE}OPENSSL_internal:WRONG_VERSION_NUMBER: Invalid certificate verification", "does not speak TLS"),
        (f"{_HANDSHAKE}OPENSSL_internal:TLSV1_ALERT_PROTOCOL_VERSION", "could be made: failed to connect"),
    ],
)  # fmt: skip
def test_what_tls_failed_of_is_said_with_what_to_do(text: str, sentence: str) -> None:
    secure = Connection("127.0.0.1:7400", "key", is_tls=True)
    error = error_of_call(Failure(grpc.StatusCode.UNAVAILABLE, text), secure)
    assert type(error) is tidemill.TlsError
    assert sentence in str(error)
    assert "127.0.0.1:7400" in str(error)


def test_a_port_that_refuses_everybody_is_not_taken_for_one_with_tls() -> None:
    text = f"{_CONNECT}connect: Connection refused (111)"
    for is_tls in (False, True):
        server = Connection("127.0.0.1:7400", "key", is_tls=is_tls)
        error = error_of_call(Failure(grpc.StatusCode.UNAVAILABLE, text), server)
        assert type(error) is tidemill.UnreachableError
        assert "No Tidemill server answers" in str(error)


@pytest.mark.parametrize("name", REASONS)
def test_a_refused_call_raises_the_reasons_class(client: tidemill.Client, mill: Mill, name: str) -> None:
    reason = name.removeprefix("REASON_")
    mill.fail_next("GetSession", *[Refusal(BY_REASON[reason].code, reason, "Do this.", retry_seconds=9)])
    with pytest.raises(BY_REASON[reason], match=r"Do this\.") as caught:
        client.get_session("sessions/1")
    assert caught.value.retry_after == timedelta(seconds=9)


def test_an_error_has_the_id_by_which_the_server_logged_the_call() -> None:
    metadata = (
        *Refusal(grpc.StatusCode.NOT_FOUND, "MODEL_NOT_FOUND").status().trailing_metadata,
        ("x-request-id", "its"),
    )
    failure = Failure(grpc.StatusCode.NOT_FOUND, "x", metadata)
    assert error_of_call(failure, SERVER).request_id == "its"
    assert error_of_call(failure, SERVER, request_id="ours").request_id == "its"
    unanswered = Failure(grpc.StatusCode.UNAVAILABLE, "connection refused")
    assert error_of_call(unanswered, SERVER, request_id="ours").request_id == "ours"
