"""What happens to many sessions at once: one that cannot be settled, a fault of ours, keeps none of the others."""

from collections.abc import Callable

import pytest

from tests.contract.store.conftest import Customer, new_customer
from tests.contract.store.test_session_activity import Story, begin
from tidemill_services.domain.errors import InsufficientCreditsError
from tidemill_services.domain.session import EndReason, Session
from tidemill_services.store import session_funds, sessions
from tidemill_services.store.database import Transaction

Spoil = Callable[[str], None]


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Spoil:
    """Have nothing of a session be settled, until `monkeypatch.undo`."""
    settled = session_funds.settle

    def spoil(session_id: str) -> None:
        def settle(tx: Transaction, before: Session, after: Session) -> Session:
            if before.session_id == session_id:
                raise InsufficientCreditsError
            return settled(tx, before, after)

        monkeypatch.setattr(session_funds, "settle", settle)

    return spoil


@pytest.fixture
async def bad(customer: Customer) -> Story:
    return await begin(customer)


@pytest.fixture
async def good(bad: Story) -> Story:
    """One that is changed after it, whose clock runs from the same moment on."""
    other = await new_customer(bad.customer.database, "second")
    await bad.at(0, sessions.model_was_lost, "small")
    session, _ = await other.start()
    await bad.at(0, sessions.model_became_ready, "small")
    return Story(other, await other.get(session.session_id))


async def test_when_a_model_is_lost_all_clocks_stand_and_what_was_not_charged_is_charged_later(
    bad: Story, good: Story, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
):
    spoil(bad.session_id)
    await bad.at(50_000, sessions.model_was_lost, "small", lost_ms=bad.start_ms + 10_000)
    assert [(await each.get()).clock_since_ms for each in (bad, good)] == [None, None]
    monkeypatch.undo()
    await bad.at(90_000, sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    for each in (bad, good):
        ended = await each.get()
        assert (ended.billed_ms, ended.settled_ms, ended.held_microcredits) == (10_000, 10_000, 0)


async def test_when_a_model_is_ready_all_clocks_run(
    bad: Story, good: Story, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
):
    await bad.at(10_000, sessions.model_was_lost, "small")
    spoil(bad.session_id)
    await bad.at(20_000, sessions.model_became_ready, "small")
    assert [(await each.get()).clock_since_ms for each in (bad, good)] == [bad.start_ms + 20_000] * 2
    monkeypatch.undo()
    await bad.at(25_000, sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    assert [(await each.get()).settled_ms for each in (bad, good)] == [15_000] * 2


async def test_when_all_are_stopped_one_that_cannot_be_settled_stays_open_and_is_not_billed_further(
    bad: Story, good: Story, spoil: Spoil, monkeypatch: pytest.MonkeyPatch
):
    spoil(bad.session_id)
    stopped = await bad.at(20_000, sessions.stop_sessions_of_model, "small", EndReason.ADMIN)
    assert stopped == [good.session_id]
    assert (await good.get()).settled_ms == 20_000
    assert (await bad.get()).is_open
    monkeypatch.undo()
    keys = [bad.customer.key_id, good.customer.key_id]
    await bad.at(60_000, sessions.stop_sessions_of_keys, keys, EndReason.REVOKED)
    assert [(await each.get()).settled_ms for each in (bad, good)] == [20_000] * 2
    assert [(await each.get()).end_reason for each in (bad, good)] == [EndReason.REVOKED, EndReason.ADMIN]
