"""What a line of the log is, in both formats, whatever is logged."""

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextvars import copy_context
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill_telemetry import logs
from tidemill_telemetry.call_record import CallRecord, is_request_id, serve_call
from tidemill_telemetry.trace_context import TraceContext

logger = logging.getLogger("tidemill.test")
RECORD = CallRecord("r-1", TraceContext("a" * 32, "b" * 16), "GET /x", account="acme", session="s", model="tide")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], "io.StringIO"]]:
    """Sets the log of this process up with a stream of the test's; all is as before afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    for module, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logs, "_process_fields", {})
    stream = io.StringIO()

    def set_up(log_format: str) -> io.StringIO:
        monkeypatch.setattr(sys, "stderr", stream)
        root.handlers = []
        logs.log_to_stderr(log_format, "info")  # type: ignore[arg-type]
        return stream

    yield set_up
    logging.captureWarnings(False)
    root.handlers, root.level = before


def only_line(stream: io.StringIO) -> dict[str, object]:
    text = stream.getvalue()
    assert text.count("\n") == 1, text
    return json.loads(text)


def test_a_json_line_has_time_level_logger_message_and_what_is_known_of_its_call(lines) -> None:
    stream = lines("json")
    logs.name_process(replica="r7")

    def serve() -> None:
        serve_call(RECORD)
        logger.warning("so %s", "it is", extra=logs.about({"code": "OK"}))

    copy_context().run(serve)
    line = only_line(stream)
    assert datetime.fromisoformat(str(line.pop("time"))).tzinfo is not None
    assert line == {
        "level": "warning",
        "logger": "tidemill.test",
        "message": "so it is",
        "replica": "r7",
        "request_id": "r-1",
        "trace_id": "a" * 32,
        "span_id": "b" * 16,
        "method": "GET /x",
        "account": "acme",
        "session": "s",
        "model": "tide",
        "code": "OK",
    }


def test_the_time_is_utc_with_milliseconds(lines) -> None:
    stream = lines("json")
    record = logging.makeLogRecord({"name": "x", "msg": "y", "created": 1_700_000_000.0426, "levelno": 30})
    logging.getLogger().handle(record)
    assert only_line(stream)["time"] == "2023-11-14T22:13:20.042Z"


def test_outside_of_calls_a_line_names_none(lines) -> None:
    stream = lines("json")
    logger.info("alone")
    assert set(only_line(stream)) == {"time", "level", "logger", "message"}


def test_an_exception_is_a_field(lines) -> None:
    stream = lines("json")
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it broke")
    line = only_line(stream)
    assert line["message"] == "it broke"
    assert str(line["exception"]).endswith("ValueError: two\nlines")


def test_what_a_library_hangs_on_a_record_is_not_told(lines) -> None:
    stream = lines("json")
    logger.info("x", extra={"prompt": "secret", "color_message": "y"})
    assert "secret" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["json", "text"])
@given(message=st.text())
def test_a_message_is_one_line_whatever_is_in_it(log_format: str, message: str) -> None:
    formatter = logs._JsonLines() if log_format == "json" else logs._TextLines()
    line = formatter.format(logging.makeLogRecord({"name": "x", "msg": "%s", "args": (message,)}))
    assert len(line.splitlines()) == 1
    if log_format == "json":
        assert json.loads(line)["message"] == message
        assert line.isascii()


def test_a_text_line_shows_the_fields_in_brackets(lines) -> None:
    stream = lines("text")
    logger.info("done", extra=logs.about({"method": "GET /x", "code": "200", "odd": "a]b\n"}))
    assert stream.getvalue().endswith(' INFO tidemill.test: done [method="GET /x" code=200 odd="a]b\\n"]\n')


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_a_line_that_cannot_be_made_is_told_as_one(lines, log_format: str) -> None:
    stream = lines(log_format)
    logger.info("%d", "no number")
    text = stream.getvalue()
    assert "a line of tidemill.test cannot be written" in text
    if log_format == "json":
        assert only_line(stream)["level"] == "error"


def test_warnings_and_what_nobody_caught_are_lines_too(lines) -> None:
    stream = lines("json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", stacklevel=1)

    def fail() -> None:
        raise OSError("in a thread")

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    sys.excepthook(ValueError, ValueError("in the main thread"), None)
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["logger"] for line in said] == ["py.warnings", "tidemill_telemetry.logs", "tidemill_telemetry.logs"]
    assert [line["level"] for line in said] == ["warning", "critical", "critical"]
    assert "in a thread" in said[1]["message"]
    assert "in the main thread" in said[2]["message"]


@given(text=st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,140}", fullmatch=True))
def test_a_request_id_is_what_can_stand_in_a_header_and_a_line(text: str) -> None:
    if is_request_id(text):
        assert 1 <= len(text) <= 128
        assert text.isascii()
        assert text.isprintable()
        assert not set(text) & set(" \"'[]{},;\\")


@pytest.mark.parametrize("text", ["", "a\n", "a b", "é", "-a", "a" * 129, 'a"', "a\x00"])
def test_what_is_no_request_id(text: str) -> None:
    assert not is_request_id(text)
