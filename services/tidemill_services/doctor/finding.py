"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is. Only WRONG makes the command fail."""

    OK = "ok"
    WARNING = "warning"  # the server runs, but not as well or as safely as it could
    WRONG = "wrong"  # the server does not start, or will not serve


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. Where something is not right, the sentence says what to do."""

    level: Level
    subject: str
    sentence: str


def ok(subject: str, sentence: str) -> Finding:
    """It is as it should be."""
    return Finding(Level.OK, subject, sentence)


def warning(subject: str, sentence: str) -> Finding:
    """It works, but somebody should look at it."""
    return Finding(Level.WARNING, subject, sentence)


def wrong(subject: str, sentence: str) -> Finding:
    """It keeps the server from serving."""
    return Finding(Level.WRONG, subject, sentence)
