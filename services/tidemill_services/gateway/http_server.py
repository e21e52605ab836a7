"""Runs HTTP applications on the event loop of the process, without taking its signals."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from tidemill_services.domain.errors import TidemillError
from tidemill_services.gateway.http_errors import ServerFullError, error_response
from tidemill_services.gateway.http_protocol import MAX_HEAD_BYTES, HttpProtocol, head_too_large

GONE_SECONDS = 20
KEEP_ALIVE_SECONDS = 75  # longer than callers keep idle connections: none is closed under a request on its way
HANDSHAKE_SECONDS = 20.0
TICK_SECONDS = 1.0  # the exactness of the header `date`
TLS_GOODBYE_SECONDS = 1.0  # for the other side's part in closing a connection, which a killed one never does


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """What holds for each HTTP port."""

    max_connections: int  # at once; requests on those beyond are refused
    tls: ssl.SSLContext | None = None  # None: plaintext


class HttpServer:
    """One HTTP port with one application."""

    def __init__(self, application: ASGIApp, host: str, port: int, settings: HttpSettings) -> None:
        self._application = application
        self._max_connections = settings.max_connections
        self._socket = _listening_socket(host, port)
        self._server = _Server(
            uvicorn.Config(
                self._serve,
                http=HttpProtocol,
                interface="asgi3",
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=5,
            ),
            settings.tls,
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

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what is too much before the application sees it."""
        if len(self._server.server_state.connections) > self._max_connections:
            await _refuse(ServerFullError(retry_after_seconds=1), scope, receive, send)
        elif _head_bytes(scope) > MAX_HEAD_BYTES:  # it came at once, so that the parser found nothing incomplete
            await _refuse(head_too_large(), scope, receive, send)
        else:
            await self._application(scope, receive, send)

    async def stop(self) -> None:
        """Finish open requests within 5 seconds, then close the port."""
        self._server.should_exit = True
        self._server.stopping.set()
        if self._task is not None:
            await self._task
        self._socket.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._tls = tls
        self.listening = asyncio.Event()
        self.stopping = asyncio.Event()  # set with `should_exit`

    async def main_loop(self) -> None:
        """As uvicorn's, which looks ten times a second whether it shall stop; the tick renews the date that is sent."""
        while not await self.on_tick(0):
            try:
                async with asyncio.timeout(TICK_SECONDS):
                    await self.stopping.wait()
            except TimeoutError:
                continue

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's for given sockets, but with limits of time around TLS."""
        await self.lifespan.startup()
        loop = asyncio.get_running_loop()
        seconds = (HANDSHAKE_SECONDS, TLS_GOODBYE_SECONDS) if self._tls else (None, None)
        self.servers = [
            await loop.create_server(
                lambda: HttpProtocol(self.config, self.server_state, self.lifespan.state),
                sock=listening,
                ssl=self._tls,
                backlog=self.config.backlog,
                ssl_handshake_timeout=seconds[0],
                ssl_shutdown_timeout=seconds[1],
            )
            for listening in sockets or ()
        ]
        self.started = True
        self.listening.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the application, which stops all its parts in order."""
        yield


async def _refuse(error: TidemillError, scope: Scope, receive: Receive, send: Send) -> None:
    response = error_response(error)
    response.headers["connection"] = "close"
    await response(scope, receive, send)


def _head_bytes(scope: Scope) -> int:
    """Of the request line and the headers, nearly."""
    line = len(scope["raw_path"]) + len(scope["query_string"])
    return line + sum(len(name) + len(value) + len(": \r\n") for name, value in scope["headers"])


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
