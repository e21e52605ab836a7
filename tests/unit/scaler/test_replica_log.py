"""A replica's standard error in our log, and the sentence that says why it ended."""

import json
import logging

import pytest

from tidemill_services.scaler.replica_log import ReplicaLog

LINE = {
    "time": "2026-01-02T03:04:05.678Z",
    "level": "warning",
    "logger": "tidemill_serving.test",
    "message": "it is late",
    "replica": "r1",
    "request_id": "mine",
}


def take(*lines: bytes) -> str:
    log = ReplicaLog("r1")
    for line in lines:
        log.take(line)
    return log.last_sentence


def test_a_line_of_its_log_is_a_line_of_ours_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert take(json.dumps({**LINE, "exception": "Traceback"}).encode()) == "it is late"
    (record,) = caplog.records
    assert (record.name, record.levelname, record.getMessage()) == ("tidemill_serving.test", "WARNING", "it is late")
    assert record.created == pytest.approx(1767323045.678)
    assert record.exc_text == "Traceback"
    assert record.fields == {"replica": "r1", "request_id": "mine"}


def test_what_is_below_our_level_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    take(json.dumps(LINE).encode())
    assert not caplog.records


@pytest.mark.parametrize(
    "line",
    [
        b"Segmentation fault",
        b"{}",
        b"[1]",
        b"null",
        b'{"level": "loud"}',
        json.dumps({**LINE, "time": "now"}).encode(),
        json.dumps({**LINE, "time": 5}).encode(),
        json.dumps({**LINE, "message": 5}).encode(),
        json.dumps({**LINE, "level": []}).encode(),
        json.dumps({**LINE, "logger": None}).encode(),
        b"[" * 10_000,
        b"%s %d",
        b"\xff\xfe",
    ],
)
def test_anything_else_is_a_warning_in_its_own_words(line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    sentence = take(line)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("tidemill_serving.stderr", "WARNING")
    assert record.getMessage() == line.decode(errors="replace")
    assert sentence == line.decode(errors="replace")[:1000]
    assert record.fields == {"replica": "r1"}


def test_the_last_sentence_is_fit_for_the_store() -> None:
    assert take(b"first", b"it\x00 broke\x00", b"  ", b"") == "it broke"
    assert take(json.dumps({**LINE, "message": "a\x00b\ud800"}).encode()) == "ab?"
    assert len(take(b"x" * 5000)) == 1000
