"""The one place that joins all parts: starts them in order, and stops them in the reverse order."""

import asyncio
import hmac
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tidemill_models.errors import ModelPackageError
from tidemill_models.manifest import MANIFEST_NAME
from tidemill_models.package import bundled_packages, load_package
from tidemill_models.template_renderer import TemplateRenderer
from tidemill_services import local_user
from tidemill_services.api.inference import InferenceService
from tidemill_services.api.interceptors import CallInterceptor
from tidemill_services.api.model import ModelService
from tidemill_services.api.server import GrpcLimits, PublicServer
from tidemill_services.api.session import SessionService
from tidemill_services.calls import Calls
from tidemill_services.catalogue import Catalogue
from tidemill_services.domain.api_key import Role, hash_api_key
from tidemill_services.domain.errors import CannotStartError, StoreUnavailableError
from tidemill_services.engine_client import ReplicaClient
from tidemill_services.gateway.door import Door
from tidemill_services.gateway.health import admin_application
from tidemill_services.gateway.http_server import HttpServer, HttpSettings
from tidemill_services.gateway.public import public_routes
from tidemill_services.generation import Generations
from tidemill_services.identity import Identities
from tidemill_services.metrics import Metrics
from tidemill_services.scaler.host import Host, HostSettings
from tidemill_services.scaler.local import LocalLauncher, LocalLauncherSettings
from tidemill_services.scaler.replicas import Replicas
from tidemill_services.scaler.scaler import Scaler
from tidemill_services.session_drains import SessionDrains
from tidemill_services.session_guard import SessionGuard
from tidemill_services.session_signs import SessionSigns
from tidemill_services.session_streams import SessionStreams, StopReason
from tidemill_services.settings import Settings
from tidemill_services.store import accounts, models
from tidemill_services.store.database import Database, Transaction
from tidemill_services.store.opening import open_database
from tidemill_services.store.secret_file import read_or_create_secret
from tidemill_services.tls.replica_tls import open_replica_tls
from tidemill_services.tls.server_tls import open_server_tls
from tidemill_telemetry.tracing import open_tracing

logger = logging.getLogger(__name__)

LOCAL_ACCOUNT = "local"


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a running server answers, each as `host:port`, and where the local user's key lies."""

    grpc: str
    http: str
    admin: str
    api_key_file: Path
    ca_file: Path | None  # what a client on this machine may trust; None: the ports speak plaintext


