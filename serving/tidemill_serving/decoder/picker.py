"""The next token of one sequence, from its row of logits: changes, choice, log-probabilities."""

import numpy as np

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.highest import find_highest, floors_of
from tidemill_serving.decoder.sampler import draw_token, heaviest, is_greedy
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.decoder.whole_rows import WholeRows
from tidemill_serving.engine import TokenLogprobs

MAX_TOP_LOGPROBS = 20
LOWEST_LOGPROB = -9999.0  # of a token that the model rules out: JSON has no minus infinity


TokenPick = tuple[int, TokenLogprobs | None]


def pick_token(sequence: Sequence, logits: FloatArray, best: int) -> TokenPick:
    """Choose from `logits` [V], whose highest is at `best` and finite; they stay as they are."""
    request, changes = sequence.request, sequence.logit_changes
    changed, token = logits, best
    if changes is not None:
        changed = logits.copy()
        changes.apply(changed)
        token = int(changed.argmax())
    if not is_greedy(request.sampling):
        token = draw_token(changed, request.sampling, sequence.generator)
    if changes is not None:
        changes.count(token)
    if request.num_logprobs is None:
        return token, None
    return token, logprobs_of(logits, token, request.num_logprobs)


def logprobs_of(logits: FloatArray, token: int, num_top: int) -> TokenLogprobs:
    """The logarithm of the softmax of `logits` [V], at a token and at the likeliest ones."""
    highest = logits.max()
    weights = logits - highest
    np.exp(weights, out=weights)
    total = float(highest) + float(np.log(weights.sum(dtype=np.float64)))
    top = heaviest(logits, num_top)[:num_top] if num_top else ()
    return TokenLogprobs(
        chosen=max(LOWEST_LOGPROB, float(logits[token]) - total),
        top=tuple((int(each), max(LOWEST_LOGPROB, float(logits[each]) - total)) for each in top),
    )


def tell_all(rows: FloatArray, tokens: list[int], nums_top: list[int], whole_rows: WholeRows) -> list[TokenLogprobs]:
    """The same of several `rows` [n, width], each at its token and at as many of the likeliest as it asks for."""
    places, most = np.arange(len(rows)), min(max(nums_top), whole_rows.vocab_size)
    maxima = whole_rows.maxima(rows)
    highest = find_highest(rows, maxima, floors_of(maxima, np.full(len(rows), max(1, most))), MAX_TOP_LOGPROBS)
    shares, _ = whole_rows.softmax(rows)
    totals = highest.logits[:, 0] - np.log(shares[places, highest.tokens[:, 0]], dtype=np.float64)
    chosen: list[float] = np.maximum(rows[places, tokens] - totals, LOWEST_LOGPROB).tolist()
    top = np.maximum(highest.logits[:, :most] - totals[:, None], LOWEST_LOGPROB).tolist()
    entries = zip(chosen, highest.tokens[:, :most].tolist(), top, nums_top, strict=True)
    return [
        TokenLogprobs(of_token, tuple(zip(likeliest[:num_top], theirs[:num_top], strict=True)))
        for of_token, likeliest, theirs, num_top in entries
    ]
