"""How likely the tokens of an answer were, by the model alone."""

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

BYTES_OF_A_LOGPROB = 32  # about what one takes on the wire, with its token's text


@dataclass(frozen=True, slots=True)
class Candidate:
    """One token that might stand in a place, and the natural logarithm of its probability."""

    token_id: int
    text: bytes  # need not be whole characters
    logprob: float


def _unnamed(_token_id: int) -> bytes:
    return b""


class Logprobs:
    """Of each token in a stretch of an answer, and of as many of the likeliest in its place, packed.

    `text_of` gives a token's bytes.
    """

    __slots__ = ("_chosen", "_text_of", "_token_ids", "_top", "_top_ids")

    def __init__(
        self,
        token_ids: Iterable[int] = (),
        chosen: Iterable[float] = (),
        top_ids: Iterable[int] = (),
        top: Iterable[float] = (),
        text_of: Callable[[int], bytes] = _unnamed,
    ) -> None:
        self._token_ids = array("I", token_ids)
        self._chosen = array("f", chosen)
        self._top_ids = array("I", top_ids)
        self._top = array("f", top)
        self._text_of = text_of

    def __len__(self) -> int:
        """Tokens."""
        return len(self._token_ids)

    def __iter__(self) -> Iterator[tuple[Candidate, tuple[Candidate, ...]]]:
        """For each token the chosen candidate, and the likeliest ones."""
        num_top = self._num_top
        for place, token_id in enumerate(self._token_ids):
            range_of_top = range(place * num_top, (place + 1) * num_top)
            top = tuple(self._candidate(self._top_ids[each], self._top[each]) for each in range_of_top)
            yield self._candidate(token_id, self._chosen[place]), top

    @property
    def num_bytes(self) -> int:
        """About what they take on the wire."""
        return BYTES_OF_A_LOGPROB * (len(self._chosen) + len(self._top))

    def named(self, text_of: Callable[[int], bytes]) -> Self:
        """The same with another way to find the tokens' texts."""
        return type(self)(self._token_ids, self._chosen, self._top_ids, self._top, text_of)

    def extend(self, more: Self) -> None:
        """Append those of the tokens that follow."""
        self._token_ids += more._token_ids
        self._chosen += more._chosen
        self._top_ids += more._top_ids
        self._top += more._top
        self._text_of = more._text_of

    def part(self, first: int, last: int) -> Self:
        """Those of the tokens from place `first` to before `last`."""
        top = slice(first * self._num_top, last * self._num_top)
        return type(self)(
            self._token_ids[first:last], self._chosen[first:last], self._top_ids[top], self._top[top], self._text_of
        )

    @property
    def _num_top(self) -> int:
        return len(self._top) // len(self._token_ids) if self._token_ids else 0

    def _candidate(self, token_id: int, logprob: float) -> Candidate:
        return Candidate(token_id, self._text_of(token_id), logprob)
