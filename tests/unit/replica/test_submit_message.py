"""What a generation becomes on the wire to a replica."""

import pytest

from tidemill_services.engine_client import EngineRequest
from tidemill_services.engine_client.wire import write_submit
from tidemill_serving.server.wire import read_submit


@pytest.mark.parametrize("top_p", [5e-324, 1e-50, 1e-45, 1e-40, 0.5, 1.0])
def test_a_share_that_is_allowed_reaches_the_engine_as_one_however_small_it_is(top_p: float) -> None:
    message = write_submit(1, EngineRequest(prompt_tokens=[1], max_tokens=1, top_p=top_p))
    assert 0 < read_submit(message.submit, engine_id=1).sampling.top_p == pytest.approx(top_p, abs=1e-37)
