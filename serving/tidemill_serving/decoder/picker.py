"""The next tokens of all sequences of a step."""

import numpy as np

from tidemill_serving.decoder.chooser import Chooser, open_chooser
from tidemill_serving.decoder.devices.device import FloatArray, RemoteLogits
from tidemill_serving.decoder.numpy_chooser import TokenPick
from tidemill_serving.decoder.remote_picker import RemotePicker
from tidemill_serving.decoder.wish import Wish


class Picker:
    """Chooses where the logits are, and notes what was chosen."""

    def __init__(self) -> None:
        self._choosers: dict[int, Chooser] = {}

    def pick(self, wishes: list[Wish], logits: FloatArray | RemoteLogits) -> list[TokenPick]:
        """A token for each wish from its row of `logits` [n, V]; -1 where that is not finite.

        Raises DeviceError where the logits stay on a device that fails.
        """
        if isinstance(logits, np.ndarray):
            picks = self._chooser_for(logits.shape[1]).choose(logits, wishes)
        else:
            picks = RemotePicker(wishes, logits, self._chooser_for).pick_all()
        for wish, pick in zip(wishes, picks, strict=True):
            if wish.changes is not None and pick[0] >= 0:
                wish.count(pick[0])
        return picks

    def _chooser_for(self, vocab_size: int) -> Chooser:
        """Few lengths ever come: the vocabulary's, and a device's shortlist's."""
        if vocab_size not in self._choosers:
            self._choosers[vocab_size] = open_chooser(vocab_size)
        return self._choosers[vocab_size]
