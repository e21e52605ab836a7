"""How a mill in memory refuses."""

from dataclasses import dataclass

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from tidemill.v1 import usage_pb2


@dataclass(frozen=True)
class Refusal:
    """A refusal as a server words it."""

    code: grpc.StatusCode
    reason: str
    message: str = "It is refused."
    field: str = ""
    retry_seconds: int = 0
    domain: str = "tidemill.v1"
    usage: usage_pb2.Usage | None = None

    def status(self) -> grpc.Status:
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        details = [error_details_pb2.ErrorInfo(reason=self.reason, domain=self.domain)]
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(field=self.field, description=self.message)
            details.append(error_details_pb2.BadRequest(field_violations=[violation]))
        if self.retry_seconds:
            details.append(error_details_pb2.RetryInfo(retry_delay=Duration(seconds=self.retry_seconds)))
        if self.usage is not None:
            details.append(self.usage)
        for detail in details:
            packed = AnyMessage()
            packed.Pack(detail)
            status.details.append(packed)
        return rpc_status.to_status(status)
