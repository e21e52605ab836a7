"""What happens to one account and its session on a fake clock, compared each time with a trace of its own."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select

from tests.fault.billing_trace import DAY_MS, SessionTrace, Span, covers, crosses_midnight, joined
from tests.funds import grant
from tidemill_services.domain.errors import FieldInvalidError, InsufficientCreditsError, SessionEndedError
from tidemill_services.domain.ledger import EntryKind
from tidemill_services.domain.session import EndReason, Session
from tidemill_services.domain.session_limits import GivenLimits
from tidemill_services.store import accounts, leader, ledger, ledger_seal, session_activity, sessions
from tidemill_services.store.billing_proof import prove_billing
from tidemill_services.store.database import Transaction
from tidemill_services.store.ledger import entry_of
from tidemill_services.store.session_activity import CountedNews, News
from tidemill_services.store.tables import ledger_entries, models

FIVE_MINUTES = 300
PRICES = (0, 1, 7, 1_250, 1_250, 1_250)
LOOK = {"holders_are_heard": True}
LONG = {"idle_timeout_ms": DAY_MS}
HAPPENINGS = {
    "pass": 20,
    "look": 12,
    "ready": 6,
    "lost": 4,
    "grant": 3,
    "start": 6,
    "stop": 1,
    "wait": 6,
    "late_wait": 1,
    "dead_process": 1,
    "update": 3,
}
PROCESS = "host.1"
LEASE_MS = 6_000  # that what a process told holds


class Story:
    """What happens to one account and its session, at times that a seed chooses."""

    def __init__(self, seed: int, connection: Connection) -> None:
        self.random = random.Random(seed)
        self.connection = connection
        day = 20_000 + self.random.randrange(1_000)
        self.now_ms = day * DAY_MS + self.random.choice([0, DAY_MS - 400_000, DAY_MS // 2 + 137])
        self.price = self.random.choice(PRICES)
        self.money = 0  # granted and not charged for a session that is over
        self.is_ready = False
        self.ready_ms = self.now_ms
        self.session_id: str | None = None
        self.num_news = 0
        self.told_ms = 0  # what waits, while something does
        self.traces: dict[str, SessionTrace] = {}
        self._do(accounts.create_account, "a", "A")
        self.key_id = self._do(accounts.create_api_key, "a", b"secret")[0].key_id
        self._do(lambda tx: tx.connection.execute(insert(models).values(**A_MODEL)))

    def play(self) -> None:
        """Let things happen, then end; hold each time that everything fits."""
        happenings = self.random.choices(list(HAPPENINGS), list(HAPPENINGS.values()), k=self.random.randrange(5, 30))
        for happening in ["grant", "start", "ready", *happenings]:
            getattr(self, f"_{happening}")()
            self._check_balance()
        self._stop()
        self._check_the_end()

    def _pass(self) -> None:
        self.now_ms += self.random.choice(
            [1, 999, 1_000, 30_000, 60_000, 61_007, 119_999, self.random.randrange(400_000)]
        )
        if self._trace is not None and self._trace.waiting_since_ms is not None:
            self._tell()

    def _look(self) -> None:
        self._do(session_activity.look_at_sessions, **LOOK)
        self._expect_end()

    def _ready(self) -> None:
        self._do(sessions.model_became_ready, "small")
        self._expect_end()
        if not self.is_ready:
            self.is_ready, self.ready_ms = True, self.now_ms
        if self._trace is not None:
            self._trace.ready(self.now_ms)

    def _lost(self) -> None:
        if self.is_ready:
            late_ms = 70_000 if self._trace is not None and self._trace.waits else 200_000
            lost_ms = max(self.ready_ms, self.now_ms - self.random.choice([0, 5_000, 70_000, late_ms]))
            self._do(sessions.model_was_lost, "small", lost_ms=lost_ms)
            self.is_ready = False
            if self._trace is not None:
                self._trace.lost(lost_ms)

    def _wait(self) -> None:
        """A generation has waited for too long, or no longer does."""
        trace = self._trace
        if trace is None:
            return
        if trace.waiting_since_ms is None:
            trace.waiting_since_ms = self.now_ms - self.random.choice([0, 1, 900, 3_000])
            self._tell()
        else:
            self._end_wait(trace, self.random.randint(self.told_ms, self.now_ms))

    def _late_wait(self) -> None:
        """A wait is told long after its end."""
        if self._trace is not None and self._trace.waiting_since_ms is None:
            until_ms = self.now_ms - self.random.choice([0, 20_000, 59_000, 90_000])
            wait = (until_ms - self.random.choice([1, 1_500, 29_000]), until_ms)
            self._trace.waits.append(wait)
            self._trace.was_told_late = True
            self._tell(wait)

    def _dead_process(self) -> None:
        """A process dies while something waits in it; nobody can know for how long that went on."""
        trace = self._trace
        if trace is not None and trace.waiting_since_ms is not None:
            self.now_ms += self.random.choice([LEASE_MS, LEASE_MS + 3_000])
            trace.waits.append((trace.waiting_since_ms, self.told_ms + LEASE_MS))
            trace.waiting_since_ms = None
            self._look()

    def _end_wait(self, trace: SessionTrace, until_ms: int) -> None:
        wait = (trace.waiting_since_ms or 0, until_ms)
        trace.waits.append(wait)
        trace.waiting_since_ms = None
        self._tell(wait)

    def _tell(self, *ended: Span) -> None:
        """Tell what waits now, and what waited."""
        trace, session_id = self._trace, self.session_id or ""
        since_ms = None if trace is None else trace.waiting_since_ms
        waiting = {} if since_ms is None else {session_id: self.now_ms - since_ms}
        counted = None
        if ended:
            self.num_news += 1
            agos = [(self.now_ms - from_ms, self.now_ms - until_ms) for from_ms, until_ms in ended]
            counted = CountedNews(self.num_news, {session_id: agos})
        news = News(running=waiting.keys(), waiting_ago_ms=waiting, counted=counted)
        self._do(session_activity.tell_activity, PROCESS, news)
        self.told_ms = self.now_ms

    def _update(self) -> None:
        """The customer sets another spending limit."""
        trace = self._trace
        if trace is None:
            return
        asked = self.random.choice([None, 1, 60 * self.price, 400 * self.price + 5, 2_000 * self.price]) or None
        before, was_used_up_ms = trace.max_spend, trace.used_up_ms()
        trace.max_spend = asked
        used_up_ms = trace.used_up_ms()
        refusal: type[Exception] | None = None
        if was_used_up_ms is not None and was_used_up_ms <= self.now_ms:
            refusal = SessionEndedError
        elif (asked is not None and asked < self.price) or (used_up_ms is not None and used_up_ms <= self.now_ms):
            refusal = FieldInvalidError
        change = partial(replace, max_spend_microcredits=asked)
        with nullcontext() if refusal is None else pytest.raises(refusal):
            self._do(sessions.update_session, "a", self.session_id, limits=change)
        if refusal is not None:
            trace.max_spend = before

    def _grant(self) -> None:
        amount = self.random.choice([1, 59, 300, 301, 450]) * max(1, self.price) + self.random.choice([0, 0, 3])
        self._do(grant, "a", amount)
        self.money += amount
        if self._trace is not None:
            self._trace.money += amount

    def _start(self) -> None:
        max_spend = self.random.choice([None] * 4 + [400 * self.price + 5 if self.price else None])
        trace = SessionTrace(self.price, max_spend, self.money)
        who = {"account_id": "a", "key_id": self.key_id, "model": "small", "holder": "h"}
        if self.session_id is not None:
            return
        limits = GivenLimits(max_spend_microcredits=max_spend, **LONG)
        wanted = FIVE_MINUTES * self.price
        try:
            session, _ = self._do(
                sessions.start_session, **who, price_microcredits_per_second=self.price, price_revision=1, limits=limits
            )
        except InsufficientCreditsError:
            assert self.money < wanted
            return
        assert self.money >= wanted
        self.session_id = session.session_id
        self.traces[session.session_id] = trace
        if self.is_ready:
            self._do(sessions.model_became_ready, "small")
            trace.ready(self.now_ms)

    def _stop(self) -> None:
        if self.session_id is not None:
            self._do(sessions.stop_session, account_id="a", key_id=self.key_id, session_id=self.session_id, holder="h")
            self._expect_end(EndReason.STOPPED)

    @property
    def _trace(self) -> SessionTrace | None:
        return None if self.session_id is None else self.traces[self.session_id]

    def _expect_end(self, otherwise: EndReason | None = None) -> None:
        """Hold that the session ended where it had to, and nowhere else."""
        trace = self._trace
        if trace is None or self.session_id is None:
            return
        session = self._session(self.session_id)
        used_up_ms = trace.used_up_ms()
        if used_up_ms is not None and used_up_ms <= self.now_ms:
            reason = EndReason.MAX_SPEND if trace.ends_by_its_own_limit() else EndReason.BUDGET
            assert (session.end_reason, session.end_ms) == (reason, used_up_ms)
        elif otherwise is None:
            assert session.is_open
            return
        else:
            assert (session.end_reason, session.end_ms) == (otherwise, self.now_ms)
        trace.stopped(self.now_ms)
        self.money = trace.money - trace.billed_seconds() * trace.price
        self.session_id = None
        self._tell()

    def _check_balance(self) -> None:
        balance = self._do(ledger.balance_of, "a")
        assert 0 <= balance.held_microcredits <= balance.balance_microcredits
        if self.session_id is None:
            assert (balance.balance_microcredits, balance.held_microcredits) == (self.money, 0)

    def _check_the_end(self) -> None:
        self._check_balance()
        for session_id, trace in self.traces.items():
            session = self._session(session_id)
            assert (session.billed_ms, session.settled_ms) == (trace.billed_ms(), trace.billed_ms())
            charged, seconds = self._charged(session_id)
            assert trace.was_told_late or covers(joined(charged), trace.spans)
            assert seconds == trace.billed_seconds()
        self._seal()
        proof = prove_billing(self.connection)
        assert not proof.misfits
        assert proof.num_rows == proof.num_sealed_rows

    def _charged(self, session_id: str) -> tuple[list[Span], int]:
        """The time that is charged and not given back, and its seconds."""
        spans: list[Span] = []
        seconds = 0
        query = select(ledger_entries).where(ledger_entries.c.subject == f"sessions/{session_id}")
        for row in self.connection.execute(query.order_by(ledger_entries.c.ledger_sequence)):
            posting = entry_of(row).posting
            span = (posting.used.from_ms, posting.used.until_ms)
            seconds += posting.used.billed_seconds
            if posting.kind is EntryKind.SESSION_CHARGE:
                assert not crosses_midnight(span)
                assert not spans or spans[-1][1] <= span[0]
                spans.append(span)
            elif posting.kind is EntryKind.REFUND:
                assert self.traces[session_id].was_told_late or spans[-1][1] == span[1]
                # What was charged last before it may have had a pause behind it, in the same row.
                waits = self.traces[session_id].waits
                until_ms = next((begin for begin, end in waits if end == span[0]), span[0])
                spans = [(begin, min(end, until_ms)) for begin, end in spans if begin < until_ms]
        return spans, seconds

    def _seal(self) -> None:
        epoch = self._do(leader.renew_leadership, "host.1")
        while self._do(ledger_seal.seal, "host.1", epoch):
            pass

    def _session(self, session_id: str) -> Session:
        return self._do(sessions.get_session, "a", session_id)

    def _do(self, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with savepoint(self.connection):
            return unit(Transaction(self.connection, self.now_ms), *args, **kwargs)


A_MODEL = {"name": "small", "digest": "0" * 64, "manifest": "{}", "package_path": "p", "create_ms": 0}


@contextmanager
def savepoint(connection: Connection) -> Iterator[None]:
    """A unit of work: whole, or not at all."""
    connection.exec_driver_sql("SAVEPOINT unit")
    try:
        yield
    except BaseException:
        connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
        raise
    finally:
        connection.exec_driver_sql("RELEASE SAVEPOINT unit")
