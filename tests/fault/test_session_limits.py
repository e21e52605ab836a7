"""Sessions near their limits when the server is killed."""

import time
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from tests.fault.test_server_life import SLOWLY
from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.server_process import server_process
from tidemill.v1 import session_pb2

pytestmark = pytest.mark.fault

Session = session_pb2.Session
OTHER_MODEL = "tiny-llama-positions"
IDLE_SECONDS, LONGEST_SECONDS = 3, 8


def get(wire: Wire, name: str) -> Session:
    return wire.sessions.GetSession(session_pb2.GetSessionRequest(name=name), metadata=wire.metadata)


@pytest.mark.rule("S23")
def test_sessions_of_a_killed_server_end_at_their_limits_and_are_billed_for_no_time_without_it(tmp_path: Path) -> None:
    with server_process(tmp_path, *SLOWLY) as server, wire_to(server) as wire:
        idle_limits = session_pb2.SessionLimits(idle_timeout=Duration(seconds=IDLE_SECONDS))
        longest = session_pb2.SessionLimits(max_duration=Duration(seconds=LONGEST_SECONDS))
        names = [
            wire.start(model=MODEL, limits=idle_limits).session.name,
            wire.start(model=OTHER_MODEL, limits=longest).session.name,
        ]
        for name in names:
            wait_until(lambda name=name: get(wire, name).HasField("start_time"), "a running clock", 60)
        server.kill()
        killed_ms = time.time() * 1000
    time.sleep(IDLE_SECONDS)  # so that the first is past its limit at the restart; the second is not, as a rule
    restarted_ms = time.time() * 1000
    with server_process(tmp_path, *SLOWLY) as server, wire_to(server) as wire:
        for name in names:
            wait_until(lambda name=name: get(wire, name).state == Session.STATE_ENDED, "an end by itself", 60)
        idle, long = (get(wire, name) for name in names)
    for session, reason, seconds in (
        (idle, Session.END_REASON_IDLE, IDLE_SECONDS),
        (long, Session.END_REASON_MAX_DURATION, LONGEST_SECONDS),
    ):
        start_ms = session.start_time.ToMilliseconds()
        assert session.end_reason == reason
        assert session.end_time.ToMilliseconds() - start_ms == seconds * 1000
        assert session.bill.final
    assert idle.bill.billed_milliseconds <= killed_ms - idle.start_time.ToMilliseconds()
    away_ms = min(restarted_ms, long.end_time.ToMilliseconds()) - killed_ms
    assert long.bill.billed_milliseconds <= LONGEST_SECONDS * 1000 - away_ms


def test_a_stream_that_ran_when_the_server_was_killed_counts_as_activity_until_then(tmp_path: Path) -> None:
    with server_process(tmp_path, *SLOWLY) as server, wire_to(server) as wire:
        name = wire.start(limits=session_pb2.SessionLimits(idle_timeout=Duration(seconds=2))).session.name
        stream = wire.generate(max_tokens=1000)
        wait_until(lambda: next(stream).WhichOneof("event") == "delta", "the first text", 60)
        time.sleep(2.5)
        server.kill()
        killed_ms = time.time() * 1000
    with server_process(tmp_path, *SLOWLY) as server, wire_to(server) as wire:
        wait_until(lambda: get(wire, name).state == Session.STATE_ENDED, "an end by itself", 60)
        ended = get(wire, name)
    assert ended.end_reason == Session.END_REASON_IDLE
    start_ms, end_ms = ended.start_time.ToMilliseconds(), ended.end_time.ToMilliseconds()
    assert start_ms + 2_000 < end_ms <= killed_ms + 2_000
    assert ended.bill.billed_milliseconds <= killed_ms - start_ms