class Application:
    """One control process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self._metrics = Metrics()
        self._streams = SessionStreams()
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
            async with AsyncExitStack() as parts:
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

    async def _start(self, parts: AsyncExitStack) -> Addresses:
        """Start each part; `parts` stops them in the reverse order."""
        settings, metrics = self._settings, self._metrics
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        instance = {"service.instance.id": f"{socket.gethostname()}.{os.getpid()}"}
        tracing = await asyncio.to_thread(open_tracing, "tidemill", instance)
        parts.push_async_callback(asyncio.to_thread, tracing.close)
        calls = Calls(tracing, access_log=settings.access_log)
        secret = read_or_create_secret(settings.data_dir / "secret")
        database = open_database(settings.database_url)
        await database.open()
        parts.push_async_callback(database.close)
        api_key = await _local_api_key(database, secret, settings)
        await _register_packages(database, (settings.data_dir / "models", *settings.models))

        renderer = TemplateRenderer()
        parts.callback(renderer.close)
        host_id = _host_id(settings.data_dir)
        process_id = f"{host_id}.{secrets.token_hex(4)}"  # a new one in each life of the host
        replicas = await self._start_scaling(parts, database, secret, host_id, process_id)
        metrics.watch_pools(replicas.counts)
        catalogue = Catalogue(database, renderer)
        drains = SessionDrains(database, self._streams, settings.stop_grace.total_seconds())
        self._keep_running(parts, drains.run(), "session-drains")
        signs = SessionSigns()
        guard = SessionGuard(database, process_id, self._streams, signs)
        self._keep_running(parts, guard.run(), "session-guard")

        identities = Identities(database, secret)
        generations = Generations(database, catalogue, replicas, self._streams, metrics, tracing)
        limits = GrpcLimits(settings.max_streams_per_connection, settings.max_connection_age.total_seconds())
        interceptor = CallInterceptor(
            identities, metrics, calls, open_reflection=settings.is_loopback, max_streams=limits.max_streams
        )
        if (tls := await asyncio.to_thread(open_server_tls, settings)) is not None:
            self._keep_running(parts, tls.run(), "tls")
        server = PublicServer(
            interceptor,
            SessionService(database, signs, lambda: interceptor.is_draining),
            ModelService(database, lambda: interceptor.is_draining),
            InferenceService(generations),
            limits,
        )
        door = Door(public_routes(database, generations), identities, metrics, calls)
        http_settings = HttpSettings(settings.max_http_connections, tls.http_context if tls else None)
        http = HttpServer(door, settings.host, settings.http_port, http_settings)
        pages = admin_application(metrics.registry, lambda: self._is_ready)
        admin = HttpServer(pages, settings.admin_host, settings.admin_port, http_settings)
        for http_server in (admin, http):
            await http_server.start()
            parts.push_async_callback(http_server.stop)
        grpc_address = await server.start(settings.host, settings.port, tls.grpc_credentials() if tls else None)
        parts.push_async_callback(server.close)
        parts.push_async_callback(self._streams.drain, settings.stop_grace.total_seconds())
        parts.push_async_callback(server.refuse_new_calls)
        parts.callback(door.drain)

        ca_file = tls.certificate_file.absolute() if tls else None
        if settings.is_loopback:
            local_user.tell(grpc_address, api_key, ca_file, tls.names if tls else None)
        key_file = (settings.data_dir / "api_key").absolute()
        return Addresses(grpc_address, http.address, admin.address, key_file, ca_file)

    async def _start_scaling(
        self, parts: AsyncExitStack, database: Database, secret: bytes, host_id: str, process_id: str
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
        connect = partial(ReplicaClient, tls=tls)
        launcher = LocalLauncher(
            LocalLauncherSettings(settings.replica_threads, settings.replica_device, settings.log_level, tls)
        )
        host = Host(database, launcher, host_settings, connect=connect)
        await host.open()
        self._keep_running(parts, host.run(), "host")
        parts.push_async_callback(host.drain)
        self._keep_running(parts, Scaler(database, process_id).run(), "scaler")
        replicas = Replicas(database, process_id, launcher_secret, connect=connect)
        self._keep_running(parts, replicas.run(), "replicas")
        return replicas

    def _keep_running(self, parts: AsyncExitStack, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run a part until it is stopped; one that breaks stops the whole program, so that nothing goes on half."""
        task = asyncio.create_task(work, name=name)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.critical("%s broke", name, exc_info=error)
                self._broken = f"{name} broke: {error}"
                self._stop.set()

        async def stop() -> None:
            task.cancel()
            await asyncio.wait({task})

        task.add_done_callback(ended)
        parts.push_async_callback(stop)


def _host_id(data_dir: Path) -> str:
    """The same in each life of a process with this data directory."""
    path = data_dir / "host_id"
    if not path.exists():
        local_user.write_private(path, f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}\n")
    return path.read_text().strip()


async def _register_packages(database: Database, folders: tuple[Path, ...]) -> None:
    """Make known what is bundled, and each package in these folders. Raises ModelPackageError."""
    packages = bundled_packages()
    for folder in folders:  # of packages, or itself a package
        packages += sorted(found.parent for found in (*folder.glob(MANIFEST_NAME), *folder.glob(f"*/{MANIFEST_NAME}")))
    for folder in packages:
        package = await asyncio.to_thread(load_package, folder)
        await database.write(
            models.register_model,
            name=package.manifest.name,
            digest=package.digest,
            manifest_json=package.manifest.to_json(),
            package_path=str(package.folder),
        )


async def _local_api_key(database: Database, secret: bytes, settings: Settings) -> str:
    """The key of whoever runs the server, kept in a file; a new one when there is none or it is not valid any more."""
    path = settings.data_dir / "api_key"

    def find_or_create(tx: Transaction, kept: str | None) -> str:
        known = accounts.find_key_by_hash(tx, hash_api_key(secret, kept)) if kept else None
        if kept is None or known is None:
            accounts.create_account(tx, LOCAL_ACCOUNT, "Who runs this server")
            known, kept = accounts.create_api_key(tx, LOCAL_ACCOUNT, secret, display_name="local", role=Role.ADMIN)
        accounts.set_auto_session(tx, known.key_id, auto_session=settings.auto_session)
        return kept

    kept = local_user.read_api_key(path)
    api_key = await database.write(find_or_create, kept)
    if api_key != kept:
        local_user.write_private(path, api_key + "\n")
    return api_key
