"""Chooses tokens where the logits are on a device: from what a small graph found there, and few copies beside it."""

from collections.abc import Sequence as Rows

import numpy as np
from numpy.typing import NDArray

from tidemill_serving.decoder.devices.device import FloatArray, RemoteLogits
from tidemill_serving.decoder.picker import LOWEST_LOGPROB, pick_token
from tidemill_serving.decoder.sampler import draw_token, is_greedy
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.engine import Sampling, TokenLogprobs

WeightArray = NDArray[np.float64]
NUM_TOP = 64  # the highest of a row that are looked at; most nuclei are smaller


class RemotePicker:
    """The choices of one step. Rows that need more than the shortlist are copied as a whole, and they alone."""

    def __init__(self, sequences: Rows[Sequence], logits: RemoteLogits) -> None:
        """One run of the small graph for all rows. Raises DeviceError."""
        self._sequences, self._logits = sequences, logits
        wishes = [sequence.request.sampling for sequence in sequences]
        temperatures = np.array([1.0 if is_greedy(wish) else wish.temperature for wish in wishes], np.float32)
        is_plain = all(map(_takes_the_best, sequences))
        self._found = logits.shortlist(temperatures, 1 if is_plain else NUM_TOP)
        self.are_finite: list[bool] = np.isfinite(self._found.totals).tolist()

    def pick(self, row: int) -> tuple[int, TokenLogprobs | None]:
        """The next token of a row whose logits are finite."""
        sequence = self._sequences[row]
        sampling = sequence.request.sampling
        if sequence.logit_changes is not None:
            return self._pick_from_all(row)
        token = self._best(row) if is_greedy(sampling) else self._draw(row, sampling, sequence.generator)
        if token is None:
            return self._pick_from_all(row)
        num_logprobs = sequence.request.num_logprobs
        return token, None if num_logprobs is None else self._logprobs(row, token, num_logprobs)

    def _best(self, row: int) -> int:
        return int(self._found.tokens[row, 0])

    def _pick_from_all(self, row: int) -> tuple[int, TokenLogprobs | None]:
        return pick_token(self._sequences[row], self._logits.row(row), self._best(row))

    def _draw(self, row: int, sampling: Sampling, generator: np.random.Generator) -> int | None:
        """A token by chance; None where the shortlist does not hold all that may be drawn."""
        logits, tokens = self._found.logits[row], self._found.tokens[row]
        num_all = self._logits.vocab_size
        if 0 < sampling.top_k < num_all:
            if sampling.top_k > len(tokens):
                return None
            return int(tokens[draw_token(logits[: sampling.top_k], sampling, generator)])
        if sampling.top_p == 1.0 and sampling.min_p == 0.0:
            return self._draw_from_all(row, sampling.temperature, generator)
        weights = _weights(logits, logits[0], sampling.temperature)
        num_kept = _num_kept(weights, float(self._found.block_weights[row].sum(dtype=np.float64)), sampling)
        if num_kept is None and len(tokens) < num_all:
            return None
        reach = np.cumsum(weights[:num_kept])
        return int(tokens[_index_at(reach, generator.random() * reach[-1])])

    def _draw_from_all(self, row: int, temperature: float, generator: np.random.Generator) -> int:
        """First a block by its weight, then a token of it, for which the block alone is copied."""
        length = self._logits.block_length
        reach = np.cumsum(self._found.block_weights[row], dtype=np.float64)
        target = generator.random() * reach[-1]
        block = _index_at(reach, target)
        start, stop = block * length, min((block + 1) * length, self._logits.vocab_size)
        logits = self._logits.piece(row, start, stop)
        inside = np.cumsum(_weights(logits, self._found.logits[row, 0], temperature))
        before = reach[block - 1] if block else 0.0
        return start + _index_at(inside, target - before)

    def _logprobs(self, row: int, token: int, num_top: int) -> TokenLogprobs:
        """As `picker.logprobs_of`, of the logits before any temperature."""
        logits, tokens = self._found.logits[row], self._found.tokens[row]
        total = float(logits[0]) + float(np.log(self._found.totals[row]))
        places = np.flatnonzero(tokens == token)
        chosen = logits[places[0]] if len(places) else self._logits.piece(row, token, token + 1)[0]
        top = zip(tokens[:num_top].tolist(), logits[:num_top].tolist(), strict=True)
        return TokenLogprobs(
            chosen=max(LOWEST_LOGPROB, float(chosen) - total),
            top=tuple((each, max(LOWEST_LOGPROB, logit - total)) for each, logit in top),
        )


def _takes_the_best(sequence: Sequence) -> bool:
    return is_greedy(sequence.request.sampling) and sequence.request.num_logprobs is None


def _weights(logits: FloatArray, highest: np.float32, temperature: float) -> WeightArray:
    weights: WeightArray = np.exp((logits.astype(np.float64) - highest) / temperature)
    return weights


def _num_kept(weights: WeightArray, total: float, sampling: Sampling) -> int | None:
    """How many of the heaviest may be drawn by top-p and min-p; None: more than these. All tokens weigh `total`."""
    by_floor = int(np.count_nonzero(weights >= sampling.min_p)) if sampling.min_p > 0.0 else len(weights)
    reach = np.cumsum(weights)
    by_nucleus = int(np.searchsorted(reach, sampling.top_p * total)) + 1 if sampling.top_p < 1.0 else len(weights) + 1
    kept = min(by_floor, by_nucleus)
    is_known = by_floor < len(weights) or by_nucleus <= len(weights)
    return kept if is_known else None


def _index_at(reach: WeightArray, target: float) -> int:
    """Where running sums first exceed the target. Never a place without weight, whatever the rounding."""
    return int(np.searchsorted(reach, min(max(target, 0.0), np.nextafter(reach[-1], 0.0)), side="right"))
