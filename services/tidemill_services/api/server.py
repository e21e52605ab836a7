"""The public gRPC port: its services, health and reflection."""

from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from tidemill.v1 import (
    account_pb2,
    account_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from tidemill_ports.grpc_server import aio_server
from tidemill_ports.health import Health, Status
from tidemill_services.api.account import AccountService
from tidemill_services.api.inference import InferenceService
from tidemill_services.api.interceptors import CallInterceptor
from tidemill_services.api.model import ModelService
from tidemill_services.api.session import SessionService
from tidemill_services.api.unserved import JobService

MAX_MESSAGE_BYTES = 4 << 20
MAX_ANSWER_BYTES = 64 << 20  # the receipt of a session of weeks has that many rows
CLOSE_SECONDS = 2.0  # watches look once a second and then end themselves
MAX_METADATA_BYTES = 16 << 10  # of one call
HANDSHAKE_SECONDS = 20  # for a connection to say what it wants, TLS included
_ROOM_TO_REFUSE = 100  # calls beyond the limit that hear so; a client keeps what is beyond them to itself
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_ANSWER_BYTES),
    # One limit: between two, gRPC would refuse at random.
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS * 1000),
    # A caller whose network is gone is noticed within 18 s, and its generations end.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 8_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Without it the pings of a client whose stream is silent look like abuse, and its connection is cut.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
SERVICE_NAMES = tuple(
    descriptor.services_by_name[name].full_name
    for descriptor, name in (
        (session_pb2.DESCRIPTOR, "SessionService"),
        (model_pb2.DESCRIPTOR, "ModelService"),
        (inference_pb2.DESCRIPTOR, "InferenceService"),
        (job_pb2.DESCRIPTOR, "JobService"),
        (account_pb2.DESCRIPTOR, "AccountService"),
    )
)


@dataclass(frozen=True, slots=True)
class GrpcLimits:
    """What one connection may be."""

    max_streams: int  # calls at once; what is beyond is refused
    max_age_seconds: float  # then its client connects anew

    def options(self) -> tuple[tuple[str, int], ...]:
        """For gRPC. There is no grace after the age: a call that runs then goes on to its own end, however long."""
        return (
            ("grpc.max_concurrent_streams", self.max_streams + _ROOM_TO_REFUSE),
            ("grpc.max_connection_age_ms", round(self.max_age_seconds * 1000)),
        )


class PublicServer:
    """The gRPC port with all that it serves. Health is SERVING from `start` to `refuse_new_calls`."""

    def __init__(
        self,
        interceptor: CallInterceptor,
        sessions: SessionService,
        models: ModelService,
        inference: InferenceService,
        accounts: AccountService,
        limits: GrpcLimits,
    ) -> None:
        self._interceptor = interceptor
        self._health = Health()
        self._server = aio_server([interceptor], (*_OPTIONS, *limits.options()))
        session_pb2_grpc.add_SessionServiceServicer_to_server(sessions, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(models, self._server)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(inference, self._server)
        job_pb2_grpc.add_JobServiceServicer_to_server(JobService(), self._server)  # type: ignore[abstract]
        account_pb2_grpc.add_AccountServiceServicer_to_server(accounts, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*SERVICE_NAMES, reflection.SERVICE_NAME, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name),
            self._server,
        )

    async def start(self, host: str, port: int, credentials: grpc.ServerCredentials | None) -> str:
        """Listen, with TLS when there are credentials, answer, and return `host:port`.

        Raises OSError when the port cannot be had.
        """
        place = f"[{host}]" if ":" in host else host
        try:
            if credentials is None:
                bound = self._server.add_insecure_port(f"{place}:{port}")
            else:
                bound = self._server.add_secure_port(f"{place}:{port}", credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {place}:{port}") from error
        await self._server.start()
        self._show(health_pb2.HealthCheckResponse.SERVING)
        return f"{place}:{bound}"

    def refuse_new_calls(self) -> None:
        """Say NOT_SERVING, and refuse with DRAINING what comes from now on; the port stays open to say so."""
        self._show(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._interceptor.drain()

    async def close(self) -> None:
        """Close the port; what still runs after two seconds is cut."""
        await self._server.stop(CLOSE_SECONDS)

    def _show(self, status: Status) -> None:
        for service in ("", *SERVICE_NAMES):
            self._health.show(service, status)
