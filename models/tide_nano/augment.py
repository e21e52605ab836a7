"""Makes one written question into many: politeness, synonyms, dropped words, typing errors, case and punctuation."""

from __future__ import annotations

import random
import re

from grammar import WORDING

SYNONYMS: dict[str, list[str]] = WORDING["synonyms"]
SPELLING: dict[str, str] = WORDING["spelling"]


def vary(question: str, rng: random.Random, *, strength: float = 1.0) -> str:
    """Another wording of `question`; `strength` 0 leaves the words alone and varies only case and punctuation."""
    words = question.split()
    if strength > 0:
        words = _replace(words, rng, 0.22 * strength)
        words = _drop(words, rng, 0.04 * strength)
        if rng.random() < 0.05 * strength:
            words = rng.choice(WORDING["situations"]).split() + words
        elif rng.random() < 0.25 * strength:
            words = rng.choice(WORDING["before"]).split() + words
        if rng.random() < 0.15 * strength:
            words = words + rng.choice(WORDING["after"]).split()
        if rng.random() < 0.12 * strength:
            words = _mistype(words, rng)
    return _punctuate(_capitalise(words, rng), rng)


def _replace(words: list[str], rng: random.Random, chance: float) -> list[str]:
    replaced: list[str] = []
    for word in words:
        core = word.rstrip(",:?")
        if core in SYNONYMS and rng.random() < chance:
            replaced.extend((rng.choice(SYNONYMS[core]) + word[len(core) :]).split())
        else:
            replaced.append(word)
    return replaced


def _drop(words: list[str], rng: random.Random, chance: float) -> list[str]:
    if len(words) < 5:
        return words
    return [word for word in words if rng.random() >= chance]


def _mistype(words: list[str], rng: random.Random) -> list[str]:
    places = [i for i, word in enumerate(words) if len(word) > 3 and word.isalpha()]
    if not places:
        return words
    words, i = list(words), rng.choice(places)
    word = words[i]
    k = rng.randrange(1, len(word) - 1)
    near = rng.choice(WORDING["neighbours"].get(word[k], word[k]))
    swapped, missing = word[:k] + word[k + 1] + word[k] + word[k + 2 :], word[:k] + word[k + 1 :]
    doubled, wrong = word[:k] + word[k] + word[k:], word[:k] + near + word[k + 1 :]
    words[i] = rng.choice([swapped, missing, doubled, wrong])
    return words


def _capitalise(words: list[str], rng: random.Random) -> str:
    style = rng.random()
    if style < 0.25:
        return " ".join(words)
    if style > 0.993:
        return " ".join(words).upper()
    text = " ".join(_spell(word) for word in words)
    return text[:1].upper() + text[1:] if style > 0.35 else text


def _spell(word: str) -> str:
    core = re.sub(r"\W+$", "", word)
    return SPELLING.get(core, core) + word[len(core) :]


def _punctuate(text: str, rng: random.Random) -> str:
    text = text.rstrip("?")
    return text + rng.choices(["?", "", ".", "??", " ?", "!"], weights=[62, 25, 8, 1, 2, 2])[0]
