"""Runs HTTP applications on the event loop of the process, without taking its signals."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

GONE_SECONDS = 20
KEEP_ALIVE_SECONDS = 75  # longer than callers keep idle connections: none is closed under a request on its way


class HttpServer:
    """One HTTP port with one application."""

    def __init__(self, application: ASGIApp, host: str, port: int) -> None:
        self._socket = _listening_socket(host, port)
        self._server = _Server(
            uvicorn.Config(
                application,
                http=_Protocol,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=5,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """`host:port` that it listens on."""
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def start(self) -> None:
        """Answer from now on. Raises what keeps it from that."""
        self._task = asyncio.create_task(self._server.serve([self._socket]), name="http-server")
        listening = asyncio.create_task(self._server.listening.wait(), name="http-server-listening")
        await asyncio.wait({self._task, listening}, return_when=asyncio.FIRST_COMPLETED)
        listening.cancel()
        if self._task.done():
            self._socket.close()
            self._task.result()

    async def stop(self) -> None:
        """Finish open requests within 5 seconds, then close the port."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._socket.close()


class _Protocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and send nothing more of an answer that the application may be making.

        The request's head can have been right. uvicorn alone would log both ends of that as faults of ours.
        """
        try:
            super().send_400_response(msg)
        except h11.LocalProtocolError:  # an answer has begun, or may have no body
            self.transport.close()
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the application, which stops all its parts in order."""
        yield


def _notice_who_is_gone(listening: socket.socket) -> None:
    """Cut connections, which inherit this, to whoever neither reads nor answers for 20 seconds, where Linux can."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_SECONDS * 1000)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, GONE_SECONDS // 2)
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, GONE_SECONDS // 4)


def _listening_socket(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _notice_who_is_gone(listening)
    try:
        listening.bind(address)
        listening.listen()  # at once: two sockets may be bound to one port, and only the second's listening would fail
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening
