"""All that making an answer's text takes of a tokenizer: the bytes of each token. It can be kept, and read in no time.

A tokenizer of 32,000 tokens takes a fifth of a second to read, and its pieces a hundredth of one.
"""

import hashlib
import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from tidemill_models.package import ModelPackage
from tidemill_models.text_stream import TextStream

_DIGEST_BYTES = 32
_LENGTH = "I"


@dataclass(frozen=True, slots=True)
class TokenPieces:
    """What each token stands for in an answer. Says always the same, so several threads may use it at once."""

    pieces: list[bytes]  # by token id
    strips_leading_space: bool
    control_token_ids: frozenset[int]
    _texts: dict[int, str] = field(default_factory=dict, init=False, compare=False)  # what streams have looked up

    def text_stream(self, prompt_tokens: Sequence[int] = ()) -> TextStream:
        """A stream for the answer to a prompt.

        Where the decoder drops the space at the start of a text (SentencePiece's), it does so for an answer that
        begins anew, at an empty prompt or after a control token; the text that goes on from a prompt keeps it.
        """
        starts_anew = not prompt_tokens or prompt_tokens[-1] in self.control_token_ids
        strips = self.strips_leading_space and starts_anew
        return TextStream(self.pieces, strips_leading_space=strips, texts=self._texts)

    def to_bytes(self) -> bytes:
        """For `from_bytes` on this machine: a digest, a line that says what follows, all lengths, all pieces."""
        header = [len(self.pieces), self.strips_leading_space, sorted(self.control_token_ids)]
        lengths = array(_LENGTH, map(len, self.pieces)).tobytes()
        content = b"".join([json.dumps(header).encode(), b"\n", lengths, *self.pieces])
        return hashlib.sha256(content).digest() + content

    @classmethod
    def from_bytes(cls, kept: bytes) -> "TokenPieces":
        """Raises ValueError where these are not, to the bit, the bytes that `to_bytes` gave."""
        content = kept[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != kept[:_DIGEST_BYTES]:
            raise ValueError("its digest is another one")
        header, _, rest = content.partition(b"\n")
        num_pieces, strips_leading_space, control_token_ids = json.loads(header)
        lengths = array(_LENGTH)
        lengths.frombytes(rest[: num_pieces * lengths.itemsize])
        bounds = accumulate(lengths, initial=num_pieces * lengths.itemsize)
        pieces = [rest[start:end] for start, end in pairwise(bounds)]
        return cls(pieces, strips_leading_space, frozenset(control_token_ids))


def read_pieces(package: ModelPackage) -> TokenPieces:
    """Those of the package's tokenizer. Raises ModelPackageError."""
    from tidemill_models.tokenizer import Tokenizer  # noqa: PLC0415 -- whoever has kept pieces needs it never

    return Tokenizer.from_file(package.tokenizer_path).pieces
