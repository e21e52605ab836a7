"""The one stream of this process to one replica."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import replace

import grpc
import grpc.aio

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill.engine.v1 import engine_pb2_grpc
from tidemill_services.domain.errors import ReplicaLostError
from tidemill_services.engine_client.channel import lost_sentence, open_channel
from tidemill_services.engine_client.life import LOOK_SECONDS, Patience, SignsOfLife
from tidemill_services.engine_client.sending_cost import SendingCost
from tidemill_services.engine_client.stream import Backlog, EngineStream
from tidemill_services.engine_client.types import (
    NOBODY,
    EngineRequest,
    OnBehalf,
    ReplicaLoad,
    ReplicaPhase,
    ReplicaStats,
    ReplicaStatus,
)
from tidemill_services.engine_client.wire import (
    read_load,
    read_stats,
    read_status,
    take_next,
    write_abort,
    write_submit,
)
from tidemill_services.tls.replica_tls import ReplicaTls

_DRAIN_CALL_SECONDS = 5.0
_NO_LIFE = "it shows no life"
_NOT_OPEN = ReplicaStatus(
    ReplicaPhase.LOADING, 0.0, "The replica is not connected yet.", responsive=False, connected=False
)


class ReplicaClient:
    """Carries all generations of this process on one replica. Opened once; what was lost stays lost."""

    def __init__(
        self,
        address: str,
        token: str,
        patience: Patience | None = None,
        tls: ReplicaTls | None = None,
        cost: SendingCost | None = None,
    ) -> None:
        """`address` is host:port, or https://host:port of a replica that speaks TLS, for which `tls` is needed.

        `cost` is that of the process, which all of its clients share.
        """
        self._address = address
        self._tls = tls
        self._patience = patience or Patience()
        self._cost = cost or SendingCost()
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._status = _NOT_OPEN
        self._load = ReplicaLoad()
        self._stats = ReplicaStats()
        self._status_now: ReplicaStatus | None = None  # both together; made when it is asked for
        self._changed = asyncio.Event()  # set, and replaced, at each change of the status
        self._streams: dict[int, EngineStream] = {}
        self._backlog = Backlog()
        self._last_sequence_id = 0
        self._outgoing: deque[pb.ConnectRequest] = deque()
        self._outgoing_came = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._is_lost = False

    async def open(self) -> None:
        """Connect; returns with the replica's first status. Raises ReplicaLostError."""
        self._loop = asyncio.get_running_loop()
        self._channel = await open_channel(self._address, self._tls)
        self._stub = engine_pb2_grpc.EngineServiceStub(self._channel)
        self._call = self._stub.Connect(self._requests(), metadata=self._metadata)
        self._life = SignsOfLife(self._patience, self._loop.time())
        self._next_look = self._loop.call_later(LOOK_SECONDS, self._look_for_life)
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
    def stats(self) -> ReplicaStats:
        """What its engine has done, as it said last."""
        return self._stats

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

    def generate(self, request: EngineRequest, on_behalf: OnBehalf = NOBODY) -> EngineStream:
        """Start a generation; the stream tells what becomes of it.

        Raises ReplicaLostError when the replica is not connected or shows no life.
        """
        if not self._status.connected:
            raise ReplicaLostError(self._status.detail)
        if not self._status.responsive:
            raise ReplicaLostError(self._sentence(_NO_LIFE))
        sequence_id = self._last_sequence_id = self._last_sequence_id + 1
        message = write_submit(sequence_id, request, on_behalf)
        message.submit.gather_microseconds = self._cost.gather_microseconds
        self._send(message)
        self._cost.generation_began()
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
                yield take_next(self._outgoing)
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
                if self._is_lost:  # it came before gRPC heard that the call is cancelled
                    break
                self._life.heard(self._loop.time())
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
        self._cost.pieces_came(len(step.outputs), self._loop.time())
        streams = self._streams
        for output in step.outputs:
            stream = streams.get(output.sequence_id)
            if stream is not None:
                stream.put(output)

    def _take_status(self, message: pb.Status) -> None:
        status = read_status(message)
        self._load, self._status_now = status.load, None
        self._stats = read_stats(message.stats)
        if status.responsive:
            self._life.engine_lives()
            self._show(replace(status, load=ReplicaLoad()))
        else:
            self._life.engine_is_silent(message.silent_for.ToMilliseconds() / 1000, self._loop.time())
            self._show_no_life(replace(status, load=ReplicaLoad()))

    def _show(self, status: ReplicaStatus) -> None:
        if status != self._status:
            self._status, self._status_now = status, None
            self._changed.set()
            self._changed = asyncio.Event()

    def _look_for_life(self) -> None:
        self._next_look = self._loop.call_later(LOOK_SECONDS, self._look_for_life)
        now = self._loop.time()
        self._life.look()
        if cause := self._life.why_lost(now):
            self._lose(cause)
        elif self._life.is_silent(now) and self._status.responsive:  # until its next status says otherwise
            self._show_no_life(self._status)

    def _show_no_life(self, status: ReplicaStatus) -> None:
        """Let nothing new come here, and give up what runs; should the replica come back, its slots are free.

        What it then still says of these sequences belongs to nobody.
        """
        self._show(self._without_life(status))  # first: the places that the streams give back are not leased again
        for sequence_id, stream in tuple(self._streams.items()):
            self._send_abort(sequence_id)
            stream.fail(ReplicaLostError(self._sentence(_NO_LIFE)))

    def _without_life(self, status: ReplicaStatus) -> ReplicaStatus:
        return replace(status, responsive=False, last_life=self._status.last_life or self._life.last_life)

    def _lose(self, cause: str) -> None:
        """End everything on this connection; only the first cause counts."""
        if self._is_lost:
            return
        self._is_lost = True
        self._next_look.cancel()
        self._outgoing_came.set()
        self._call.cancel()
        self._show(replace(self._without_life(self._status), detail=self._sentence(cause), connected=False))
        for stream in tuple(self._streams.values()):
            stream.fail(ReplicaLostError(self._status.detail))

    def _sentence(self, cause: str) -> str:
        return lost_sentence(self._address, cause)


def _cause(error: grpc.aio.AioRpcError) -> str:
    if error.code() is grpc.StatusCode.UNAUTHENTICATED:
        return "it does not accept our token"
    return (error.details() or error.code().name).rstrip(".")
