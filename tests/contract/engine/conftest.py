"""Every test of this folder runs against every engine."""

from collections.abc import Iterator

import pytest

from tests.contract.engine.engines import ENGINES, Listener
from tidemill_serving.engine import Engine, Phase


@pytest.fixture(params=ENGINES)
def new_engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine that was not started."""
    engine = ENGINES[request.param]()
    yield engine
    engine.close()


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def engine(new_engine: Engine, listener: Listener) -> Engine:
    """An engine that is READY."""
    new_engine.start(listener)
    listener.wait_until(lambda: any(phase is Phase.READY for phase, _, _ in listener.phases))
    return new_engine
