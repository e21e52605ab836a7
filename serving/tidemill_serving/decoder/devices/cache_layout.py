"""Where in one piece of memory the keys and values of which slot are: arithmetic without any memory."""

from collections.abc import Iterator
from dataclasses import dataclass

from tidemill_serving.decoder.devices.memory import Block

GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class CacheLayout:
    """Arrays `[slots, kv heads, tokens, head size]` behind each other: key and value of each layer in turn."""

    num_layers: int
    num_slots: int
    num_kv_heads: int
    num_tokens: int  # of a slot
    head_size: int
    item_bytes: int  # of a number

    @property
    def num_arrays(self) -> int:
        """One for the keys and one for the values of each layer."""
        return 2 * self.num_layers

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.num_arrays * self._array_bytes

    @property
    def slot_bytes(self) -> int:
        """What one slot takes in all arrays together."""
        return self.num_arrays * self._slot_bytes

    def shape(self, num_rows: int) -> tuple[int, int, int, int]:
        """Of an array's view of so many slots."""
        return (num_rows, self.num_kv_heads, self.num_tokens, self.head_size)

    def views(self, base: int, slot: int) -> list[int]:
        """The addresses in each array where this slot begins; the slots behind it follow."""
        return [base + array * self._array_bytes + slot * self._slot_bytes for array in range(self.num_arrays)]

    def starts(self, base: int, slot: int, num_tokens: int) -> Iterator[Block]:
        """The first tokens of a slot: in each array a row for each head."""
        width = num_tokens * self.head_size * self.item_bytes
        for address in self.views(base, slot):
            yield Block(address, width, self.num_kv_heads, self._head_bytes)

    def num_slots_in(self, num_bytes: int) -> int:
        """How many slots this memory would hold."""
        return max(0, num_bytes // self.slot_bytes)

    @property
    def _head_bytes(self) -> int:
        return self.num_tokens * self.head_size * self.item_bytes

    @property
    def _slot_bytes(self) -> int:
        return self.num_kv_heads * self._head_bytes

    @property
    def _array_bytes(self) -> int:
        return self.num_slots * self._slot_bytes


def refusal_of_room(layout: CacheLayout, num_free_bytes: int, num_reserved_bytes: int) -> str:
    """Why the cache has no room in what is free but for a reserve; empty when it has."""
    room = num_free_bytes - num_reserved_bytes
    if layout.num_bytes <= room:
        return ""
    return (
        f"the cache of {layout.num_slots} slots of {layout.num_tokens} tokens takes {layout.num_bytes / GIB:.1f} GiB, "
        f"and {max(0, room) / GIB:.1f} GiB of the GPU's memory are left for it: {layout.num_slots_in(room)} such slots "
        "would fit; give the model fewer slots or a shorter context"
    )
