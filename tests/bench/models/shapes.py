"""The random Llama models that the benches run: their shapes, and where what is made of them lies."""

from dataclasses import dataclass
from pathlib import Path

from tests.bench.common.packages import ROOT

MODELS = ROOT / ".build" / "bench" / "models"
PRECISIONS = ("fp32", "int8-b32", "int8-b128", "int8-row", "int4-b32")
CONTEXT_LENGTH = 1024
EPSILON = 1e-6
ROTARY_BASE = 10_000.0
SPECIAL_TOKENS = ("<|pad|>", "<|begin|>", "<|end|>")


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's dimensions."""

    name: str
    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocabulary_size: int
    head_size: int = 64

    @property
    def query_width(self) -> int:
        """All query heads side by side."""
        return self.num_heads * self.head_size

    @property
    def key_width(self) -> int:
        """All key heads side by side; the values' are as wide."""
        return self.num_kv_heads * self.head_size

    @property
    def num_matrix_weights(self) -> int:
        """The weights that every decode step reads: all but the embedding, of which it reads a row."""
        attention = self.hidden * (2 * self.query_width + 2 * self.key_width)
        return self.num_layers * (attention + 3 * self.hidden * self.intermediate) + self.hidden * self.vocabulary_size

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return MODELS / self.name

    def package(self, precision: str) -> Path:
        """The model package of one precision."""
        return self.folder / f"{self.name}-{precision}"


SMALL = Shape("16m", 384, 1024, 6, 6, 2, 8_000)
LARGE = Shape("125m", 768, 2048, 12, 12, 4, 32_000)
SHAPES = {shape.name: shape for shape in (SMALL, LARGE)}
