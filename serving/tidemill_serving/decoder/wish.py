"""What is wished of each next token of a sequence."""

from tidemill_serving.decoder.devices.device import IntArray
from tidemill_serving.decoder.logit_changes import LogitChanges
from tidemill_serving.decoder.sampler import Chances, is_greedy
from tidemill_serving.engine import Sampling
from tidemill_serving.native.choosing import RowWish


class Wish:
    """Options, what changes the logits, and a source of chance of its own."""

    def __init__(
        self,
        sampling: Sampling,
        *,
        prompt: IntArray | None = None,
        num_logprobs: int | None = None,
        others: float = 0.0,
    ) -> None:
        """`others` is what tokens weigh that are not in the row, the highest logit of all weighing 1."""
        self.sampling, self.num_logprobs, self.others = sampling, num_logprobs, others
        self.changes = None if prompt is None else LogitChanges.of(sampling, prompt)
        self.is_greedy = is_greedy(sampling)
        self.record = RowWish(
            top_k=min(sampling.top_k, 2**62),
            num_told=-1 if num_logprobs is None else num_logprobs,
            top_p=sampling.top_p,
            others=others,
            repetition=sampling.repetition_penalty,
            temperature=0.0 if self.is_greedy else sampling.temperature,
            min_p=sampling.min_p,
        )
        self._chances = None if self.is_greedy else Chances(sampling.seed)
        if self.changes is not None:
            self.changes.write_into(self.record)

    @property
    def takes_best(self) -> bool:
        """Whether it is for nothing but the token of the highest logit."""
        return self.is_greedy and self.changes is None and self.num_logprobs is None

    def chance(self) -> float:
        """The next number from 0 to below 1; the same numbers for the same seed. 0 where nothing is drawn."""
        return 0.0 if self._chances is None else self._chances.next()

    def of_some(self, others: float) -> "Wish":
        """The same of a row of some tokens only, with the same source of chance. Neither changes nor logarithms."""
        wish = Wish(self.sampling, others=others)
        wish._chances = self._chances
        return wish

    def count(self, token: int) -> None:
        """Note a token of the answer."""
        if self.changes is not None and self.changes.count(token):
            self.changes.write_into(self.record)
