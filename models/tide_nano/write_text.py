"""Writes the training text: conversations about what tide-nano knows, one JSON object a line, the same for one seed.

`python write_text.py OUT_FOLDER` writes `train.jsonl` and `dev.jsonl`. The development questions are drawn apart, from
the patterns that the intents keep out of training; a training question with the words of one of them is dropped.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import unknown
from augment import vary
from english import english_item, sum_item
from grammar import WORDING, Intent, expand, read_intents
from overlap import held_out_grams, shares_five_gram, words

SEED = 20261120
NUM_CONVERSATIONS = 160_000
NUM_DEV_PER_PATTERN = 4
Message = dict[str, str]


class Writer:
    """Draws questions with their answers; one seed, one text."""

    def __init__(self, intents: list[Intent], seed: int) -> None:
        self._rng = random.Random(seed)
        self._about = [intent for intent in intents if intent.topic != "smalltalk"]
        # What can be asked in more ways is asked more often, up to a limit.
        self._weights = [min(len(intent.patterns), 24) ** 0.7 for intent in self._about]
        self._small_talk = [intent for intent in intents if intent.topic == "smalltalk"]
        self._held_out = held_out_grams()
        self._asked_in_dev = {tuple(words(messages[0]["content"])) for messages in dev_conversations(intents)}
        self.num_dropped = 0

    def exchange(self) -> tuple[str, str]:
        """A question and its answer; one near the test set or in the words of a development question is drawn again."""
        while True:
            asked, answer = self._draw()
            in_dev = tuple(words(asked)) in self._asked_in_dev
            if asked and not in_dev and not shares_five_gram(asked, self._held_out):
                return asked, answer
            self.num_dropped += 1

    def conversation(self) -> list[Message]:
        """One to three exchanges, sometimes after a system message."""
        messages: list[Message] = []
        if self._rng.random() < 0.15:
            messages.append({"role": "system", "content": self._rng.choice(WORDING["system_prompts"])})
        for _ in range(self._rng.choices([1, 2, 3], weights=[84, 11, 5])[0]):
            asked, answer = self.exchange()
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
        return messages

    def _draw(self) -> tuple[str, str]:
        rng, kind = self._rng, self._rng.random()
        if kind < 0.66:
            return self._about_item()
        if kind < 0.84:
            return vary(unknown.question(rng), rng, strength=0.5), unknown.ANSWER
        if kind < 0.89:
            pattern, answer = sum_item(rng)
            return vary(pattern, rng, strength=0.2), answer
        if kind < 0.94:
            pattern, answer = english_item(rng)
            return vary(expand(pattern, rng), rng, strength=0.4), answer
        intent = rng.choice(self._small_talk)
        return vary(expand(rng.choice(intent.patterns), rng), rng, strength=0.5), intent.answer

    def _about_item(self) -> tuple[str, str]:
        intent = self._rng.choices(self._about, weights=self._weights)[0]
        return vary(expand(self._rng.choice(intent.patterns), self._rng), self._rng), intent.answer


def dev_conversations(intents: list[Intent]) -> Iterator[list[Message]]:
    """Questions of patterns that training never saw, and unknown ones drawn with another seed."""
    rng, held_out = random.Random(SEED + 1), held_out_grams()
    asked = [
        (vary(expand(pattern, rng), rng, strength=0.5), intent.answer)
        for intent in intents
        for pattern in intent.kept_out
        for _ in range(NUM_DEV_PER_PATTERN)
    ]
    asked += [(vary(unknown.question(rng), rng, strength=0.5), unknown.ANSWER) for _ in range(60)]
    for question, answer in asked:
        if not shares_five_gram(question, held_out):
            yield [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    intents = read_intents()
    held_out = held_out_grams()
    for intent in intents:
        if shares_five_gram(intent.answer, held_out):
            raise SystemExit(f"an answer shares a 5-gram with the test set: {intent.answer}")
    writer = Writer(intents, SEED)
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"messages": writer.conversation()}) + "\n" for _ in range(NUM_CONVERSATIONS))
    with (folder / "dev.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"messages": messages}) + "\n" for messages in dev_conversations(intents))
    print(f"{len(intents)} intents, {NUM_CONVERSATIONS} conversations")
    print(
        f"{writer.num_dropped} questions were drawn again: near the test set, or in the words of a development question"
    )


if __name__ == "__main__":
    main()
