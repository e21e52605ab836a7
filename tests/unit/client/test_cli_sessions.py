"""The commands of sessions that end by themselves."""

import json
from datetime import timedelta

import pytest
import typer
from google.protobuf.duration_pb2 import Duration

from tests.unit.client.mill import PRICE, Mill
from tidemill.cli.amounts import parse_credits
from tidemill.cli.meter import MeterDisplay, meter_line
from tidemill.cli.session_options import duration_text, parse_duration
from tidemill.session_results import meter_of
from tidemill.v1 import inference_pb2, session_pb2

Session = session_pb2.Session


@pytest.mark.parametrize(
    ("text", "seconds", "shown"),
    [
        ("90", 90, "1m30s"), ("90s", 90, "1m30s"), ("15m", 900, "15m"), ("1h30m", 5_400, "1h30m"),
        ("2d", 172_800, "2d"), ("0", 0, "0s"), ("1d2h3m4s", 93_784, "1d2h3m4s"),
    ],
)  # fmt: skip
def test_a_duration_is_read_and_shown(text: str, seconds: int, shown: str) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)
    assert duration_text(timedelta(seconds=seconds)) == shown


@pytest.mark.parametrize("text", ["", "soon", "1.5h", "-3s", "5m1h", "9" * 20])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_duration(text)


@pytest.mark.parametrize(("text", "microcredits"), [("5", 5_000_000), ("0.25", 250_000), ("0.000001", 1), ("0", 0)])
def test_credits_are_read_exactly(text: str, microcredits: int) -> None:
    assert parse_credits(text) == microcredits


@pytest.mark.parametrize("text", ["", "much", "-1", "nan", "inf", "0.0000001"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_credits(text)


def test_a_session_starts_with_its_limits_and_labels(tidemill, mill: Mill) -> None:
    result = tidemill(
        "session", "start", "--idle-timeout", "5m", "--max-duration", "2h", "--max-spend", "1.5", "--label", "team=ebb"
    )
    assert "or 5m without use" in result.stderr
    (request,) = mill.requests["StartSession"]
    assert (request.limits.idle_timeout.seconds, request.limits.max_duration.seconds) == (300, 7_200)
    assert request.limits.max_spend_microcredits == 1_500_000
    assert dict(request.labels) == {"team": "ebb"}
    shown = tidemill("session", "show", "1").stdout
    assert "after 5m without use, or 2h in all, or at 1.500000 credits" in shown
    assert "team=ebb" in shown


def test_a_session_is_changed_whether_named_or_the_only_open_one(tidemill, mill: Mill) -> None:
    tidemill("session", "start", "--max-spend", "1")
    changed = tidemill("session", "update", "--idle-timeout", "90", "--max-spend", "0")
    assert changed.stdout == "sessions/1 ends after 1m30s without use, or 12h in all.\n"
    changed = json.loads(tidemill("session", "update", "1", "--label", "a=b", "--json").stdout)
    assert changed["labels"] == {"a": "b"}
    assert changed["limits"] == {
        "idle_timeout_seconds": 90.0,
        "max_duration_seconds": 43_200.0,
        "max_spend_microcredits": None,
    }


@pytest.mark.parametrize(
    "arguments",
    [["update"], ["update", "--label", "a"], ["start", "--idle-timeout", "soon"], ["start", "--max-spend", "-1"]],
)
def test_what_cannot_be_understood_is_wrong_usage(tidemill, mill: Mill, arguments: list[str]) -> None:
    assert tidemill("session", *arguments).exit_code == 2
    assert mill.requests["StartSession"] == []


def test_where_no_session_is_open_there_is_nothing_to_change_or_watch(tidemill) -> None:
    for command in (["update", "--idle-timeout", "5m"], ["watch"]):
        result = tidemill("session", *command)
        assert result.exit_code == 1
        assert "No session is open" in result.stderr


def readings() -> list[session_pb2.SessionMeter]:
    warning = session_pb2.SessionWarning(end_reason=Session.END_REASON_IDLE, percent=80)
    idle = Session.END_REASON_IDLE
    return [
        session_pb2.SessionMeter(time_to_end=Duration(seconds=3_600), end_reason=Session.END_REASON_MAX_DURATION),
        session_pb2.SessionMeter(unbilled_wait_duration=Duration(seconds=2)),
        session_pb2.SessionMeter(idle_duration=Duration(), time_to_end=Duration(seconds=60), end_reason=idle),
        session_pb2.SessionMeter(idle_duration=Duration(seconds=1), time_to_end=Duration(seconds=59), end_reason=idle),
        session_pb2.SessionMeter(
            idle_duration=Duration(seconds=48), time_to_end=Duration(seconds=12), end_reason=idle, warnings=[warning]
        ),
        session_pb2.SessionMeter(),
    ]


def test_a_watch_prints_the_news_and_the_bill_at_the_end(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    mill.meter = readings()
    lines = tidemill("session", "watch").stdout.splitlines()
    assert lines == [
        "active · 0s · 0.000000 credits · in use · ends in 1h (its longest duration)",
        "active · 0s · 0.000000 credits · waits for a slot, not billed",
        "active · 0s · 0.000000 credits · idle 0s · ends in 1m (nothing ran)",
        "active · 0s · 0.000000 credits · idle 48s · ends in 12s (nothing ran) · ! 80 % of idle",
        "ended · 3s · 0.002100 credits · ended: stopped",
        "sessions/1 of tide-nano cost 0.002100 credits for 3 seconds.",
    ]
    assert "ended (stopped)" in tidemill("session", "list").stdout


def test_a_watch_prints_every_reading_as_json(tidemill, mill: Mill) -> None:
    tidemill("session", "start")
    mill.meter = readings()
    found = [json.loads(line) for line in tidemill("session", "watch", "1", "--json").stdout.splitlines()]
    assert len(found) == 6
    assert [reading["unbilled_wait_seconds"] for reading in found[:2]] == [None, 2.0]
    assert (found[4]["idle_seconds"], found[4]["time_to_end_seconds"]) == (48.0, 12.0)
    assert found[4]["warnings"] == [{"end_reason": "idle", "percent": 80, "holder": ""}]
    assert found[5]["session"]["bill"]["cost_microcredits"] == 3 * PRICE


def test_on_a_terminal_the_meter_is_one_line_that_moves(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    display = MeterDisplay()
    for reading in readings()[2:4]:
        display.show(meter_of(reading))
    display.stop()
    shown = capsys.readouterr().out
    assert shown.count("\r\x1b[2K") == 2
    assert shown.count("\n") == 1


def test_a_silent_holder_is_named(mill: Mill) -> None:
    warning = session_pb2.SessionWarning(end_reason=Session.END_REASON_LOST, percent=40, holder="laptop")
    line = meter_line(meter_of(session_pb2.SessionMeter(session=Session(state=1), warnings=[warning])))
    assert line == "pending · 0s · 0.000000 credits · ! laptop gives no sign of life"


def test_a_chat_whose_session_ended_by_itself_goes_on_with_a_new_one(tidemill, mill: Mill) -> None:
    def judge(request: inference_pb2.GenerateRequest) -> None:
        if not request.input.chat.messages[1:]:  # the first question; while its answer is read, the session ends
            mill.end(mill.sessions["sessions/1"])

    mill.refuse_when(judge)
    result = tidemill("chat", text="one\ntwo\n")
    assert result.exit_code == 0
    assert len(result.stdout.splitlines()) == 2
    assert "sessions/1 of tide-nano cost" in result.stderr
    assert "sessions/2 of tide-nano cost" in result.stderr
