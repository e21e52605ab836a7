"""The next token of one sequence, from its row of logits: changes, choice, log-probabilities."""

import numpy as np

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.sampler import draw_token, heaviest, is_greedy
from tidemill_serving.decoder.sequence import Sequence
from tidemill_serving.engine import TokenLogprobs

MAX_TOP_LOGPROBS = 20
LOWEST_LOGPROB = -9999.0  # of a token that the model rules out: JSON has no minus infinity


def pick_token(sequence: Sequence, logits: FloatArray, best: int) -> tuple[int, TokenLogprobs | None]:
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
