"""The one stream of this process to one replica."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import grpc
import grpc.aio

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill.engine.v1 import engine_pb2_grpc
from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.engine_client.stream import Backlog, EngineStream
from tidemill_services.engine_client.types import (
    NO_LIFE_SECONDS,
    EngineRequest,
    ReplicaLoad,
    ReplicaPhase,
    ReplicaStatus,
)
from tidemill_services.engine_client.wire import read_load, read_status, write_abort, write_submit
from tidemill_services.tls.replica_tls import REPLICA_NAME, ReplicaTls

_CHECK_SECONDS = 0.5
_DRAIN_CALL_SECONDS = 5.0
_MAX_MESSAGE_BYTES = 32 << 20  # the replica's side has the same limit
_PLAIN_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),  # a client never shares the connection of an earlier one
)
# Replicas come and go with their addresses, so that all are known by one name.
_TLS_OPTIONS = (*_PLAIN_OPTIONS, ("grpc.ssl_target_name_override", REPLICA_NAME))
_NOT_OPEN = ReplicaStatus(
    ReplicaPhase.LOADING, 0.0, "The replica is not connected yet.", responsive=False, connected=False
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a client bears a replica that shows no life, in seconds."""

    open: float = 10.0  # until its first status; it opens its port first of all, so this is ample
    stale: float = NO_LIFE_SECONDS  # it says something every second; then it counts as not responsive
    silence: float = 15.0  # then it is lost
    unresponsive: float = 60.0  # the same of one that speaks, and whose engine shows no life


