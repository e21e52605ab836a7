"""Ends an answer at a stop string, without ever showing a part of one."""

from collections.abc import Sequence


class StopMatcher:
    """Looks for stop strings in a text that comes in pieces.

    The stop string that is complete first ends the answer, the longest of those that end at one character; what
    stands before it is emitted. How the text is cut into pieces makes no difference. The cost is linear in the text,
    whatever it and the stop strings are (Knuth, Morris, Pratt). Belongs to one sequence.
    """

    __slots__ = ("_held", "_is_hit", "_matched", "_patterns")

    def __init__(self, stops: Sequence[str]) -> None:
        """Raises ValueError for an empty stop string, which would end every answer at once."""
        if not all(stops):
            raise ValueError("a stop string must not be empty")
        self._patterns = [(stop, _failure_table(stop)) for stop in stops]
        self._matched = [0] * len(stops)  # how much of each stop string the text ends with
        self._held = ""
        self._is_hit = False

    def push(self, text: str) -> tuple[str, bool]:
        """The text that can be shown now, and whether a stop string was found; after that nothing is shown."""
        if self._is_hit or not self._patterns:
            return ("", True) if self._is_hit else (text, False)
        for position, character in enumerate(text):
            num_cut = self._advance(character)
            if num_cut:
                shown = self._held + text[: position + 1]
                self._held, self._is_hit = "", True
                return shown[: len(shown) - num_cut], True
        shown = self._held + text
        num_held = max(self._matched)
        self._held = shown[len(shown) - num_held :]
        return shown[: len(shown) - num_held], False

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> int:
        """Match one more character; the length of the longest stop string that is complete now, or 0."""
        longest = 0
        for index, (stop, failure) in enumerate(self._patterns):
            matched = self._matched[index]
            while matched and stop[matched] != character:
                matched = failure[matched]
            if stop[matched] == character:
                matched += 1
            self._matched[index] = matched
            if matched == len(stop):
                longest = max(longest, matched)
        return longest


def _failure_table(stop: str) -> list[int]:
    """For each length n: how long the longest proper prefix of `stop[:n]` is that is also its suffix."""
    table = [0, 0]
    matched = 0
    for character in stop[1:]:
        while matched and stop[matched] != character:
            matched = table[matched]
        if stop[matched] == character:
            matched += 1
        table.append(matched)
    return table
