"""Proves that the training text shares no 5-gram of words with the test set's questions, beyond names.

A 5-gram is free only when every one of its words is a name of the test set's list. A question of fewer than five
words counts as a whole. Run it alone: `python overlap.py TRAINING.jsonl`; it exits with 1 when it finds one.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

TEST_SET = Path(__file__).parent / "test_set.toml"
_WORD = re.compile(r"[a-z0-9_]+(?:[-'.][a-z0-9_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation."""
    return _WORD.findall(text.lower().replace("’", "'"))


def five_grams(text: str) -> set[tuple[str, ...]]:
    """Every run of five words; of a shorter text, the whole of it."""
    tokens = words(text)
    return {tuple(tokens[i : i + 5]) for i in range(max(1, len(tokens) - 4))}


def held_out_grams(test_set: Path = TEST_SET) -> set[tuple[str, ...]]:
    """The 5-grams of the test set's questions that training text must not hold."""
    content = tomllib.loads(test_set.read_text(encoding="utf-8"))
    names = set(content["names"])
    grams = set().union(*(five_grams(item["question"]) for item in content["about"] + content["unknown"]))
    return {gram for gram in grams if not set(gram) <= names}


def shares_five_gram(text: str, held_out: set[tuple[str, ...]]) -> bool:
    """Whether a training text holds one of the test set's 5-grams."""
    return not five_grams(text).isdisjoint(held_out)


def offending(texts: Iterable[str]) -> list[str]:
    """The texts that share a 5-gram with the test set."""
    held_out = held_out_grams()
    return [text for text in texts if shares_five_gram(text, held_out)]


def main() -> int:
    path = Path(sys.argv[1])
    messages = [
        message["content"]
        for line in path.read_text(encoding="utf-8").splitlines()
        for message in json.loads(line)["messages"]
    ]
    found = offending(messages)
    print(
        f"{len(messages)} messages of {path.name} checked against {len(held_out_grams())} 5-grams: {len(found)} shared"
    )
    for text in found[:10]:
        print("  shared:", text)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
