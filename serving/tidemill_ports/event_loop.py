"""The event loop of every process of ours that serves gRPC: uvloop's, with another way of hearing from gRPC.

grpc.aio's poller writes a byte to a socket for each operation that has ended, and its reader in the loop takes one byte
and then all operations that have ended. The other bytes then wake the loop once each, for nothing: a message cost two
system calls and a turn of the loop more than it must. Here all bytes that are there are taken at once.
"""

import asyncio
import functools
import socket
from collections.abc import Callable
from typing import Any, TypeVarTuple

import uvloop
from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no types

Arguments = TypeVarTuple("Arguments")

_MOST_BYTES = 4096  # what is beyond them wakes the loop again


class _DrainedSocket(socket.socket):
    """A socket that gives all it has, however little is asked for."""

    __slots__ = ()

    def recv(self, _bufsize: int, flags: int = 0, /) -> bytes:
        """What is there. Each byte was written after its operation was queued, so none of these is missed."""
        return super().recv(_MOST_BYTES, flags)


class GrpcLoop(uvloop.Loop):
    """As `uvloop.Loop`, and hears of many operations of gRPC at once."""

    def add_reader(self, fd: Any, callback: Callable[[*Arguments], Any], *args: *Arguments) -> None:
        """See the base class; gRPC asks for this when its first server or channel is made."""
        if type(fd) is socket.socket and _is_grpc(callback):
            fd.__class__ = _DrainedSocket
        super().add_reader(fd, callback, *args)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """For `asyncio.Runner`."""
    return GrpcLoop()


def _is_grpc(callback: Callable[..., Any]) -> bool:
    inner = callback.func if isinstance(callback, functools.partial) else callback
    return isinstance(getattr(inner, "__self__", None), cygrpc.PollerCompletionQueue)
