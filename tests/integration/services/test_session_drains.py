"""What follows a stop, where the last call ends in the moment in which the store is asked."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.store.conftest import add_models, new_customer
from tidemill_services.domain.session import SessionState
from tidemill_services.session_drains import SessionDrains
from tidemill_services.session_guard import SessionGuard
from tidemill_services.session_signs import SessionSigns
from tidemill_services.session_streams import SessionStreams
from tidemill_services.store import sessions
from tidemill_services.store.sqlite import SqliteDatabase


class InterruptedDatabase(SqliteDatabase):
    """A database during whose next reading something happens."""

    meanwhile: Callable[[], None] | None = None

    async def read(self, unit: Any, /, *args: Any, **kwargs: Any) -> Any:
        found = await super().read(unit, *args, **kwargs)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()
        return found


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[InterruptedDatabase]:
    database = InterruptedDatabase(tmp_path / "tidemill.db")
    await database.open()
    yield database
    await database.close()


async def test_a_session_ends_although_its_last_call_ended_while_the_store_was_read(
    database: InterruptedDatabase,
) -> None:
    await database.write(add_models, "small", "large")
    customer = await new_customer(database, "first")
    session, _ = await customer.start()
    await database.write(sessions.model_became_ready, "small")
    streams = SessionStreams()
    guard = SessionGuard(database, "host.1", streams, SessionSigns())
    drains = SessionDrains(database, streams, grace_seconds=3_600, tell=guard.tell)
    call = streams.call(session.session_id)
    call.__enter__()
    await customer.stop()
    database.meanwhile = lambda: call.__exit__(None, None, None)
    await drains._look()
    assert (await customer.get(session.session_id)).state is SessionState.ENDED
