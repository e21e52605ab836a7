import sqlite3
import time
from contextlib import closing
from pathlib import Path

import grpc
import pytest

from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.integration.api.test_refusals import refusal_of
from tests.keys import make_key
from tests.server_process import server_process
from tidemill.v1 import session_pb2


@pytest.mark.rule("S10")
def test_starting_twice_returns_the_same_session_and_stopping_twice_the_same_bill(wire: Wire) -> None:
    first, second = wire.start(), wire.start()
    assert (first.already_active, second.already_active) == (False, True)
    assert first.session.name == second.session.name
    once, again = wire.stop(), wire.stop()
    assert (once.already_ended, again.already_ended) == (False, True)
    assert once.session.bill == again.session.bill
    assert once.session.bill.final


def test_the_session_ends_when_its_last_holder_leaves(wire: Wire) -> None:
    wire.start(holder="a")
    session = wire.start(holder="b").session
    assert sorted(session.holders) == ["a", "b"]
    left = wire.stop(holder="a", all_holders=False)
    assert list(left.session.holders) == ["b"]
    assert not left.session.bill.final
    assert wire.stop(holder="b", all_holders=False).session.bill.final


def test_a_repeated_request_id_returns_the_first_answer_and_another_body_is_refused(wire: Wire) -> None:
    first = wire.start(request_id="only-once", holder="a")
    wire.stop()
    assert wire.start(request_id="only-once", holder="a") == first
    with pytest.raises(grpc.RpcError) as refused:
        wire.start(request_id="only-once", holder="b")
    assert refused.value.code() is grpc.StatusCode.ALREADY_EXISTS


def test_a_repeat_is_answered_as_the_first_time_whatever_an_empty_model_means_by_then(tmp_path: Path) -> None:
    api_key = make_key(tmp_path, "changing", default_model=MODEL)
    request = session_pb2.StartSessionRequest(request_id="only-once")
    with server_process(tmp_path) as server, wire_to(server, api_key) as wire:
        first = wire.sessions.StartSession(request, metadata=wire.metadata)
    with closing(sqlite3.connect(tmp_path / "tidemill.db")) as database, database:
        database.execute("UPDATE api_keys SET default_model = NULL")
    with server_process(tmp_path) as server, wire_to(server, api_key) as wire:
        assert wire.sessions.StartSession(request, metadata=wire.metadata) == first
        refusal = refusal_of(lambda: wire.start(model="", request_id="another"))
        assert refusal.reason == "MODEL_REQUIRED"


@pytest.mark.rule("S6")
@pytest.mark.rule("S3")
def test_the_clock_runs_once_the_model_is_ready_and_never_beyond_wall_time(wire: Wire) -> None:
    list_started = time.monotonic()
    name = wire.start().session.name
    get = session_pb2.GetSessionRequest(name=name)
    wait_until(
        lambda: wire.sessions.GetSession(get, metadata=wire.metadata).state == session_pb2.Session.STATE_ACTIVE,
        "ACTIVE",
    )
    time.sleep(1.2)
    running = wire.sessions.GetSession(get, metadata=wire.metadata)
    assert not running.bill.final
    stopped = wire.stop().session
    wall_ms = (time.monotonic() - list_started) * 1000
    assert 1200 <= running.bill.billed_milliseconds <= stopped.bill.billed_milliseconds <= wall_ms
    assert stopped.bill.billed_seconds >= 2
    wait_until(
        lambda: wire.sessions.GetSession(get, metadata=wire.metadata).state == session_pb2.Session.STATE_ENDED,
        "ENDED",
    )
    assert wire.sessions.GetSession(get, metadata=wire.metadata).bill == stopped.bill


def test_sessions_are_listed_newest_first_and_page_by_page(wire: Wire) -> None:
    names = []
    for _ in range(5):
        names.append(wire.start().session.name)
        wire.stop()
    seen: list[str] = []
    token = ""
    while len(seen) < 5:
        request = session_pb2.ListSessionsRequest(page_size=2, page_token=token, model=MODEL)
        page = wire.sessions.ListSessions(request, metadata=wire.metadata)
        assert len(page.sessions) <= 2
        seen += [session.name for session in page.sessions]
        token = page.next_page_token
    assert seen[:5] == names[::-1]
