"""Computes a prompt once for all sequences of a group, such as the several answers that one request asks for.

The first of a group to have its prompt in the cache leaves the logits behind it here. The others copy the cache's start
from any that still decodes, and begin with the same logits: they are what each of them would have computed by itself.
"""

from collections.abc import Hashable
from dataclasses import dataclass

from tidemill_serving.decoder.devices.device import FloatArray
from tidemill_serving.decoder.scheduler import Scheduler
from tidemill_serving.decoder.sequence import Sequence


@dataclass(frozen=True, slots=True)
class SharedPrompt:
    """A prompt that is in the cache."""

    slot: int  # at whose start it is
    logits: FloatArray  # [V], behind it


@dataclass(frozen=True, slots=True)
class _Group:
    members: list[Sequence]  # whose prompts are, or were, in their slots
    logits: FloatArray


class SharedPrompts:
    """The groups that decode now."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._groups: dict[Hashable, _Group] = {}

    def add(self, sequence: Sequence, logits: FloatArray) -> None:
        """A sequence's prompt is in its slot."""
        if sequence.request.prompt_group is not None:
            self._groups = {name: group for name, group in self._groups.items() if self._decoding(group)}
            group = self._groups.setdefault(_name(sequence), _Group([], logits.copy()))
            group.members.append(sequence)

    def find(self, sequence: Sequence) -> SharedPrompt | None:
        """Where the prompt of a sequence is; None when it must be computed."""
        if sequence.request.prompt_group is None:
            return None
        group = self._groups.get(_name(sequence))
        if group is None or not (decoding := self._decoding(group)):
            return None
        return SharedPrompt(decoding[0].slot, group.logits)

    def _decoding(self, group: _Group) -> list[Sequence]:
        return [member for member in group.members if member in self._scheduler.decoding]


def _name(sequence: Sequence) -> Hashable:
    """Callers name groups: only the same tokens make them one."""
    return sequence.request.prompt_group, sequence.prompt.tobytes()
