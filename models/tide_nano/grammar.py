"""Reads the intents and expands their patterns.

An intent file holds blocks. `= ` begins a block with its answer; each further line is a question pattern in which
`{a|b|c}` chooses one alternative (an empty one leaves it out) and `{HOW}` any beginning of a how-to question. A line
`? a|b` names terms and stands for every usual way to ask what a term means. A line `! pattern` keeps a pattern out of
training, for the development questions alone, whether it is written out here or one of a `?` line's.
"""

from __future__ import annotations

import random
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

INTENTS_FOLDER = Path(__file__).parent / "intents"

WORDING = tomllib.loads((Path(__file__).parent / "words" / "wording.toml").read_text(encoding="utf-8"))
_MACROS = {f"{{{name}}}": "{" + "|".join(WORDING[key]) + "}" for name, key in (("HOW", "how_to"), ("DEFINE", "define"))}
_CHOICE = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Intent:
    """One thing that can be asked: its answer, the patterns of its questions, and those that training never sees."""

    topic: str
    answer: str
    patterns: tuple[str, ...]
    kept_out: tuple[str, ...]


def read_intents(folder: Path = INTENTS_FOLDER) -> list[Intent]:
    """Every intent of the folder's files, in the order of their names."""
    return [intent for path in sorted(folder.glob("*.txt")) for intent in _read_file(path)]


def expand(pattern: str, rng: random.Random) -> str:
    """One sentence of a pattern, its alternatives chosen by `rng`."""
    text = pattern
    for macro, choice in _MACROS.items():
        text = text.replace(macro, choice)
    while match := _CHOICE.search(text):
        text = text[: match.start()] + rng.choice(match.group(1).split("|")) + text[match.end() :]
    return re.sub(r"\s+([,:?])", r"\1", " ".join(text.split()))


def _read_file(path: Path) -> list[Intent]:
    intents = []
    for block in path.read_text(encoding="utf-8").split("\n\n"):
        lines = [line.strip() for line in block.strip().splitlines()]
        if not lines:
            continue
        if not lines[0].startswith("= ") or len(lines) < 2:
            raise ValueError(f"{path.name}: a block needs an answer and a question: {lines[0]!r}")
        kept_out = tuple(line[2:] for line in lines[1:] if line.startswith("! "))
        written = [pattern for line in lines[1:] if not line.startswith("! ") for pattern in _patterns(line)]
        patterns = tuple(pattern for pattern in written if pattern not in kept_out)
        intents.append(Intent(topic=path.stem, answer=lines[0][2:], patterns=patterns, kept_out=kept_out))
    return intents


def _patterns(line: str) -> list[str]:
    if not line.startswith("? "):
        return [line]
    return [definition.replace("{TERM}", "{" + line[2:] + "}") for definition in WORDING["term_patterns"]]
