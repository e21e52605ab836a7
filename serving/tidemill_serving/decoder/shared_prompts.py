"""Computes a prompt once for all sequences of a group, such as the several answers that one request asks for.

The first of a group to have its prompt in the cache keeps the logits behind it. The others copy the cache's start from
any that still decodes, and begin with the same logits: they are what each of them would have computed by itself.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.scheduler import Scheduler
from tidemill_serving.decoder.sequence import Sequence


@dataclass(frozen=True, slots=True)
class FinishedPrompt:
    """A sequence that can begin its answer once slot `source`'s start is in its own slot."""

    sequence: Sequence
    source: int
    logits: FloatArray  # [V], behind the prompt


@dataclass(slots=True)
class _Group:
    members: list[Sequence]  # whose prompts are in their slots
    logits: FloatArray


class SharedPrompts:
    """The groups that decode now."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._groups: dict[Hashable, _Group] = {}

    def finish(self, sequence: Sequence, logits: FloatArray) -> list[FinishedPrompt]:
        """A sequence's prompt is in its slot: it, and those that wait in their slots for the same prompt."""
        if sequence.request.prompt_group is None:
            return [FinishedPrompt(sequence, sequence.slot, logits)]
        waiting = [other for other in self._scheduler.prefilling if other is not sequence and _share(other, sequence)]
        together = [sequence, *waiting]
        self._forget_ended()
        group = _Group(together, logits.copy())
        self._groups[sequence.request.prompt_group] = group
        return [FinishedPrompt(each, sequence.slot, group.logits) for each in together]

    def find(self, sequence: Sequence) -> list[FinishedPrompt]:
        """The same of a sequence whose prompt is in the slot of another that decodes; empty when there is none."""
        group = self._groups.get(sequence.request.prompt_group)
        if group is None:
            return []
        for member in self._decoding(group.members):
            if _share(sequence, member):
                group.members.append(sequence)
                return [FinishedPrompt(sequence, member.slot, group.logits)]
        return []

    def _forget_ended(self) -> None:
        self._groups = {name: group for name, group in self._groups.items() if self._decoding(group.members)}

    def _decoding(self, members: Iterable[Sequence]) -> list[Sequence]:
        return [member for member in members if member in self._scheduler.decoding]


def _share(one: Sequence, other: Sequence) -> bool:
    """Whether two sequences have the same prompt. Names of groups come from outside: the tokens decide."""
    same_group = one.request.prompt_group == other.request.prompt_group
    return same_group and np.array_equal(one.prompt, other.prompt)
