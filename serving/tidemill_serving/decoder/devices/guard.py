"""What every run is checked against before it reaches a graph. The same for each device.

The graph's kernels trust their input: an empty batch kills the process, a row without a token or one beyond the cache
fails its whole batch, and a token outside of the vocabulary reads someone else's memory on some devices.
"""

from dataclasses import dataclass

from tidemill_serving.decoder.devices.device import DeviceError, IntArray


@dataclass(frozen=True, slots=True)
class Room:
    """The bounds of a loaded model. Both checks raise DeviceError."""

    num_slots: int
    num_tokens: int  # of one slot
    vocab_size: int

    def check_decode(self, token_ids: IntArray, num_past: IntArray) -> None:
        """One token for each of the first slots."""
        n = len(token_ids)
        if not 1 <= n <= self.num_slots or len(num_past) != n:
            raise DeviceError(f"a batch of {n} rows; 1 to {self.num_slots} can run")
        past: list[int] = num_past.tolist()  # of few numbers that is less work than arithmetic on an array
        if min(past) < 0 or max(past) >= self.num_tokens:
            raise DeviceError(f"a row has 0 to {self.num_tokens - 1} tokens before the new one, not {max(past)}")
        self._check_tokens(token_ids)

    def check_extend(self, slot: int, token_ids: IntArray, num_past: int) -> None:
        """Some tokens for one slot."""
        if not 0 <= slot < self.num_slots:
            raise DeviceError(f"there is no slot {slot}; there are {self.num_slots}")
        if len(token_ids) == 0 or num_past < 0 or num_past + len(token_ids) > self.num_tokens:
            raise DeviceError(
                f"{len(token_ids)} tokens after {num_past} do not fit; a slot holds 1 to {self.num_tokens}"
            )
        self._check_tokens(token_ids)

    def _check_tokens(self, token_ids: IntArray) -> None:
        tokens: list[int] = token_ids.tolist()
        if min(tokens) < 0 or max(tokens) >= self.vocab_size:
            raise DeviceError(f"a token id is outside of 0 to {self.vocab_size - 1}")
