"""What a replica says after it was given up is not heard any more."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tidemill.engine.v1 import engine_pb2
from tidemill_services.engine_client import Patience, ReplicaClient
from tidemill_services.engine_client import client as engine_client

READY = engine_pb2.ConnectResponse(status=engine_pb2.Status(phase=engine_pb2.PHASE_READY, progress=1, responsive=True))


class LateCall:
    """A call that hears of its cancellation late: what was sent before still comes."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[engine_pb2.ConnectResponse | None] = asyncio.Queue()
        self.is_cancelled = asyncio.Event()

    def cancel(self) -> None:
        self.messages.put_nowait(READY)
        self.messages.put_nowait(None)
        self.is_cancelled.set()

    async def __aiter__(self) -> AsyncIterator[engine_pb2.ConnectResponse]:
        while (message := await self.messages.get()) is not None:
            yield message


async def test_a_status_that_comes_after_the_replica_was_lost_does_not_bring_it_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call = LateCall()

    class Stub:
        def __init__(self, _channel: object) -> None:
            pass

        def Connect(self, *_: object, **__: object) -> LateCall:  # noqa: N802 -- the contract's name
            return call

    monkeypatch.setattr(engine_client.engine_pb2_grpc, "EngineServiceStub", Stub)
    client = ReplicaClient("127.0.0.1:1", "token", Patience(silence=0.1))
    call.messages.put_nowait(READY)
    await client.open()
    assert client.status.connected
    async with asyncio.timeout(60):
        await call.is_cancelled.wait()
        await asyncio.sleep(0.05)  # a slow reader, which looks when all has come
        last = [status async for status in client.statuses()][-1]
    assert not last.connected
    assert not client.status.connected
    await client.close()
