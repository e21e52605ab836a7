"""The one place that joins all parts: starts them in order, and stops them in the reverse order."""

import asyncio
import hmac
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from starlette.applications import Starlette

from tidemill_models.errors import ModelPackageError
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_services import installation, local_user
from tidemill_services.api.account import AccountService
from tidemill_services.api.inference import InferenceService
from tidemill_services.api.interceptors import CallInterceptor
from tidemill_services.api.model import ModelService
from tidemill_services.api.server import GrpcLimits, PublicServer
from tidemill_services.api.session import SessionService
from tidemill_services.calls import Calls
from tidemill_services.catalogue import Catalogue
from tidemill_services.domain.errors import CannotStartError, StoreUnavailableError
from tidemill_services.engine_client import ReplicaClient, SendingCost
from tidemill_services.expired_answers import ExpiredAnswers
from tidemill_services.gateway.door import Door
from tidemill_services.gateway.health import admin_application
from tidemill_services.gateway.http_server import HttpServer, HttpSettings
from tidemill_services.gateway.origins import open_to_origins
from tidemill_services.gateway.public import public_routes
from tidemill_services.generation import Generations
from tidemill_services.identity import Identities
from tidemill_services.key_sessions import KeySessions
from tidemill_services.ledger_sealer import LedgerSealer
from tidemill_services.metrics import BillingPage, MeasuredDatabase, Metrics, ProcessPage
from tidemill_services.resumable import ResumableGenerations
from tidemill_services.running_parts import RunningParts
from tidemill_services.scaler.host import Host, HostSettings
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings
from tidemill_services.scaler.replicas import Replicas
from tidemill_services.scaler.scaler import Scaler
from tidemill_services.scaler.spares import Spares
from tidemill_services.session_drains import SessionDrains
from tidemill_services.session_guard import SessionGuard
from tidemill_services.session_signs import SessionSigns
from tidemill_services.session_streams import SessionStreams, StopReason
from tidemill_services.settings import Settings
from tidemill_services.store.database import Database
from tidemill_services.store.opening import open_database
from tidemill_services.store.secret_file import read_or_create_secrets
from tidemill_services.tls.replica_tls import open_replica_tls
from tidemill_services.tls.server_tls import ServerTls, open_server_tls
from tidemill_services.token_funds import TokenFunds
from tidemill_services.usage_limits import UsageGuard
from tidemill_telemetry.tracing import Tracing, open_tracing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server answers, each as `host:port`, and where the local user's key lies."""

    grpc: str
    http: str
    admin: str
    api_key_file: Path
    ca_file: Path | None  # what a client on this machine may trust; None: the ports speak plaintext
    is_found: bool  # by the CLI of the server's own user, without being told where it is


@dataclass(frozen=True, slots=True)
class _Core:
    """What answers calls, whichever port they come through."""

    database: Database
    secret: bytes
    identities: Identities
    guard: UsageGuard
    calls: Calls
    generations: Generations
    resumable: ResumableGenerations
    signs: SessionSigns
    session_guard: SessionGuard


