"""Chooses tokens where the logits are on a device: from what a small graph found there, and few copies beside it."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.chooser import Chooser
from tidemill_serving.decoder.devices.device import FloatArray, RemoteLogits
from tidemill_serving.decoder.numpy_chooser import LOWEST_LOGPROB, Picks
from tidemill_serving.decoder.wish import Wish
from tidemill_serving.engine import TokenLogprobs

WeightArray = NDArray[np.float64]
NUM_TOP = 64  # the highest of a row that are looked at; most nuclei are smaller


class RemotePicker:
    """The choices of one step. Rows that need more than the shortlist are copied as a whole, and they alone."""

    def __init__(self, wishes: list[Wish], logits: RemoteLogits, chooser_for: Callable[[int], Chooser]) -> None:
        """One run of the small graph for all rows. `chooser_for` gives one for rows of a length. Raises DeviceError."""
        self._wishes, self._logits, self._chooser_for = wishes, logits, chooser_for
        temperatures = [1.0 if wish.is_greedy else wish.sampling.temperature for wish in wishes]
        num_top = 1 if all(wish.takes_best for wish in wishes) else NUM_TOP
        self._found = logits.shortlist(np.array(temperatures, np.float32), num_top)
        self._are_finite: list[bool] = np.isfinite(self._found.totals).tolist()

    def pick_all(self) -> Picks:
        """The next token of each row; -1 where its logits are not finite. Raises DeviceError."""
        picks = Picks([], {})
        for row, wish in enumerate(self._wishes):
            token, told = self._pick(row, wish)
            picks.tokens.append(token)
            if told is not None:
                picks.told[row] = told
        return picks

    def _pick(self, row: int, wish: Wish) -> tuple[int, TokenLogprobs | None]:
        if not self._are_finite[row]:
            return -1, None
        if wish.changes is not None or not (wish.is_greedy or self._is_enough(row, wish)):
            chosen = self._chooser_for(self._logits.vocab_size).choose(self._logits.row(row)[None], [wish])
            return chosen.tokens[0], chosen.told.get(0)
        token = int(self._found.tokens[row, 0]) if wish.is_greedy else self._draw(row, wish)
        return token, None if wish.num_logprobs is None else self._logprobs(row, token, wish.num_logprobs)

    def _is_enough(self, row: int, wish: Wish) -> bool:
        """Whether the shortlist holds all that may be drawn, or its blocks lead to one of all."""
        sampling, num_known, num_all = wish.sampling, len(self._found.tokens[row]), self._logits.vocab_size
        if num_known == num_all or _counts_all(wish, num_all):
            return True
        if 0 < sampling.top_k < num_all:
            return sampling.top_k <= num_known
        weights = self._known_weights(row, wish)
        return bool(weights[-1] < sampling.min_p) or (
            sampling.top_p < 1.0 and float(weights.sum()) >= sampling.top_p * self._total(row)
        )

    def _draw(self, row: int, wish: Wish) -> int:
        if _counts_all(wish, self._logits.vocab_size):
            return self._draw_from_all(row, wish)
        order = np.argsort(self._found.tokens[row])
        logits, tokens = self._found.logits[row, order], self._found.tokens[row, order]
        others = max(0.0, self._total(row) - float(self._known_weights(row, wish).sum()))
        is_limited = 0 < wish.sampling.top_k < self._logits.vocab_size
        narrow = wish.of_some(0.0 if is_limited else others)
        place = self._chooser_for(len(logits)).choose(logits[None], [narrow]).tokens[0]
        return int(tokens[place])

    def _total(self, row: int) -> float:
        return float(self._found.block_weights[row].sum(dtype=np.float64))

    def _known_weights(self, row: int, wish: Wish) -> WeightArray:
        return _weights(self._found.logits[row], self._found.logits[row, 0], wish.sampling.temperature)

    def _draw_from_all(self, row: int, wish: Wish) -> int:
        """First a block by its weight, then a token of it, for which the block alone is copied."""
        length = self._logits.block_length
        reach = np.cumsum(self._found.block_weights[row], dtype=np.float64)
        target = wish.chance() * reach[-1]
        block = _index_at(reach, target)
        start, stop = block * length, min((block + 1) * length, self._logits.vocab_size)
        logits = self._logits.piece(row, start, stop)
        inside = np.cumsum(_weights(logits, self._found.logits[row, 0], wish.sampling.temperature))
        before = reach[block - 1] if block else 0.0
        return start + _index_at(inside, target - before)

    def _logprobs(self, row: int, token: int, num_top: int) -> TokenLogprobs:
        """As `logprobs_of`, of the logits before any temperature."""
        logits, tokens = self._found.logits[row], self._found.tokens[row]
        total = float(logits[0]) + float(np.log(self._found.totals[row]))
        places = np.flatnonzero(tokens == token)
        chosen = logits[places[0]] if len(places) else self._logits.piece(row, token, token + 1)[0]
        top = zip(tokens[:num_top].tolist(), logits[:num_top].tolist(), strict=True)
        return TokenLogprobs(
            chosen=max(LOWEST_LOGPROB, float(chosen) - total),
            top=tuple((each, max(LOWEST_LOGPROB, logit - total)) for each, logit in top),
        )


def _counts_all(wish: Wish, vocab_size: int) -> bool:
    """Whether any token may be drawn."""
    sampling = wish.sampling
    return sampling.top_p == 1.0 and sampling.min_p == 0.0 and not 0 < sampling.top_k < vocab_size


def _weights(logits: FloatArray, highest: np.float32, temperature: float) -> WeightArray:
    weights: WeightArray = np.exp((logits.astype(np.float64) - highest) / temperature)
    return weights


def _index_at(reach: WeightArray, target: float) -> int:
    """Where running sums first exceed the target. Never a place without weight, whatever the rounding."""
    return int(np.searchsorted(reach, min(max(target, 0.0), np.nextafter(reach[-1], 0.0)), side="right"))
