"""The health of a gRPC port, told to several watchers over real connections."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tidemill_ports.grpc_server import aio_server
from tidemill_ports.health import Health

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
MILL = health_pb2.HealthCheckRequest(service="mill")


@asynccontextmanager
async def served() -> AsyncIterator[tuple[Health, "health_pb2_grpc.HealthAsyncStub"]]:
    health, server = Health(), aio_server([], ())
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel, asyncio.timeout(60):
        yield health, health_pb2_grpc.HealthStub(channel)
    await server.stop(0)


async def test_a_watcher_hears_of_each_change_also_of_a_service_that_comes_later() -> None:
    async with served() as (health, stub):
        watch = stub.Watch(MILL)
        assert (await watch.read()).status == UNKNOWN
        for status in (SERVING, NOT_SERVING, SERVING):
            health.show("mill", status)
            assert (await watch.read()).status == status
        watch.cancel()


async def test_a_watcher_that_leaves_takes_nothing_from_the_others() -> None:
    async with served() as (health, stub):
        health.show("mill", SERVING)
        leaving, staying = stub.Watch(MILL), stub.Watch(MILL)
        for watch in (leaving, staying):
            assert (await watch.read()).status == SERVING
        leaving.cancel()
        await stub.Check(MILL)
        await asyncio.sleep(0.2)  # most likely the server has heard of it
        health.show("mill", NOT_SERVING)
        assert (await staying.read()).status == NOT_SERVING
        staying.cancel()


async def test_one_is_told_how_a_service_is_and_of_none_that_there_is_none() -> None:
    async with served() as (health, stub):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Check(MILL)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        health.show("mill", NOT_SERVING)
        assert (await stub.Check(MILL)).status == NOT_SERVING