class Application:
    """One control process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._metrics = Metrics()
        self._streams = SessionStreams()
        self._spares = Spares(settings.replica_spares)
        self._is_ready = False
        self._broken = ""

    async def run(self, on_ready: Callable[[Addresses], None]) -> None:
        """Start, say where, serve until SIGTERM or SIGINT, stop in order; a second signal cuts the grace short.

        Raises CannotStartError.
        """
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._on_signal)
        try:
            async with RunningParts(self._on_broken) as parts:
                addresses = await self._start(parts)
                self._is_ready = True
                on_ready(addresses)
                await self._stop.wait()
                logger.info("stopping: running streams have %s to finish", self._settings.stop_grace)
                self._is_ready = False
            if self._broken:
                raise CannotStartError(self._broken)
        except (OSError, ModelPackageError, StoreUnavailableError) as error:
            raise CannotStartError(str(error)) from error
        logger.info("stopped")

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._streams.stop_all(StopReason.DRAINING)
        self._stop.set()

    def _on_broken(self, why: str) -> None:
        self._broken = why
        self._stop.set()

    async def _start(self, parts: RunningParts) -> Addresses:
        """Start each part; `parts` stops them in the reverse order."""
        settings = self._settings
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        instance = {"service.instance.id": f"{socket.gethostname()}.{os.getpid()}"}
        tracing = await asyncio.to_thread(open_tracing, "tidemill", instance)
        parts.push_async_callback(asyncio.to_thread, tracing.close)
        secrets_of_platform = read_or_create_secrets(settings.data_dir / "secret")
        secret = secrets_of_platform.current
        database = MeasuredDatabase(open_database(settings.database_url), self._metrics)
        await database.open()
        parts.push_async_callback(database.close)
        identities = Identities(database, secrets_of_platform)
        parts.keep_running(identities.run(), "identities")
        parts.keep_running(ExpiredAnswers(database).run(), "expired-answers")
        await installation.tell_of_other_secrets(database, secrets_of_platform)
        api_key = await installation.local_api_key(database, identities, secret, settings)
        await installation.register_packages(database, (settings.data_dir / "models", *settings.models))

        core = await self._start_core(parts, database, secret, identities, tracing)
        if (tls := await asyncio.to_thread(open_server_tls, settings)) is not None:
            parts.keep_running(tls.run(), "tls")
        door = Door(public_routes(database, core.generations), identities, core.guard, self._metrics, core.calls)
        http, admin = await self._start_http(parts, door, self._admin_pages(database), tls)
        grpc_address = await self._start_grpc(parts, core, tls)
        parts.callback(door.drain)

        ca_file = tls.certificate_file.absolute() if tls else None
        is_found = local_user.tell(grpc_address, api_key, ca_file, tls.names if tls else None)
        key_file = (settings.data_dir / "api_key").absolute()
        return Addresses(grpc_address, http.address, admin.address, key_file, ca_file, is_found)

    async def _start_core(
        self, parts: RunningParts, database: Database, secret: bytes, identities: Identities, tracing: Tracing
    ) -> _Core:
        """Start what answers calls, and what watches over sessions and the ledger."""
        settings, metrics = self._settings, self._metrics
        renderer = TemplateRenderer()
        parts.callback(renderer.close)
        host_id = installation.host_id_of(settings.data_dir)
        process_id = f"{host_id}.{secrets.token_hex(4)}"  # a new one in each life of the host
        replicas = await self._start_scaling(parts, database, secret, host_id, process_id)
        metrics.watch_replicas(replicas)
        parts.keep_running(LedgerSealer(database, process_id).run(), "ledger-sealer")
        catalogue = Catalogue(database, renderer)
        signs, session_guard = self._start_session_watches(parts, database, process_id)
        guard, funds = self._start_slices(parts, database, process_id)
        generations = Generations(database, catalogue, replicas, self._streams, metrics, tracing, guard, funds)
        resumable = ResumableGenerations(database, self._streams, metrics)
        parts.push_async_callback(resumable.close)
        calls = Calls(tracing, access_log=settings.access_log)
        return _Core(database, secret, identities, guard, calls, generations, resumable, signs, session_guard)

    async def _start_grpc(self, parts: RunningParts, core: _Core, tls: ServerTls | None) -> str:
        """Open the public gRPC port; return its address."""
        settings = self._settings
        limits = GrpcLimits(settings.max_streams_per_connection, settings.max_connection_age.total_seconds())
        interceptor = CallInterceptor(
            core.identities,
            core.guard,
            self._metrics,
            core.calls,
            open_reflection=settings.is_loopback,
            max_streams=limits.max_streams,
            reader_patience_seconds=settings.reader_patience.total_seconds(),
        )
        server = PublicServer(
            interceptor,
            SessionService(core.database, core.signs, core.session_guard.tell, lambda: interceptor.is_draining),
            ModelService(core.database, lambda: interceptor.is_draining),
            InferenceService(core.generations, core.resumable, core.guard),
            AccountService(core.database, core.secret),
            limits,
        )
        address = await server.start(settings.host, settings.port, tls.grpc_credentials() if tls else None)
        parts.push_async_callback(server.close)
        parts.push_async_callback(self._streams.drain, settings.stop_grace.total_seconds())
        parts.callback(core.resumable.drain)
        parts.callback(server.refuse_new_calls)
        return address

    def _start_slices(self, parts: RunningParts, database: Database, process_id: str) -> tuple[UsageGuard, TokenFunds]:
        """Start what leases limits and credits ahead, so that no request waits for the store."""
        guard = UsageGuard(database, secrets.token_hex(8))
        parts.push_async_callback(guard.close)
        parts.keep_running(guard.run(), "usage-guard")
        funds = TokenFunds(database, process_id)
        parts.push_async_callback(funds.close)
        parts.keep_running(funds.run(), "token-funds")
        return guard, funds

    def _start_session_watches(
        self, parts: RunningParts, database: Database, process_id: str
    ) -> tuple[SessionSigns, SessionGuard]:
        """Start what ends sessions: stopped ones, forgotten ones, those of keys that are no longer valid."""
        signs = SessionSigns()
        guard = SessionGuard(database, process_id, self._streams, signs)
        parts.keep_running(guard.run(), "session-guard")
        drains = SessionDrains(database, self._streams, self._settings.stop_grace.total_seconds(), guard.tell)
        parts.keep_running(drains.run(), "session-drains")
        parts.keep_running(KeySessions(database, self._streams).run(), "key-sessions")
        return signs, guard

    def _admin_pages(self, database: Database) -> Starlette:
        """What the administrator's port serves."""
        scraped = {
            "/metrics": ProcessPage(self._metrics, database).read,
            "/metrics/billing": BillingPage(database).read,
        }
        return admin_application(scraped, lambda: self._is_ready, self._spares.told)

    async def _start_http(
        self, parts: RunningParts, door: Door, pages: Starlette, tls: ServerTls | None
    ) -> tuple[HttpServer, HttpServer]:
        """Open the public HTTP port and the administrator's."""
        settings = self._settings
        http_settings = HttpSettings(settings.max_http_connections, tls.http_context if tls else None)
        application = open_to_origins(door, settings.http_origins)
        http = HttpServer(application, settings.host, settings.http_port, http_settings)
        admin = HttpServer(pages, settings.admin_host, settings.admin_port, http_settings)
        for http_server in (admin, http):
            await http_server.start()
            parts.push_async_callback(http_server.stop)
        return http, admin

    async def _start_scaling(
        self, parts: RunningParts, database: Database, secret: bytes, host_id: str, process_id: str
    ) -> Replicas:
        """Start what decides, what launches and what leases replicas."""
        settings = self._settings
        launcher_secret = hmac.digest(secret, b"launcher", "sha256")
        host_settings = HostSettings(
            host_id=host_id,
            capacity=settings.replica_capacity,
            launcher_secret=launcher_secret,
            drain_grace_seconds=settings.stop_grace.total_seconds(),
        )
        tls = await asyncio.to_thread(open_replica_tls, settings)
        connect = partial(ReplicaClient, tls=tls, cost=SendingCost())
        self._metrics.starts.watch_spares(lambda: self._spares.num_ready)
        launcher = LocalLauncher(
            LocalLauncherSettings(
                threads=settings.replica_threads,
                device=settings.replica_device,
                fake_tick_ms=settings.replica_fake_tick_ms,
                kernels=settings.replica_kernels,
                log_level=settings.log_level,
                start_cache=(settings.data_dir / "start-cache").absolute() if settings.start_cache_mib else None,
                start_cache_mib=settings.start_cache_mib,
                tls=tls,
            ),
            self._spares,
        )
        host = Host(database, launcher, host_settings, connect=connect, on_started=self._metrics.starts.observe)
        await host.open()
        parts.keep_running(self._spares.run(), "spares")
        parts.keep_running(host.run(), "host")
        parts.push_async_callback(host.drain)
        parts.keep_running(Scaler(database, process_id).run(), "scaler")
        replicas = Replicas(database, process_id, launcher_secret, connect=connect)
        parts.keep_running(replicas.run(), "replicas")
        return replicas
