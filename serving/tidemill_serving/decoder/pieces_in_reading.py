"""Reads a model's tokenizer while its graph is loaded, which is longer, and lets Python do other things meanwhile."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from tidemill_models.package import ModelPackage
from tidemill_models.text_stream import TextStream
from tidemill_models.token_pieces import TokenPieces, read_pieces


class PiecesInReading:
    """Pieces that a thread reads from now on; whoever needs them first waits for them."""

    def __init__(
        self,
        package: ModelPackage,
        read: Callable[[ModelPackage], TokenPieces] = read_pieces,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`after` is what nobody need wait for."""
        self._package = package
        self._pieces: Future[TokenPieces] = Future()
        threading.Thread(target=self._run, args=(read, after), name="tidemill-tokens", daemon=True).start()

    def text_stream(self, prompt_tokens: Sequence[int]) -> TextStream:
        """A stream for the answer to a prompt. Raises what reading the tokenizer raised."""
        return self._pieces.result().text_stream(prompt_tokens)

    def vocabulary_size(self) -> int:
        """The largest token id + 1. Raises what reading the tokenizer raised."""
        return len(self._pieces.result().pieces)

    def _run(self, read: Callable[[ModelPackage], TokenPieces], after: Callable[[], None]) -> None:
        try:
            self._pieces.set_result(read(self._package))
        except Exception as error:  # noqa: BLE001 -- whoever waits hears of it
            self._pieces.set_exception(error)
        else:
            after()
