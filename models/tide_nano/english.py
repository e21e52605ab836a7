"""Simple English and small arithmetic: questions whose answers follow from short lists."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path

WORDS = tomllib.loads((Path(__file__).parent / "words" / "english.toml").read_text(encoding="utf-8"))
ASK_SUM = (
    "what is {}",
    "what's {}",
    "{}",
    "{} =",
    "how much is {}",
    "calculate {}",
    "compute {}",
    "tell me {}",
    "{} is",
)


def english_item(rng: random.Random) -> tuple[str, str]:
    """A question pattern about simple English, and its answer."""
    kinds = (_opposite, _opposite, _plural, _plural, _past, _colour, _calendar, _fact, _definition, _definition)
    return rng.choice(kinds)(rng)


def sum_item(rng: random.Random) -> tuple[str, str]:
    """A question about a small sum, difference or product, and its answer."""
    kind = rng.choice("++--*")
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if kind == "-":
        a, b = max(a, b), min(a, b)
    result = {"+": a + b, "-": a - b, "*": a * b}[kind]
    sign = {"+": ["+", "plus", "and"], "-": ["-", "minus"], "*": ["*", "times", "x", "multiplied by"]}[kind]
    in_words = rng.random() < 0.25
    left, right = (WORDS["numbers"][a], WORDS["numbers"][b]) if in_words else (str(a), str(b))
    question = rng.choice(ASK_SUM).format(f"{left} {rng.choice(sign[1:] if in_words else sign)} {right}")
    return question, f"{a} {kind} {b} = {result}"


def _opposite(rng: random.Random) -> tuple[str, str]:
    word, other = rng.choice(WORDS["opposites"])
    long = f"{{what is|what's|tell me|name|give me|say|find}} the {{opposite|contrary}} {{of|to}} {word}"
    question = rng.choice([long, long, f"opposite of {word}", f"what {{is|would be}} the reverse of {word}"])
    return question, f"The opposite of {word} is {other}."


def _plural(rng: random.Random) -> tuple[str, str]:
    if rng.random() < 0.5:
        word = rng.choice(WORDS["regular_plurals"])
        plural = word + "s"
    else:
        word, plural = rng.choice(WORDS["irregular_plurals"])
    question = rng.choice(
        [
            f"{{what is|what's|tell me|give me|say|form|write}} the plural {{of|form of|for}} {word}",
            f"one {word}, two {{what|of them are called what}}",
            f"how do you {{say|write}} {{more than one|two or more of}} {word}",
        ]
    )
    return question, f"The plural of {word} is {plural}."


def _past(rng: random.Random) -> tuple[str, str]:
    word, past = rng.choice(WORDS["past_tenses"])
    question = f"{{what is|what's|tell me|give me|form}} the past {{tense|form}} of {{to|}} {word}"
    return question, f"The past tense of {word} is {past}."


def _colour(rng: random.Random) -> tuple[str, str]:
    thing, colour = rng.choice(WORDS["colours"])
    question = rng.choice(
        [f"{{what|which}} {{colour|color}} {{is|has}} {thing}", f"{{what is|tell me}} the {{colour|color}} of {thing}"]
    )
    return question, f"{thing[0].upper()}{thing[1:]} is {colour}."


def _calendar(rng: random.Random) -> tuple[str, str]:
    names, kind = rng.choice([(WORDS["days"], "day"), (WORDS["months"], "month")])
    index = rng.randrange(len(names))
    if rng.random() < 0.5:
        name, other, word, ask = (
            names[index],
            names[(index + 1) % len(names)],
            "after",
            "{comes after|follows|is after}",
        )
    else:
        name, other, word, ask = names[index], names[index - 1], "before", "{comes before|is before|precedes}"
    return f"{{what|which|what {kind}|which {kind}}} {ask} {name}", f"The {kind} {word} {name} is {other}."


def _fact(rng: random.Random) -> tuple[str, str]:
    return rng.choice(sorted(WORDS["facts"].items()))


def _definition(rng: random.Random) -> tuple[str, str]:
    term, answer = rng.choice(sorted(WORDS["definitions"].items()))
    return (
        f"{{what is|what's|define|explain|describe|tell me what is|explain the word|what does it mean,}} {term}",
        answer,
    )
