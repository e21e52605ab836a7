"""A replica's server in this process, on a real port, before an engine that the test moves by hand."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.unit.replica.hand_engine import HandEngine
from tidemill.engine.v1 import engine_pb2_grpc
from tidemill_services.engine_client import Patience, ReplicaClient
from tidemill_serving.engine import Phase
from tidemill_serving.server import Replica
from tidemill_serving.settings import ServerSettings
from tidemill_serving.tls import TlsFiles


async def until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until `condition` holds; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 -- the condition is of another thread or process
            await asyncio.sleep(0.002)


async def health(address: str, service: str = "") -> str:
    """The health of a replica, asked without a token."""
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service))
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


async def until_health(address: str, expected: str, service: str = "", seconds: float = 60.0) -> None:
    """Ask for a replica's health until it is as expected; fails after `seconds`."""
    async with asyncio.timeout(seconds):
        while await health(address, service) != expected:  # noqa: ASYNC110 -- another process's, by polling
            await asyncio.sleep(0.005)


@dataclass
class ServedEngine:
    """The server, its engine, and ways to speak to it."""

    engine: HandEngine
    replica: Replica
    address: str
    running: "asyncio.Task[str | None]"
    token: str = field(repr=False)

    @asynccontextmanager
    async def client(self, patience: Patience | None = None) -> AsyncIterator[ReplicaClient]:
        """An opened client."""
        client = ReplicaClient(self.address, self.token, patience)
        await client.open()
        try:
            yield client
        finally:
            await client.close()

    @asynccontextmanager
    async def stub(self) -> AsyncIterator["engine_pb2_grpc.EngineServiceAsyncStub"]:
        """The bare contract; `metadata()` must go with each call."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            yield engine_pb2_grpc.EngineServiceStub(channel)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self.token}"),)


@asynccontextmanager
async def served_engine(
    settings: ServerSettings | None = None, num_places: int = 100, tls: TlsFiles | None = None
) -> AsyncIterator[ServedEngine]:
    """A served engine that is READY."""
    engine, token = HandEngine(num_places), secrets.token_hex(32)
    replica = Replica(engine, token, settings or ServerSettings(heartbeat_seconds=0.02, failed_linger_seconds=0.2))
    address = await replica.open("127.0.0.1:0", tls)
    running = asyncio.create_task(replica.run())
    await asyncio.sleep(0)
    engine.become(Phase.READY)
    try:
        yield ServedEngine(engine, replica, address, running, token)
    finally:
        replica.drain(0)
        await asyncio.wait({running})
