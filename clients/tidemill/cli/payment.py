"""What pays for the CLI's generations: the key's open session, else one for this command alone."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from tidemill.cli.output import bill_sentence, note
from tidemill.client import Client
from tidemill.errors import NoSessionError
from tidemill.open_session import OpenSession
from tidemill.results import Completion
from tidemill.streams import TextStream


class Payment:
    """Opens a session when the server says that nothing pays; its end stops that session and says the bill."""

    def __init__(self, client: Client, *, may_open: bool) -> None:
        self._client = client
        self._may_open = may_open
        self._open_blocks = ExitStack()
        self._session: OpenSession | None = None
        self._stream: TextStream | None = None

    @property
    def stream(self) -> TextStream:
        """The stream that the last pieces came from."""
        if self._stream is None:
            raise RuntimeError("Nothing was asked yet.")
        return self._stream

    def pieces(self, ask: Callable[[], TextStream]) -> Iterator[str]:
        """The text of what `ask` starts; asked again when a session had to be opened first."""
        self._stream = ask()
        try:
            yield from self._stream
        except NoSessionError as error:  # comes before any text
            self._open_session(error)
            self._stream = ask()
            yield from self._stream

    def whole(self, ask: Callable[[], list[Completion]]) -> list[Completion]:
        """What `ask` gives, in the same way."""
        try:
            return ask()
        except NoSessionError as error:
            self._open_session(error)
            return ask()

    def _open_session(self, error: NoSessionError) -> None:
        """Raises the error when none may be opened."""
        if not self._may_open:
            raise error
        self._close()  # one that ended by itself, while nothing was asked for long
        self._session = self._open_blocks.enter_context(self._client.session())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._open_blocks.close()
        session, self._session = self._session, None
        if session is not None:
            note(bill_sentence(session.bill))
