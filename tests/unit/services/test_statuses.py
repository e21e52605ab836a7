import grpc
import pytest
from google.rpc import error_details_pb2

from tidemill.v1 import errors_pb2
from tidemill_services.api.statuses import CODES, code_of, error_message, status_of
from tidemill_services.domain import errors
from tidemill_services.faults import log_fault


def _reasons() -> list[type[errors.TidemillError]]:
    found: list[type[errors.TidemillError]] = []
    kinds = list(errors.TidemillError.__subclasses__())
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if hasattr(kind, "reason"):
            found.append(kind)
    return found


@pytest.mark.parametrize("kind", _reasons(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_catalogue_has_its_reason_in_the_contract_and_a_code(
    kind: type[errors.TidemillError],
) -> None:
    status = status_of(kind(), "/tidemill.v1.SessionService/StartSession")
    assert f"REASON_{kind.reason}" in set(errors_pb2.Error.Reason.keys())
    assert code_of(kind()) in CODES.values()
    assert status.code == code_of(kind()).value[0]
    assert status.message.endswith((".", ")")) or ":" in status.message
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain, info.metadata["method"]) == (kind.reason, "tidemill.v1", "StartSession")


def test_every_reason_of_the_contract_can_be_raised() -> None:
    raised = {f"REASON_{kind.reason}" for kind in _reasons()}
    assert set(errors_pb2.Error.Reason.keys()) - raised == {"REASON_UNSPECIFIED"}


def test_a_field_and_a_retry_time_travel_with_the_error() -> None:
    error = errors.QueueFullError(retry_after_seconds=1.5)
    retry = error_details_pb2.RetryInfo()
    assert status_of(error, "/x/Y").details[1].Unpack(retry)
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.5
    assert code_of(error) is grpc.StatusCode.RESOURCE_EXHAUSTED
    wrong = errors.FieldInvalidError("top_p is 7.", field="options.sampling.top_p")
    bad = error_details_pb2.BadRequest()
    assert status_of(wrong, "/x/Y").details[1].Unpack(bad)
    assert bad.field_violations[0].field == "options.sampling.top_p"
    assert error_message(wrong).field == "options.sampling.top_p"


def test_an_unforeseen_error_goes_to_the_log_under_the_number_that_the_caller_gets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault = log_fault(ValueError("the secret is swordfish"), "a test")
    assert code_of(fault) is grpc.StatusCode.INTERNAL
    assert "swordfish" not in str(fault)
    (record,) = caplog.records
    assert str(fault).rstrip(".").rpartition(" ")[2] in record.getMessage()
    assert "the secret is swordfish" in record.getMessage()
