"""The models of the bench on a GPU, and what is asked of them. Needs no library."""

from dataclasses import dataclass

BATCHES = (1, 8, 32)
PREFILL_LENGTH = 512
PROMPT_LENGTH = 64  # of those that decode
CONTEXT_LENGTH = 2048
PRECISIONS = ("fp16", "int4")


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's dimensions, as `LlamaConfig` names them."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int
    head_dim: int

    @property
    def num_read_weights(self) -> int:
        """What a decode step reads: all but the embedding, of which it reads a row."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        attention = self.hidden_size * (2 * queries + 2 * keys)
        layer = attention + 3 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * layer + self.hidden_size * self.vocab_size


SHAPES = {
    "1b": Shape(2048, 8192, 16, 32, 8, 128_256, 64),
    "8b": Shape(4096, 14_336, 32, 32, 8, 128_256, 128),
    "tiny": Shape(64, 128, 2, 4, 2, 512, 16),  # to try the bench out
}
BYTES_OF_A_WEIGHT = {"fp16": 2.0, "int4": 0.5 + 2 / 32}  # with a scale in 16 bits for 32 of them
