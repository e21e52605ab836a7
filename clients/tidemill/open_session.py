"""A session for a `with` block, which says every 20 seconds that it is alive."""

import asyncio
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tidemill.async_transport import AsyncTransport
from tidemill.errors import ConfigError, FailedPreconditionError, NotFoundError, TidemillError
from tidemill.plans import sessions
from tidemill.plans.sessions import Wanted
from tidemill.session_results import Bill, Session
from tidemill.steps import Deadline, Plan
from tidemill.transport import SyncTransport

_FIRST_SECONDS = 20.0
_TRIED_AGAIN_SECONDS = 5.0
"""After a heartbeat that did not reach the server."""
_TIMEOUT_SECONDS = 10.0


class _Block:
    """What the block has: a session that starts with it and stops at its end, whatever happens within."""

    def __init__(self, model: str, wanted: Wanted, holder: str, deadline: Callable[[], Deadline]) -> None:
        self._model = model
        self._wanted = wanted
        self._holder = holder
        self._deadline = deadline
        self._session: Session | None = None

    @property
    def session(self) -> Session:
        """The session as it was at its start, or after its end."""
        if self._session is None:
            raise FailedPreconditionError("The session starts with the `with` block.")
        return self._session

    @property
    def name(self) -> str:
        """sessions/{session}."""
        return self.session.name

    @property
    def model(self) -> str:
        """models/{model}."""
        return self.session.model

    @property
    def bill(self) -> Bill:
        """What it has cost; after the block, final unless other holders keep the session open."""
        return self.session.bill

    def __repr__(self) -> str:
        kind, found = type(self).__name__, self._session
        if found is None:
            return f"<{kind}: starts with the `with` block>"
        return f"<{kind} {found.name} of {found.model}: {found.state}>"

    def _start(self) -> Plan[Session]:
        return sessions.start(self._model, self._wanted, holder=self._holder, is_alive=True, deadline=self._deadline())

    def _stop(self) -> Plan[Session]:
        return sessions.stop(self.name, "", holder=self._holder, all_holders=False, deadline=self._deadline())

    def _beat(self) -> Plan[float | None]:
        """Say that the block is alive; return the seconds until the next time, None when nobody needs to hear it."""
        try:
            return (yield from sessions.heartbeat(self.name, holder=self._holder, deadline=Deadline(_TIMEOUT_SECONDS)))
        except (FailedPreconditionError, NotFoundError):
            return None
        except TidemillError:  # the server gives a holder up after 10 minutes only
            return _TRIED_AGAIN_SECONDS


class OpenSession(_Block):
    """`with client.session() as session:` starts a session and stops it at the end."""

    def __init__(
        self, transport: SyncTransport, model: str, wanted: Wanted, holder: str, deadline: Callable[[], Deadline]
    ) -> None:
        super().__init__(model, wanted, holder, deadline)
        self._transport = transport
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._session = self._transport.run(self._start())
        self._ended = threading.Event()
        name = f"heartbeat-{self._holder}"
        threading.Thread(target=self._keep_alive, args=(self._ended,), name=name, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._session = self._transport.run(self._stop())

    def _keep_alive(self, ended: threading.Event) -> None:
        seconds: float | None = _FIRST_SECONDS
        while seconds is not None and not ended.wait(seconds):
            try:
                seconds = self._transport.run(self._beat())
            except ConfigError:  # the client was closed
                return


class AsyncOpenSession(_Block):
    """`async with client.session() as session:` starts a session and stops it at the end."""

    def __init__(
        self, transport: AsyncTransport, model: str, wanted: Wanted, holder: str, deadline: Callable[[], Deadline]
    ) -> None:
        super().__init__(model, wanted, holder, deadline)
        self._transport = transport
        self._alive: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._session = await self._transport.run(self._start())
        self._alive = asyncio.create_task(self._keep_alive(), name=f"heartbeat-{self._holder}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._alive is not None:
            self._alive.cancel()
            await asyncio.wait({self._alive})
        self._session = await self._transport.run(self._stop())

    async def _keep_alive(self) -> None:
        seconds: float | None = _FIRST_SECONDS
        while seconds is not None:
            await asyncio.sleep(seconds)
            try:
                seconds = await self._transport.run(self._beat())
            except ConfigError:  # the client was closed
                return
