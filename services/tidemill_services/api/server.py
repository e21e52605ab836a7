"""The public gRPC port: its services, health and reflection."""

from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from tidemill.grpc_server import aio_server
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
from tidemill_services.api.account import AccountService
from tidemill_services.api.inference import InferenceService
from tidemill_services.api.interceptors import CallInterceptor
from tidemill_services.api.model import ModelService
from tidemill_services.api.session import SessionService
from tidemill_services.api.unserved import JobService

MAX_MESSAGE_BYTES = 4 << 20
CLOSE_SECONDS = 2.0  # watches look once a second and then end themselves
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
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


class PublicServer:
    """The gRPC port with all that it serves. Health is SERVING from `start` to `refuse_new_calls`."""

    def __init__(
        self,
        interceptor: CallInterceptor,
        sessions: SessionService,
        models: ModelService,
        inference: InferenceService,
        accounts: AccountService,
    ) -> None:
        self._interceptor = interceptor
        self._health = health_aio.HealthServicer()
        self._server = aio_server([interceptor], _OPTIONS)
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

    async def start(self, host: str, port: int) -> str:
        """Listen, answer, and return `host:port`. Raises OSError when the port cannot be had."""
        place = f"[{host}]" if ":" in host else host
        try:
            bound = self._server.add_insecure_port(f"{place}:{port}")
        except RuntimeError as error:
            raise OSError(f"cannot listen on {place}:{port}") from error
        await self._server.start()
        await self._show(health_pb2.HealthCheckResponse.SERVING)
        return f"{place}:{bound}"

    async def refuse_new_calls(self) -> None:
        """Say NOT_SERVING, and refuse with DRAINING what comes from now on; the port stays open to say so."""
        await self._show(health_pb2.HealthCheckResponse.NOT_SERVING)
        self._interceptor.drain()

    async def close(self) -> None:
        """Close the port; what still runs after two seconds is cut."""
        await self._server.stop(CLOSE_SECONDS)

    async def _show(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for service in ("", *SERVICE_NAMES):
            await self._health.set(service, status)
