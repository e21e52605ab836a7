"""The next tokens of all sequences of a step."""

import numpy as np

from tidemill_serving.decoder.chooser import Chooser, open_chooser
from tidemill_serving.decoder.devices.device import FloatArray, RemoteLogits
from tidemill_serving.decoder.numpy_chooser import Picks
from tidemill_serving.decoder.remote_picker import RemotePicker
from tidemill_serving.decoder.wish import Wish


class Picker:
    """Chooses where the logits are, and notes what was chosen."""

    def __init__(self, num_threads: int = 1) -> None:
        """`num_threads` may choose at the same time."""
        self._num_threads = num_threads
        self._choosers: dict[int, Chooser] = {}
        self._wishes: list[Wish] = []
        self._counting: list[tuple[int, Wish]] = []  # of the wishes, with their rows

    def pick(self, wishes: list[Wish], logits: FloatArray | RemoteLogits) -> Picks:
        """A token for each wish from its row of `logits` [n, V]; -1 where that is not finite.

        What belongs to a list of wishes is kept for the next step, so nobody may change it afterwards.
        Raises DeviceError where the logits stay on a device that fails.
        """
        if wishes is not self._wishes:
            self._wishes = wishes
            self._counting = [(row, wish) for row, wish in enumerate(wishes) if wish.changes is not None]
        if isinstance(logits, np.ndarray):
            picks = self._chooser_for(logits.shape[1]).choose(logits, wishes)
        else:
            picks = RemotePicker(wishes, logits, self._chooser_for).pick_all()
        for row, wish in self._counting:
            if picks.tokens[row] >= 0:
                wish.count(picks.tokens[row])
        return picks

    def _chooser_for(self, vocab_size: int) -> Chooser:
        """Few lengths ever come: the vocabulary's, and a device's shortlist's."""
        if vocab_size not in self._choosers:
            self._choosers[vocab_size] = open_chooser(vocab_size, self._num_threads)
        return self._choosers[vocab_size]
