"""What the decoder engine must know of a model: its graph, its limits, its text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tidemill_models.package import ModelPackage
from tidemill_serving.decoder.pieces_in_reading import PiecesInReading
from tidemill_serving.decoder.sequence import Limits, TokenText


@dataclass(frozen=True, slots=True)
class DecoderModel:
    """What the engine must know of a model."""

    graph: Path
    limits: Limits
    open_text: Callable[[Sequence[int]], TokenText]
    """Called with a prompt; gives the stream that turns its answer's tokens into text. Raises ModelPackageError."""

    shares_prefixes: bool = False
    """Whether accounts share what was computed for prompts that begin alike."""

    @classmethod
    def from_package(cls, package: ModelPackage, pieces: PiecesInReading | None = None) -> "DecoderModel":
        """Nothing is waited for: the engine reads the graph, and `pieces` (where None, its own, from now on) text."""
        limits = Limits(package.decoder.context_length, frozenset(package.decoder.eos_token_ids))
        if pieces is None:
            pieces = PiecesInReading(package)
            pieces.begin()
        return cls(package.graph_path, limits, pieces.text_stream, package.decoder.shared_prefixes)
