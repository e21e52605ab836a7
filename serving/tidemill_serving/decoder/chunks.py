"""How long a piece of a prompt may be."""

SHORTEST_CHUNK = 16  # tokens; however tight the budget, a prompt moves on


class ChunkPolicy:
    """How long a piece of a prompt may be, from what runs were seen to take.

    While others decode, one decode run and one piece of a prompt together should fit into the inter-token budget.
    """

    def __init__(self, *, inter_token_budget_s: float, max_chunk_length: int) -> None:
        self._budget = inter_token_budget_s
        self._max_length = max_chunk_length
        self._decode_s = 0.0
        self._prefill_s_per_token = 0.0

    def saw_decode(self, seconds: float) -> None:
        """A decode run took this long."""
        self._decode_s = _smoothed(self._decode_s, seconds)

    def saw_prefill(self, seconds: float, num_tokens: int) -> None:
        """A piece of a prompt took this long. Short ones say nothing: their fixed cost outweighs the tokens'."""
        if num_tokens >= SHORTEST_CHUNK:
            self._prefill_s_per_token = _smoothed(self._prefill_s_per_token, seconds / num_tokens)

    @property
    def longest_chunk_s(self) -> float:
        """How long the longest piece of a prompt takes, by what was seen of shorter ones; 0 when nothing was."""
        return self._max_length * self._prefill_s_per_token

    def length(self, num_left: int, *, others_decode: bool) -> int:
        """The length of the next piece of a prompt of which `num_left` tokens are left."""
        longest = self._max_length
        if others_decode and self._prefill_s_per_token > 0:
            fitting = int((self._budget - self._decode_s) / self._prefill_s_per_token)
            longest = min(max(fitting, SHORTEST_CHUNK), self._max_length)
        if num_left <= longest:
            return num_left
        # A last piece of a single token is computed by another kernel and may differ in quantised models.
        return longest - 1 if num_left - longest == 1 else longest


def _smoothed(before: float, now: float) -> float:
    return now if before == 0.0 else 0.8 * before + 0.2 * now
