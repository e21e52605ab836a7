"""What a generation becomes on the wire to a replica."""

from collections import deque

import pytest

from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_services.engine_client import EngineRequest
from tidemill_services.engine_client.wire import take_next, write_abort, write_submit
from tidemill_serving.server.wire import read_submit


@pytest.mark.parametrize("top_p", [5e-324, 1e-50, 1e-45, 1e-40, 0.5, 1.0])
def test_a_share_that_is_allowed_reaches_the_engine_as_one_however_small_it_is(top_p: float) -> None:
    message = write_submit(1, EngineRequest(prompt_tokens=[1], max_tokens=1, top_p=top_p))
    assert 0 < read_submit(message.submit, engine_id=1).sampling.top_p == pytest.approx(top_p, abs=1e-37)


def outgoing(*num_tokens: int) -> deque[pb.ConnectRequest]:
    """Generations with prompts of those lengths; 0 is an abort."""
    return deque(
        write_submit(number, EngineRequest(prompt_tokens=[1] * length, max_tokens=1)) if length else write_abort(number)
        for number, length in enumerate(num_tokens, start=1)
    )


def ids(message: pb.ConnectRequest) -> list[int]:
    command = message.submit if message.HasField("submit") else message.abort
    return [command.sequence_id, *(submit.sequence_id for submit in message.more_submits)]


@pytest.mark.parametrize(
    ("num_tokens", "messages"),
    [
        ((5,), [[1]]),
        ((5, 5, 5), [[1, 2, 3]]),
        ((5, 5, 0, 5), [[1, 2], [3, 4]]),
        ((0, 0, 5), [[1], [2, 3]]),
        ((8_000, 192, 1, 9_000, 1), [[1, 2], [3], [4], [5]]),
        ((1,) * 40, [list(range(1, 34)), list(range(34, 41))]),
    ],
)
def test_what_is_sent_at_once_shares_a_message_in_its_order_as_long_as_it_is_small(
    num_tokens: tuple[int, ...], messages: list[list[int]]
) -> None:
    waiting = outgoing(*num_tokens)
    sent = []
    while waiting:
        sent.append(ids(take_next(waiting)))
    assert sent == messages
