"""What a process that comes to a database in use takes for the platform's time, from what it sees of the mark."""

from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from tidemill_services.store import postgres
from tidemill_services.store.postgres import PostgresBackend

HOUR_MS = 3_600_000


def joined_ms(monkeypatch: pytest.MonkeyPatch, readings: list[tuple[int, int]]) -> int:
    """How far behind the server's time it goes on, when it reads these times of the server and marks one by one."""
    left: Iterator[tuple[int, int]] = iter(readings)
    backend = PostgresBackend("postgresql://nobody@nowhere/none")
    monkeypatch.setattr(backend, "read_engine", SimpleNamespace(begin=lambda: nullcontext(None)))
    monkeypatch.setattr(postgres, "_server_and_mark_ms", lambda _connection: next(left))
    monkeypatch.setattr(postgres, "_may_be_set", lambda _connection, server_ms, mark_ms: server_ms > mark_ms + 1_500)
    monkeypatch.setattr(postgres, "_LOOK_SECONDS", 0.0)
    backend._join_clock()
    assert not list(left)
    return 10 * HOUR_MS - backend.clock.now_ms(lambda: (10 * HOUR_MS, 0))


def test_where_the_mark_is_new_the_servers_time_is_the_platforms(monkeypatch):
    assert joined_ms(monkeypatch, [(5_000, 4_000)]) == 0


def test_where_the_clock_was_set_the_time_of_those_that_run_is(monkeypatch):
    assert joined_ms(monkeypatch, [(HOUR_MS, 1_000), (HOUR_MS + 100, 1_000), (HOUR_MS + 200, 1_200)]) == HOUR_MS - 1_000


def test_a_mark_that_moved_while_we_stood_still_says_nothing_and_the_next_one_does(monkeypatch):
    """The others rested, so that the mark is old, and nobody has set a clock."""
    looks = [(10_000, 1_000), (13_000, 10_100), (13_100, 10_100), (13_200, 13_150)]
    assert joined_ms(monkeypatch, looks) == 0


def test_the_same_where_the_clock_was_set(monkeypatch):
    looks = [(HOUR_MS, 1_000), (HOUR_MS + 3_000, 1_100), (HOUR_MS + 3_100, 1_100), (HOUR_MS + 3_200, 4_200)]
    assert joined_ms(monkeypatch, looks) == HOUR_MS - 1_000
