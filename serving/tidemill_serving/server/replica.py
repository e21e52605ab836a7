"""The life of a replica: opens the port, starts the engine, shows how it is, and ends in order."""

import asyncio
import logging

from grpc_health.v1 import health_pb2, health_pb2_grpc

from tidemill.engine.v1 import engine_pb2, engine_pb2_grpc
from tidemill_ports.grpc_server import aio_server
from tidemill_ports.health import Health
from tidemill_serving.engine import Engine, Phase
from tidemill_serving.server.access import TokenInterceptor
from tidemill_serving.server.credentials import Credentials
from tidemill_serving.server.service import EngineService
from tidemill_serving.server.switchboard import Switchboard
from tidemill_serving.settings import ServerSettings
from tidemill_serving.start_times import StartTimes
from tidemill_serving.tls import TlsFiles
from tidemill_telemetry.tracing import NoTracing, Tracing

_log = logging.getLogger(__name__)

STOOD_STILL_SECONDS = 1.0  # a look that comes so late says that the whole process did not run
EXCUSE_SECONDS = 5.0  # as long as any step may take
MAX_MESSAGE_BYTES = 32 << 20  # the control plane's side has the same limit
_OPTIONS = (
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Without it the pings of a caller whose stream is silent look like abuse, and its connection is cut.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)
_SERVICES = ("", engine_pb2.DESCRIPTOR.services_by_name["EngineService"].full_name)


class Replica:
    """One engine behind one gRPC port. Made in a running event loop; `open`, then `run` until it ends."""

    def __init__(
        self,
        engine: Engine,
        token: str,
        settings: ServerSettings | None = None,
        tracing: Tracing | None = None,
        times: StartTimes | None = None,
    ) -> None:
        self._engine = engine
        self._token = token
        self._settings = settings or ServerSettings()
        self._changed = asyncio.Event()
        self._switchboard = Switchboard(
            engine, self._settings.max_pending_size, self._changed.set, tracing or NoTracing(), times or StartTimes()
        )
        self._health = Health()
        self._is_serving: bool | None = None  # as health says; None before it said anything
        self._draining = False
        self._given_up = False

    async def open(self, listen: str, tls: TlsFiles | None = None) -> str:
        """Open the port, health NOT_SERVING, before anything is loaded; return the address. Raises OSError.

        With `tls` it takes callers with a certificate only, and its address begins with https://.
        """
        self._server = aio_server([TokenInterceptor(self._token)], _OPTIONS)
        engine_pb2_grpc.add_EngineServiceServicer_to_server(EngineService(self._switchboard, self.drain), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._show_health()
        try:
            if tls is None:
                port = self._server.add_insecure_port(listen)
            else:
                port = self._server.add_secure_port(listen, Credentials(tls).of_port())
        except RuntimeError as error:
            raise OSError(f"cannot listen on {listen}: {error}") from error
        await self._server.start()
        return f"{'https://' if tls else ''}{listen.rpartition(':')[0]}:{port}"

    async def run(self) -> str | None:
        """Start the engine and serve until drained or failed; return why it failed, None when it did not."""
        self._engine.start(self._switchboard)
        async with asyncio.TaskGroup() as tasks:
            heartbeat = tasks.create_task(self._beat(), name="heartbeat")
            while not self._is_over():
                await self._changed.wait()
                self._changed.clear()
                self._show_health()
            stage = self._switchboard.stage
            failed = stage.phase is Phase.FAILED
            if failed:
                await asyncio.sleep(self._settings.failed_linger_seconds)
            heartbeat.cancel()
        self._switchboard.close()
        await self._server.stop(grace=self._settings.cut_seconds)
        await asyncio.to_thread(self._engine.close)
        return stage.detail if failed else None

    def drain(self, grace_seconds: float | None = None) -> None:
        """Take nothing new, finish what runs, then end; what still runs after the grace is cut.

        Repeats are fine: the grace that ends first counts.
        """
        grace = self._settings.drain_grace_seconds if grace_seconds is None else grace_seconds
        if not self._draining:
            _log.info("draining: %d sequences run, grace %.1f s", self._switchboard.num_running, grace)
        self._draining = True
        self._switchboard.drain()
        self._changed.set()
        loop = asyncio.get_running_loop()
        loop.call_later(grace, self._switchboard.abort_all)
        loop.call_later(grace + self._settings.cut_seconds, self._give_up)

    def _give_up(self) -> None:
        self._given_up = True
        self._changed.set()

    def _is_over(self) -> bool:
        if self._switchboard.stage.phase is Phase.FAILED:
            return True
        return self._draining and (self._switchboard.num_running == 0 or self._given_up)

    async def _beat(self) -> None:
        """Ask the engine whether it lives, show a change at once, and tell callers every second or so anyway.

        When this loop stood still, the engine's thread most likely did too: it is excused for a while.
        """
        loop = asyncio.get_running_loop()
        told_at = looked_at = loop.time()
        excused_until = 0.0
        while True:
            await asyncio.sleep(self._settings.heartbeat_seconds)
            late_seconds = loop.time() - looked_at - self._settings.heartbeat_seconds
            looked_at = loop.time()
            if late_seconds > STOOD_STILL_SECONDS:
                excused_until = looked_at + EXCUSE_SECONDS
            responsive = self._engine.is_responsive() or looked_at < excused_until
            changed = responsive != self._switchboard.responsive
            self._switchboard.responsive = responsive
            if changed:
                _log.warning("the engine's thread %s", "shows life again" if responsive else "shows no life")
                self._show_health()
            if changed or loop.time() - told_at >= self._settings.status_seconds:
                told_at = loop.time()
                self._switchboard.tell_status()

    def _show_health(self) -> None:
        is_serving = self._switchboard.stage.phase is Phase.READY and self._switchboard.responsive
        if is_serving == self._is_serving:
            return
        self._is_serving = is_serving
        status = health_pb2.HealthCheckResponse.SERVING if is_serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in _SERVICES:
            self._health.show(service, status)
