"""A control plane without its doors: store, scaler, host and leases, over a launcher."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tidemill_services.domain.errors import StoreUnavailableError
from tidemill_services.domain.generation import WaitPolicy
from tidemill_services.domain.model import ModelState, ModelView
from tidemill_services.domain.scaling import StartPolicy
from tidemill_services.engine_client import ReplicaClient
from tidemill_services.scaler.fake import FakeLauncher
from tidemill_services.scaler.host import Host, HostSettings
from tidemill_services.scaler.launcher import Connect, Launcher
from tidemill_services.scaler.replicas import Replicas
from tidemill_services.scaler.scaler import Scaler
from tidemill_services.store.model_views import get_model_view
from tidemill_services.store.models import register_model
from tidemill_services.store.sqlite import SqliteDatabase

SECRET = b"a secret of the tests"
QUICK_RETRIES = StartPolicy(retry_delays_ms=(20, 40), failed_delay_ms=60_000)
WAIT = WaitPolicy(max_wait_seconds=60)


class UnsteadyDatabase(SqliteDatabase):
    """A database that cannot be reached while it `is_away`."""

    is_away = False

    async def write(self, unit, /, *args, **kwargs):
        """See Database."""
        if self.is_away:
            raise StoreUnavailableError
        return await super().write(unit, *args, **kwargs)

    async def read(self, unit, /, *args, **kwargs):
        """See Database."""
        if self.is_away:
            raise StoreUnavailableError
        return await super().read(unit, *args, **kwargs)


@dataclass
class Platform:
    """What a test holds."""

    database: UnsteadyDatabase
    replicas: Replicas
    host: Host
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def register(self, name: str, package: Path = Path("/models/none"), **scaling: int) -> None:
        """Make a model known."""
        await self.database.write(
            register_model,
            name=name,
            digest="0" * 64,
            manifest_json=manifest_json(**scaling),
            package_path=str(package),
        )

    async def view(self, name: str) -> ModelView:
        """How callers see the model now."""
        return await self.database.read(get_model_view, name)

    async def until(self, name: str, *states: ModelState, seconds: float = 60.0) -> ModelView:
        """Wait until the model is in one of these states."""
        return await self._until(name, lambda view: view.state in states, seconds)

    async def until_unused(self, name: str) -> ModelView:
        """Wait until the store knows that nothing runs or waits any more."""
        return await self._until(name, lambda view: not view.demand, 60.0)

    async def _until(self, name: str, is_so: Callable[[ModelView], bool], seconds: float) -> ModelView:
        view = await self.view(name)
        try:
            async with asyncio.timeout(seconds):
                async for _ in self.database.changes("models", poll_seconds=0.05):
                    view = await self.view(name)
                    if is_so(view):
                        return view
        except TimeoutError:
            pass
        raise AssertionError(view)


def manifest_json(**scaling: int) -> str:
    """A manifest of which only the scaling policy is of interest."""
    policy = {
        "min_replicas": 0,
        "max_replicas": 1,
        "target_generations_per_replica": 8,
        "idle_timeout_seconds": 7200,
        "slots": 8,
    }
    return json.dumps({"scaling": policy | scaling})


@asynccontextmanager
async def platform(
    path: Path,
    launcher: Launcher,
    connect: Connect = ReplicaClient,
    *,
    capacity: int = 4,
    drain_grace_seconds: float = 60.0,
    host_id: str = "host",
    max_waiting: int = 256,
    drains: bool = True,
    start_policy: StartPolicy = QUICK_RETRIES,
) -> AsyncIterator[Platform]:
    """Run one, and drain it in the end; one that does not drain takes no record back, as if it were killed."""
    database = UnsteadyDatabase(path / "tidemill.db")
    await database.open()
    settings = HostSettings(host_id, capacity, SECRET, drain_grace_seconds, start_policy)
    host = Host(database, launcher, settings, connect=connect)
    await host.open()
    replicas = Replicas(database, "process", SECRET, connect=connect, max_waiting=max_waiting)
    scaler = Scaler(database, "process")
    running = Platform(database, replicas, host)
    running.tasks = [asyncio.create_task(part.run(), name=type(part).__name__) for part in (host, replicas, scaler)]
    try:
        yield running
        if drains:
            await host.drain()
    finally:
        for task in running.tasks:
            task.cancel()
        await asyncio.wait(running.tasks)
        await database.close()
    for task in running.tasks:
        if not task.cancelled():
            task.result()


@asynccontextmanager
async def fake_platform(
    path: Path,
    *,
    loads_at_once: bool = True,
    capacity: int = 4,
    max_waiting: int = 256,
    start_policy: StartPolicy = QUICK_RETRIES,
) -> AsyncIterator[tuple[Platform, FakeLauncher]]:
    """One whose replicas are nothing but their states."""
    launcher = FakeLauncher(loads_at_once=loads_at_once)
    async with platform(
        path, launcher, launcher.connect, capacity=capacity, max_waiting=max_waiting, start_policy=start_policy
    ) as running:
        yield running, launcher


async def eventually(is_so: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while True:
        await asyncio.sleep(0.01)
        if is_so():
            return
        assert time.monotonic() < deadline, "it did not become so in time"
