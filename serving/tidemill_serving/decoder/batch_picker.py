"""Chooses the next tokens of all sequences of a step: what many of them need is done for all of them at once.

What a row gives is the same to the bit whatever the other rows are, so that a seed gives the same text whatever else
is running. The few rows that need more than their highest logits are worked on alone, by `pick_token`.
"""

import logging
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field
from math import log

import numpy as np

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.draws import (
    Narrowing,
    WideArray,
    WideNucleus,
    draw_from_all,
    draw_from_highest,
    draw_from_nuclei,
)
from tidemill_serving.decoder.highest import Highest, find_highest, floors_of
from tidemill_serving.decoder.picker import TokenPick, pick_token, tell_all
from tidemill_serving.decoder.sampler import is_greedy
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.decoder.whole_rows import WholeRows
from tidemill_serving.engine import Sampling, TokenLogprobs

_COUNTS = (64, 256, 1024)  # of the highest that are looked for at least
_MOST = 2 * _COUNTS[-1]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Rows by what their choice takes."""

    best: list[int] = field(default_factory=list)  # the highest logit
    flat: list[int] = field(default_factory=list)  # a draw from all
    nucleus: list[int] = field(default_factory=list)  # a draw from the top-p of all
    narrow: list[int] = field(default_factory=list)  # a draw from so many of the highest, or from those above min-p


class BatchPicker:
    """The choices of one step. The logits stay as they are."""

    def __init__(self, sequences: Rows[Sequence], logits: FloatArray, whole_rows: WholeRows) -> None:
        """`logits` are [n, V]."""
        self._sequences, self._logits, self._whole_rows = sequences, logits, whole_rows
        best = logits.argmax(axis=1)  # of a row with a NaN, its place
        # As lists: Python reads numbers out of arrays ten times more slowly.
        self.are_finite: list[bool] = np.isfinite(logits[np.arange(len(best)), best]).tolist()
        self._best: list[int] = best.tolist()
        self._tokens: dict[int, int] = {}
        self._logprobs: dict[int, TokenLogprobs] = {}
        wishing = [row for row, sequence in enumerate(sequences) if not sequence.takes_best and self.are_finite[row]]
        if wishing:
            self._serve(wishing)

    def pick(self, row: int) -> TokenPick:
        """The next token of a row whose logits are finite."""
        sequence = self._sequences[row]
        if sequence.takes_best:
            return self._best[row], None
        token = self._tokens.get(row)
        if token is None:
            return pick_token(sequence, self._logits[row], self._best[row])
        if sequence.logit_changes is not None:
            sequence.logit_changes.count(token)
        return token, self._logprobs.get(row)

    def _serve(self, rows: list[int]) -> None:
        try:
            self._choose(self._by_kind(rows))
            told = [
                row for row in rows if self._sequences[row].request.num_logprobs is not None and row in self._tokens
            ]
            if told:
                counts = [self._sequences[row].request.num_logprobs or 0 for row in told]
                found = tell_all(self._raw(told), [self._tokens[row] for row in told], counts, self._whole_rows)
                self._logprobs.update(zip(told, found, strict=True))
        except Exception:  # each is worked on alone then, so that one's trouble is not its neighbours'
            _logger.exception("the choices of %d rows cannot be made together", len(rows))
            self._tokens.clear()

    def _by_kind(self, rows: list[int]) -> _Kinds:
        kinds = _Kinds()
        for row in rows:
            sampling = self._sampling(row)
            if is_greedy(sampling):
                kinds.best.append(row)
            elif limit := self._limit(sampling):
                if limit <= _COUNTS[-1]:
                    kinds.narrow.append(row)
            elif sampling.top_p < 1.0:
                kinds.nucleus.append(row)
            elif sampling.min_p > 0.0:
                kinds.narrow.append(row)
            else:
                kinds.flat.append(row)
        return kinds

    def _choose(self, kinds: _Kinds) -> None:
        """Note the tokens of all rows but those that must be worked on alone."""
        if kinds.best:
            self._take_best(kinds.best)
        if kinds.narrow:
            self._draw_narrow(kinds.narrow)
        if not kinds.flat and not kinds.nucleus:
            return
        rows = [*kinds.flat, *kinds.nucleus]
        filled = self._copies(rows, [1.0 / self._sampling(row).temperature for row in rows])
        shares, sums = self._whole_rows.softmax(filled)
        num_flat = len(kinds.flat)
        if kinds.flat:
            tokens = draw_from_all(shares, sums, np.arange(num_flat), self._chances(kinds.flat))
            self._note(kinds.flat, tokens.tolist())
        if kinds.nucleus:
            self._draw_from_nuclei(kinds.nucleus, filled[num_flat:], shares[num_flat:], sums[num_flat:])

    def _take_best(self, rows: list[int]) -> None:
        for row in rows:
            changes = self._sequences[row].logit_changes
            if changes is None:
                self._tokens[row] = self._best[row]
            else:
                changed = self._whole_rows.room(1)[0, : self._whole_rows.vocab_size]  # one for all, so that it is near
                changed[:] = self._logits[row]
                changes.apply(changed)
                self._tokens[row] = int(changed.argmax())

    def _draw_narrow(self, rows: list[int]) -> None:
        """Temperatures do not change who is among the highest: only these are scaled."""
        factors = np.array([1.0 / self._sampling(row).temperature for row in rows], np.float32)
        found = self._highest(rows, self._changed(rows), factors)
        highest = Highest(found.logits * factors[:, None], found.tokens, found.floors * factors)
        tokens, are_inside = draw_from_highest(highest, self._narrowing(rows, np.ones(len(rows))), self._chances(rows))
        inside = np.flatnonzero(are_inside)
        self._note([rows[place] for place in inside.tolist()], tokens[inside].tolist())

    def _draw_from_nuclei(self, rows: list[int], filled: FloatArray, shares: FloatArray, sums: FloatArray) -> None:
        highest = self._highest(rows, filled, np.ones(len(rows), np.float32))
        best = highest.tokens[:, 0]
        of_best = shares[np.arange(len(rows)), best]
        options = self._narrowing(rows, sums.sum(axis=1, dtype=np.float64) / of_best)
        drawn, are_inside = draw_from_highest(highest, options, self._chances(rows))
        self._note(rows, drawn.tolist())
        wide = np.flatnonzero(~are_inside).tolist()
        if wide:
            surely = np.exp(highest.floors - highest.logits[:, 0]) * of_best
            nuclei = [self._wide_nucleus(rows[place], place, surely[place], best[place]) for place in wide]
            self._note([rows[place] for place in wide], draw_from_nuclei(shares, sums, nuclei))

    def _wide_nucleus(self, row: int, place: int, surely: np.float32, best: np.int64) -> WideNucleus:
        sampling, generator = self._sampling(row), self._sequences[row].generator
        return WideNucleus(place, sampling.top_p, sampling.min_p, float(surely), int(best), generator)

    def _highest(self, rows: list[int], filled: FloatArray, factors: FloatArray) -> Highest:
        """The highest of `filled`; `factors` are what they are multiplied with later."""
        maxima = self._whole_rows.maxima(filled)
        limits = [self._limit(self._sampling(row)) for row in rows]
        floors = floors_of(maxima, np.array([next(each for each in _COUNTS if each >= limit) for limit in limits]))
        for place, (row, limit) in enumerate(zip(rows, limits, strict=True)):
            min_p = self._sampling(row).min_p
            if min_p > 0.0 and not limit:
                top = float(maxima[place].max())
                margin = 1e-3 + 1e-6 * abs(top)  # more than the rounding
                floors[place] = max(floors[place], top + (log(min_p) - margin) / factors[place])
        return find_highest(filled, maxima, floors, _MOST)

    def _narrowing(self, rows: list[int], totals: WideArray) -> Narrowing:
        samplings = [self._sampling(row) for row in rows]
        return Narrowing(
            top_k=np.array([self._limit(sampling) for sampling in samplings]),
            top_p=np.array([sampling.top_p for sampling in samplings]),
            min_p=np.array([sampling.min_p for sampling in samplings], np.float32),
            totals=totals,
        )

    def _copies(self, rows: list[int], factors: list[float]) -> FloatArray:
        """Rows [n, width] with their changes, and then multiplied by their factor."""
        filled = self._whole_rows.room(len(rows))
        for place, (row, factor) in enumerate(zip(rows, factors, strict=True)):
            copy, changes = filled[place, : self._whole_rows.vocab_size], self._sequences[row].logit_changes
            if changes is None:
                np.multiply(self._logits[row], np.float32(factor), out=copy)
                continue
            copy[:] = self._logits[row]
            changes.apply(copy)
            if factor != 1.0:
                copy *= np.float32(factor)
        return filled

    def _raw(self, rows: list[int]) -> FloatArray:
        """The model's own logits [n, width]: copies only where they do not lie as they must."""
        if len(rows) == len(self._logits) and self._logits.shape[1] == self._whole_rows.width:
            return np.ascontiguousarray(self._logits)
        filled = self._whole_rows.room(len(rows))
        for place, row in enumerate(rows):
            filled[place, : self._whole_rows.vocab_size] = self._logits[row]
        return filled

    def _changed(self, rows: list[int]) -> FloatArray:
        """The same with their changes."""
        if all(self._sequences[row].logit_changes is None for row in rows):
            return self._raw(rows)
        return self._copies(rows, [1.0] * len(rows))

    def _note(self, rows: list[int], tokens: list[int]) -> None:
        self._tokens.update(zip(rows, tokens, strict=True))

    def _sampling(self, row: int) -> Sampling:
        return self._sequences[row].request.sampling

    def _limit(self, sampling: Sampling) -> int:
        """Top-k where it leaves anything out, else 0."""
        return sampling.top_k if sampling.top_k < self._whole_rows.vocab_size else 0

    def _chances(self, rows: list[int]) -> WideArray:
        return np.array([self._sequences[row].generator.random() for row in rows])
