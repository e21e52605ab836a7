"""A session for a `with` block."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from tidemill.async_transport import AsyncTransport
from tidemill.errors import FailedPreconditionError
from tidemill.plans import sessions
from tidemill.results import Bill, Session
from tidemill.steps import Deadline, Plan
from tidemill.transport import SyncTransport


class _Block:
    """What the block has: a session that starts with it and stops at its end, whatever happens within."""

    def __init__(self, model: str, holder: str, deadline: Callable[[], Deadline]) -> None:
        self._model = model
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
        return sessions.start(self._model, holder=self._holder, deadline=self._deadline())

    def _stop(self) -> Plan[Session]:
        return sessions.stop(self.name, "", holder=self._holder, all_holders=False, deadline=self._deadline())


class OpenSession(_Block):
    """`with client.session() as session:` starts a session and stops it at the end."""

    def __init__(self, transport: SyncTransport, model: str, holder: str, deadline: Callable[[], Deadline]) -> None:
        super().__init__(model, holder, deadline)
        self._transport = transport

    def __enter__(self) -> Self:
        self._session = self._transport.run(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = self._transport.run(self._stop())


class AsyncOpenSession(_Block):
    """`async with client.session() as session:` starts a session and stops it at the end."""

    def __init__(self, transport: AsyncTransport, model: str, holder: str, deadline: Callable[[], Deadline]) -> None:
        super().__init__(model, holder, deadline)
        self._transport = transport

    async def __aenter__(self) -> Self:
        self._session = await self._transport.run(self._start())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = await self._transport.run(self._stop())
