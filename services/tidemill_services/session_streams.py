"""The calls that sessions pay for in this process, so that none outlives its session, nor the server."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum

from tidemill_services.domain.generation import Usage
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.domain.session_use import Use
from tidemill_services.slot_waits import SlotWaits
from tidemill_services.token_funds import Reservation

NO_SESSION = ""  # what pays where the account pays by tokens: nobody is told of its calls
LAST_WORDS_SECONDS = 2.0  # for the ends of stopped streams to reach their readers


class StopReason(Enum):
    """Why a stream is ended from outside."""

    SESSION_STOPPED = "session stopped"  # and the time to finish is over
    DRAINING = "draining"  # the server stops, and the time to finish is over
    CANCELLED = "cancelled"  # its caller said so, or left it for good
    KEY_ENDED = "key ended"  # it was revoked or has expired, and no session pays
    READER_TOO_SLOW = "reader too slow"  # its buffer is full


class RunningStream:
    """One generation that waits or runs; `stop` ends it early, with its text kept.

    `before_wait` is awaited when no replica has a place for it, `before_start` when one has, once more when that did
    not take it; both may refuse it. With `on_text` what a Delta has goes there as it comes, and none is
    among its events. With `on_charge` whoever asked decides how much of an answer is charged that its tokens pay:
    it may have been made and not been read.
    """

    def __init__(
        self,
        *,
        before_wait: Callable[[], Awaitable[None]] | None = None,
        before_start: Callable[[], Awaitable[None]] | None = None,
        on_text: Callable[[str, int, Logprobs | None], None] | None = None,
        on_charge: Callable[[Reservation, Usage], None] | None = None,
    ) -> None:
        self.before_wait = before_wait
        self.before_start = before_start
        self.on_text = on_text
        self.on_charge = on_charge
        self.stopped: StopReason | None = None
        self._end: Callable[[], object] | None = None

    def on_stop(self, end: Callable[[], object]) -> None:
        """Say what ends the stream from now on; called at once when it was stopped already."""
        self._end = end
        if self.stopped:
            end()

    def stop(self, reason: StopReason) -> None:
        """End the stream; the first reason counts."""
        self.stopped = self.stopped or reason
        if self._end is not None:
            self._end()

    def let_go(self) -> None:
        """It is over: hold nothing any more of who asked for it, nor of what ran it."""
        self.before_wait = self.before_start = self.on_text = self.on_charge = self._end = None


class _Payer:
    """What one session pays for here."""

    def __init__(self) -> None:
        self.num_calls = 0
        self.streams: set[RunningStream] = set()
        self.stopped: StopReason | None = None  # streams that begin now are stopped from the start
        self.is_draining = False  # its session was stopped, and its streams may finish


class SessionStreams:
    """All calls of this process by the session that pays for them.

    A call registers in the moment in which its session was read or remembered as open. A stop that is heard of later
    finds the call here; who finds that one was heard of before calls `look`.
    """

    def __init__(self) -> None:
        self.changed = asyncio.Event()  # a stopped session's last call ended here, or there may be one that has calls
        self.used = asyncio.Event()  # there is news: a session's first call, its last one's end, a wait that is long
        self.waits = SlotWaits(self.used)
        self._payers: dict[str, _Payer] = {}
        self._of_keys: dict[str, set[RunningStream]] = {}  # those that no session pays
        self._ends: dict[str, float] = {}  # by session: its last call's, on the clock of `time.monotonic`
        self._uses: dict[str, Use] = {}
        self._num_readers = 0
        self._stopped: StopReason | None = None
        self._grace: asyncio.Timeout | None = None  # that of a drain under way
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def key_ids(self) -> frozenset[str]:
        """The keys that have streams here which no session pays."""
        return frozenset(self._of_keys)

    @property
    def session_ids(self) -> frozenset[str]:
        """The sessions that pay for something here."""
        return frozenset(self._payers.keys() - {NO_SESSION})

    def take_ends(self) -> dict[str, float]:
        """When the last calls of sessions ended since the last taking, on the clock of `time.monotonic`."""
        ends, self._ends = self._ends, {}
        return ends

    def take_uses(self) -> dict[str, Use]:
        """What ran, by session, of the generations that ended since the last taking."""
        uses, self._uses = self._uses, {}
        return uses

    def note_use(self, session_id: str, use: Use) -> None:
        """A generation has ended; it is told with the next news."""
        if session_id == NO_SESSION:
            return
        self._uses[session_id] = self._uses.get(session_id, Use()) + use

    @contextmanager
    def call(self, session_id: str) -> Iterator[None]:
        """Count a call, with all the generations in it, as paid by the session."""
        payer = self._payers.get(session_id)
        if payer is None:
            payer = self._payers[session_id] = _Payer()
            self._empty.clear()
            self.used.set()
        payer.num_calls += 1
        try:
            yield
        finally:
            payer.num_calls -= 1
            if not payer.num_calls:
                del self._payers[session_id]
                if session_id != NO_SESSION:
                    self._ends[session_id] = time.monotonic()
                self.used.set()
                if payer.is_draining:
                    self.changed.set()
            self._show_whether_empty()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Count a call that only reads what another call began, so that a drain waits for it too."""
        self._num_readers += 1
        self._empty.clear()
        try:
            yield
        finally:
            self._num_readers -= 1
            self._show_whether_empty()

    @contextmanager
    def running(self, session_id: str, stream: RunningStream) -> Iterator[RunningStream]:
        """Have a stream stopped with its session, within a call of that."""
        payer = self._payers[session_id]
        if (reason := self._stopped or payer.stopped) is not None:
            stream.stop(reason)
        payer.streams.add(stream)
        try:
            yield stream
        finally:
            payer.streams.discard(stream)

    @contextmanager
    def paid_by_tokens(self, key_id: str, stream: RunningStream) -> Iterator[None]:
        """Have a stream that no session pays stopped with its key."""
        self._of_keys.setdefault(key_id, set()).add(stream)
        try:
            yield
        finally:
            streams = self._of_keys[key_id]
            streams.discard(stream)
            if not streams:
                del self._of_keys[key_id]

    def stop_key(self, key_id: str) -> None:
        """End the streams of a key that no session pays."""
        for stream in tuple(self._of_keys.get(key_id, ())):
            stream.stop(StopReason.KEY_ENDED)

    def look(self) -> None:
        """Have whoever watches `changed` see which sessions were stopped."""
        self.changed.set()

    def drain_session(self, session_id: str) -> None:
        """Tell when the last call of a session that was stopped has ended."""
        payer = self._payers.get(session_id)
        if payer is not None:
            payer.is_draining = True

    def stop_session(self, session_id: str) -> None:
        """End the streams of a session, and those that its calls begin later."""
        payer = self._payers.get(session_id)
        if payer is not None:
            payer.stopped = StopReason.SESSION_STOPPED
            for stream in tuple(payer.streams):
                stream.stop(payer.stopped)

    def stop_all(self, reason: StopReason) -> None:
        """End all streams, and those that begin later; a drain waits only for their last words then."""
        self._stopped = reason
        if self._grace is not None and not self._grace.expired():
            self._grace.reschedule(asyncio.get_running_loop().time())
        for payer in self._payers.values():
            for stream in tuple(payer.streams):
                stream.stop(reason)

    async def drain(self, grace_seconds: float) -> None:
        """Let all calls finish; stop those that have not after the grace, and give them a moment to say so."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_seconds if self._stopped is None else 0.0) as self._grace:
                    await self._empty.wait()
                    return
        finally:
            self._grace = None
        self.stop_all(StopReason.DRAINING)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_SECONDS):
                await self._empty.wait()

    def _show_whether_empty(self) -> None:
        if not self._payers and not self._num_readers:
            self._empty.set()
