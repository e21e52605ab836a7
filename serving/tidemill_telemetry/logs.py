"""The log: one line an event on standard error, as text for people or as JSON for machines.

The standard library's logging is the one way in, for us and for libraries; python-json-logger makes JSON of it.
"""

import json
import logging
import re
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, TextIO, TypeAlias

from pythonjsonlogger.json import JsonFormatter

from tidemill_telemetry.call_record import Origin, current_call

LogFormat: TypeAlias = Literal["text", "json"]
Extra: TypeAlias = dict[str, Mapping[str, object]]

_CHATTY = ("alembic", "asyncio", "grpc", "opentelemetry", "uvicorn")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_PLAIN_VALUE = re.compile(r"[^\s\"=\[\]]+")
_process_fields: dict[str, object] = {}
logger = logging.getLogger(__name__)


def about(fields: Mapping[str, object]) -> Extra:
    """The `extra` of a log call: fields of this one line, besides those of its call and its process."""
    return {"fields": fields}


def about_origin(origin: Origin | None) -> Extra:
    """The `extra` of a log call about something that is done for a call elsewhere."""
    return about({} if origin is None else origin.log_fields())


def name_process(**fields: str) -> None:
    """Say who this process is, in each of its lines from now on."""
    _process_fields.update(fields)


def log_to_stderr(log_format: LogFormat, level: str, stderr: TextIO | None = None) -> None:
    """Write every line of this process, also those of libraries, of warnings and of errors that nobody caught."""
    handler = _Stderr(stderr or sys.stderr)
    handler.setFormatter(_JsonLines() if log_format == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for chatty in _CHATTY:
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    logging.getLogger("grpc._cython.cygrpc").addFilter(_says_no_metadata)
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda caught: _log_uncaught(caught.exc_type, caught.exc_value, caught.exc_traceback)
    sys.unraisablehook = lambda caught: _log_uncaught(caught.exc_type, caught.exc_value, caught.exc_traceback)


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """What a line says besides its message: of its process, its call, and itself."""
    call = current_call()
    return {
        **_process_fields,
        **(call.log_fields() if call is not None else {}),
        **getattr(record, "fields", {}),
    }


def _says_no_metadata(record: logging.LogRecord) -> bool:
    """Keep out the lines in which gRPC cites metadata that are no UTF-8: somebody's key may be one byte off."""
    return record.msg != "Invalid encoding on %s"


class _Stderr(logging.StreamHandler[Any]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 -- logging's name
        """A line that cannot be written is no reason to stop, and its trouble is a line too."""
        with suppress(Exception):
            sentence = f"a line of {record.name} cannot be written: {record.msg!r}"
            trouble = logging.LogRecord(
                logger.name, logging.ERROR, record.pathname, record.lineno, sentence, None, sys.exc_info()
            )
            self.stream.write(self.format(trouble) + self.terminator)
            self.flush()


class _JsonLines(JsonFormatter):
    """One object a line. Only what is named here is in it: libraries may hang anything on a record."""

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        log_data["time"] = _time(record.created)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        log_data["message"] = str(record.msg) if isinstance(record.msg, dict) else record.message
        log_data.update(fields_of(record))
        if exception := message_dict.get("exc_info"):
            log_data["exception"] = exception


class _TextLines(logging.Formatter):
    """Time, level, logger, message, and the fields in brackets. A message is one line, whatever is in it."""

    def format(self, record: logging.LogRecord) -> str:
        message = _CONTROL.sub(lambda found: ascii(found.group())[1:-1], record.getMessage())
        line = f"{_time(record.created)} {record.levelname} {record.name}: {message}"
        fields = " ".join(f"{name}={_value(value)}" for name, value in fields_of(record).items())
        if fields:
            line += f" [{fields}]"
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return f"{line}\n{record.exc_text}" if record.exc_text else line


def _time(seconds: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _value(value: object) -> str:
    text = str(value)
    return text if _PLAIN_VALUE.fullmatch(text) else json.dumps(text)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt | SystemExit):
        return
    exc_info = None if error is None else (kind, error, trace)
    logger.critical("nobody caught %s: %s", kind.__name__, error, exc_info=exc_info)
