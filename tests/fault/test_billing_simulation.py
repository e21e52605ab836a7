"""Sessions and the ledger on a fake clock, against a trace that the test keeps by itself. A seed is a whole story."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fault.billing_story import Story
from tests.scale import count
from tidemill_services.store.backend import Backend
from tidemill_services.store.opening import open_backend

NUM_BLOCKS = 4


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend = open_backend(f"sqlite:///{tmp_path / 'tidemill.db'}")
    backend.prepare()
    yield backend
    backend.dispose()


@pytest.mark.parametrize("block", range(NUM_BLOCKS))
def test_what_is_charged_equals_an_independent_trace(backend: Backend, block: int):
    num_seeds = count(200, full=20_000) // NUM_BLOCKS
    for seed in range(block * num_seeds, (block + 1) * num_seeds):
        with backend.write_engine.connect() as connection, connection.begin() as transaction:
            try:
                Story(seed, connection).play()
            except Exception as error:
                raise AssertionError(f"seed {seed}") from error
            transaction.rollback()
