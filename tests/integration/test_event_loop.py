"""The event loop of the processes that serve gRPC: it hears of many operations at once, and misses none."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeVarTuple

import grpc
import grpc.aio

from tidemill_ports.event_loop import GrpcLoop

NUM_CALLS = 200

Arguments = TypeVarTuple("Arguments")


class Watched(GrpcLoop):
    """Remembers what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def add_reader(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        super().add_reader(fd, callback, *args)
        self.readers.append(fd)


async def _echo(request: bytes, _context: Any) -> bytes:
    return request


async def _call_at_once() -> list[bytes]:
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(_echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/test.Echo/Echo")
        answers = await asyncio.gather(*(call(b"%d" % number, timeout=60) for number in range(NUM_CALLS)))
    await server.stop(None)
    return answers


def test_all_that_grpc_has_said_is_taken_at_once_and_every_call_is_answered() -> None:
    with asyncio.Runner(loop_factory=Watched) as runner:
        answers = runner.run(_call_at_once())
        loop = runner.get_loop()
        assert isinstance(loop, Watched)
    assert answers == [b"%d" % number for number in range(NUM_CALLS)]
    (heard_from,) = loop.readers
    assert type(heard_from) is not socket.socket  # it gives all that it has


def test_another_ones_socket_gives_what_it_is_asked_for() -> None:
    async def read_one() -> bytes:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().add_reader(ours, lambda: read.done() or read.set_result(ours.recv(1)))
            theirs.send(b"123")
            found = await read
            asyncio.get_running_loop().remove_reader(ours)
        return found

    with asyncio.Runner(loop_factory=GrpcLoop) as runner:
        assert runner.run(read_one()) == b"1"
