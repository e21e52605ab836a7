"""What a replica's process says on standard error becomes lines of our own log, and its last sentence why it ended."""

import json
import logging
from datetime import datetime
from typing import Any

from tidemill_telemetry.logs import about

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_MAX_SENTENCE = 1_000  # characters

# What a process says outside of its log: a library written in C, the interpreter's last words.
stray_logger = logging.getLogger("tidemill_serving.stderr")


class ReplicaLog:
    """Takes the lines of one replica, which writes its log as JSON; anything else that it says is a warning."""

    def __init__(self, replica_id: str) -> None:
        self._replica_id = replica_id
        self.last_sentence = ""  # fit for a person and for the store

    def take(self, line: bytes) -> None:
        """Take one line, as it came."""
        text = line.decode(errors="replace").rstrip()
        if not text:
            return
        record = _record_of(text)
        if record is None:
            record = logging.makeLogRecord(
                {"name": stray_logger.name, "levelno": logging.WARNING, "levelname": "WARNING", "msg": _clean(text)}
            )
            record.__dict__.update(about({"replica": self._replica_id}))
        self.last_sentence = record.getMessage()[:_MAX_SENTENCE]
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)


def _record_of(text: str) -> logging.LogRecord | None:
    """The record that a line of the log was made of; None when it is no such line."""
    try:
        said = json.loads(text)
        level = said.pop("level")
        return logging.makeLogRecord(
            {
                "name": _clean(said.pop("logger")),
                "levelno": _LEVELS[level],
                "levelname": level.upper(),
                "created": datetime.fromisoformat(said.pop("time")).timestamp(),
                "msg": _clean(said.pop("message")),
                "exc_text": _clean(said.pop("exception", "")),
                "fields": {_clean(name): _cleaned(value) for name, value in said.items()},
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _cleaned(value: Any) -> Any:
    return _clean(value) if isinstance(value, str) else value


def _clean(text: str) -> str:
    """Without what no database and no terminal takes: NUL, and halves of characters."""
    return text.replace("\0", "").encode(errors="replace").decode()
