"""Reads a model's tokenizer while its graph is loaded, at a time when that leaves Python free."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from tidemill_models.package import ModelPackage
from tidemill_models.text_stream import TextStream
from tidemill_models.token_pieces import TokenPieces, read_pieces


class PiecesInReading:
    """Pieces that a thread reads once it may; whoever needs them first waits for them."""

    def __init__(
        self,
        package: ModelPackage,
        read: Callable[[ModelPackage], TokenPieces] = read_pieces,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`after` is what nobody need wait for."""
        self._package, self._read, self._after = package, read, after
        self._pieces: Future[TokenPieces] = Future()
        self._lock = threading.Lock()  # of whether it has begun
        self._has_begun = False

    def begin(self) -> None:
        """Read them from now on. Repeats are fine."""
        with self._lock:
            if not self._has_begun:
                self._has_begun = True
                threading.Thread(target=self._run, name="tidemill-tokens", daemon=True).start()

    def text_stream(self, prompt_tokens: Sequence[int]) -> TextStream:
        """A stream for the answer to a prompt. Raises what reading the tokenizer raised."""
        return self._result().text_stream(prompt_tokens)

    def vocabulary_size(self) -> int:
        """The largest token id + 1. Raises what reading the tokenizer raised."""
        return len(self._result().pieces)

    def _result(self) -> TokenPieces:
        if not self._pieces.done():
            self.begin()
        return self._pieces.result()

    def _run(self) -> None:
        try:
            self._pieces.set_result(self._read(self._package))
        except Exception as error:  # noqa: BLE001 -- whoever waits hears of it
            self._pieces.set_exception(error)
        else:
            self._after()