class ReplicaClient:
    """Carries all generations of this process on one replica. Opened once; what was lost stays lost."""

    def __init__(
        self, address: str, token: str, patience: Patience | None = None, tls: ReplicaTls | None = None
    ) -> None:
        """`address` is host:port, or https://host:port of a replica that speaks TLS, for which `tls` is needed."""
        self._address = address
        self._tls = tls
        self._patience = patience or Patience()
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._status = _NOT_OPEN
        self._load = ReplicaLoad()
        self._status_now: ReplicaStatus | None = None  # both together; made when it is asked for
        self._changed = asyncio.Event()  # set, and replaced, at each change of the status
        self._streams: dict[int, EngineStream] = {}
        self._backlog = Backlog()
        self._last_sequence_id = 0
        self._outgoing: deque[pb.ConnectRequest] = deque()
        self._outgoing_came = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_lost = False
        self._heard_at = 0.0
        self._checked_at = 0.0
        self._unresponsive_since: float | None = None

    async def open(self) -> None:
        """Connect; returns with the replica's first status. Raises ReplicaLostError."""
        self._loop = asyncio.get_running_loop()
        self._channel = await self._open_channel()
        self._stub = engine_pb2_grpc.EngineServiceStub(self._channel)
        self._call = self._stub.Connect(self._requests(), metadata=self._metadata)
        self._heard_at = self._checked_at = self._loop.time()
        self._check = self._loop.call_later(_CHECK_SECONDS, self._check_signs_of_life)
        self._reader = asyncio.create_task(self._read(), name=f"replica-{self._address}")
        first_status = self._changed
        try:
            async with asyncio.timeout(self._patience.open):
                await first_status.wait()
        except TimeoutError:
            self._lose(f"it said nothing for {self._patience.open:g} s")
        except asyncio.CancelledError:
            await self.close()
            raise
        if self._is_lost:
            await self.close()
            raise ReplicaLostError(self._status.detail)

    async def _open_channel(self) -> grpc.aio.Channel:
        scheme, _, place = self._address.rpartition("://")
        if not scheme:
            return grpc.aio.insecure_channel(place, options=_PLAIN_OPTIONS)
        if self._tls is None:
            raise ReplicaLostError(self._sentence("it speaks TLS, and TIDEMILL_REPLICA_TLS_CA is not set here"))
        try:
            credentials = await asyncio.to_thread(self._tls.read_credentials)
        except OSError as error:
            raise ReplicaLostError(self._sentence(f"our certificate for it cannot be read: {error}")) from error
        return grpc.aio.secure_channel(place, credentials, options=_TLS_OPTIONS)

    async def close(self) -> None:
        """End the stream, and with it what runs on it; fine twice, and when it was never opened."""
        if self._reader is None:
            return
        self._lose("the connection was closed")
        await asyncio.wait({self._reader})
        await self._channel.close()

    @property
    def status(self) -> ReplicaStatus:
        """How the replica is, with the newest load."""
        if self._status_now is None:
            self._status_now = replace(self._status, load=self._load)
        return self._status_now

    @property
    def num_streams(self) -> int:
        """Generations of this process that run there, or wait to be rejected."""
        return len(self._streams)

    @property
    def num_buffered_bytes(self) -> int:
        """What came from there and was not read yet, also of generations that have ended."""
        return self._backlog.num_bytes

    async def statuses(self) -> AsyncIterator[ReplicaStatus]:
        """Yield the status now, and again when it changed (load apart); the last one is not `connected`.

        A slow reader sees the newest only.
        """
        while True:
            changed, status = self._changed, self.status
            yield status
            if not status.connected:
                return
            await changed.wait()

    def generate(self, request: EngineRequest) -> EngineStream:
        """Start a generation. Raises ReplicaLostError when the replica is not connected; the stream tells the rest."""
        if not self._status.connected:
            raise ReplicaLostError(self._status.detail)
        sequence_id = self._last_sequence_id = self._last_sequence_id + 1
        self._send(write_submit(sequence_id, request))
        stream = self._streams[sequence_id] = EngineStream(sequence_id, self._send_abort, self._forget, self._backlog)
        return stream

    async def drain(self, grace_seconds: float) -> None:
        """Have the replica finish what runs, for at most `grace_seconds`, and end. Raises ReplicaLostError."""
        if not self._status.connected:
            raise ReplicaLostError(self._status.detail)
        request = pb.DrainRequest()
        request.grace.FromMilliseconds(round(grace_seconds * 1000))
        try:
            await self._stub.Drain(request, metadata=self._metadata, timeout=_DRAIN_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise ReplicaLostError(self._sentence(_cause(error))) from error

    async def _requests(self) -> AsyncIterator[pb.ConnectRequest]:
        """What gRPC sends for us, in order."""
        while not self._is_lost:
            while self._outgoing:
                yield self._outgoing.popleft()
            self._outgoing_came.clear()
            await self._outgoing_came.wait()

    def _send(self, message: pb.ConnectRequest) -> None:
        self._outgoing.append(message)
        self._outgoing_came.set()

    def _send_abort(self, sequence_id: int) -> None:
        self._send(write_abort(sequence_id))

    def _forget(self, sequence_id: int) -> None:
        self._streams.pop(sequence_id, None)

    async def _read(self) -> None:
        """The one task that reads, for all streams."""
        cause = "it ended the connection"
        try:
            async for response in self._call:
                self._heard_at = self._loop.time()
                if response.HasField("step"):
                    self._take_step(response.step)
                else:
                    self._take_status(response.status)
        except grpc.aio.AioRpcError as error:
            cause = _cause(error)
        except asyncio.CancelledError:
            cause = "the connection was closed"  # by us, in `_lose`: nothing else cancels this call
        finally:
            self._lose(cause)

    def _take_step(self, step: pb.Step) -> None:
        self._load, self._status_now = read_load(step.load), None
        streams = self._streams
        for output in step.outputs:
            stream = streams.get(output.sequence_id)
            if stream is not None:
                stream.put(output)

    def _take_status(self, message: pb.Status) -> None:
        status = read_status(message)
        self._load, self._status_now = status.load, None
        if status.responsive:
            self._unresponsive_since = None
        elif self._unresponsive_since is None:
            self._unresponsive_since = self._heard_at
        self._show(replace(status, load=ReplicaLoad()))

    def _show(self, status: ReplicaStatus) -> None:
        if status != self._status:
            self._status, self._status_now = status, None
            self._changed.set()
            self._changed = asyncio.Event()

    def _check_signs_of_life(self) -> None:
        now = self._loop.time()
        if now - self._checked_at > 2 * _CHECK_SECONDS + 1.0:
            self._heard_at = now  # we stood still ourselves; what it said meanwhile is not read yet
        self._checked_at = now
        self._check = self._loop.call_later(_CHECK_SECONDS, self._check_signs_of_life)
        patience = self._patience
        silence = now - self._heard_at
        if silence > patience.silence:
            self._lose(f"it said nothing for {patience.silence:g} s")
        elif silence > patience.stale and self._status.responsive:  # until its next status says otherwise
            self._show(replace(self._status, responsive=False))
        elif self._unresponsive_since is not None and now - self._unresponsive_since > patience.unresponsive:
            self._lose(f"its engine showed no life for {patience.unresponsive:g} s")

    def _lose(self, cause: str) -> None:
        """End everything on this connection; only the first cause counts."""
        if self._is_lost:
            return
        self._is_lost = True
        self._check.cancel()
        self._outgoing_came.set()
        self._call.cancel()
        self._show(replace(self._status, detail=self._sentence(cause), responsive=False, connected=False))
        for stream in tuple(self._streams.values()):
            stream.fail(ReplicaLostError(self._status.detail))

    def _sentence(self, cause: str) -> str:
        return f"The replica at {self._address} was lost: {cause}. Try again."


def _cause(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return "it does not accept our token"
    return (error.details() or error.code().name).rstrip(".")
