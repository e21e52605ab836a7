"""Questions that the model cannot answer, in great variety, for the one honest answer to all of them."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

from grammar import expand

WORDS = tomllib.loads((Path(__file__).parent / "words" / "unknown.toml").read_text(encoding="utf-8"))
ANSWER: str = WORDS["answer"]


def question(rng: random.Random) -> str:
    """A question pattern whose words were chosen by `rng`; `grammar.expand` makes it a sentence."""
    text = expand(rng.choice(WORDS["patterns"]), rng)
    for name, values in WORDS["lists"].items():
        while name in text:
            value = rng.choice(values)
            text = text.replace(
                name, value.title() if name in WORDS["proper_names"] and rng.random() < 0.6 else value, 1
            )
    while "BIG" in text:
        text = text.replace("BIG", str(rng.choice([rng.randint(21, 99), rng.randint(100, 9999)])), 1)
    while "WORD" in text:
        text = text.replace("WORD", _made_up_word(rng), 1)
    return text.replace(" my a ", " my ").replace(" a a ", " a ")


def _made_up_word(rng: random.Random) -> str:
    vowels = ["a", "e", "i", "o", "u", "oo", "ee"]
    syllables = [rng.choice(WORDS["consonants"]) + rng.choice(vowels) for _ in range(rng.randint(1, 3))]
    return "".join(syllables) + rng.choice(WORDS["endings"])
