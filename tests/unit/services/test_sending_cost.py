"""What sending costs, as it is measured while pieces come, and how long pieces are to gather for it."""

import pytest

from tidemill_services.engine_client import SendingCost
from tidemill_services.engine_client.sending_cost import FIRST_COST_SECONDS


class Streaming:
    """Pieces that come every 10 ms, on a clock of its own."""

    def __init__(self, num_processors: int) -> None:
        self.now = 100.0
        self.spent = 0.0
        self.cost = SendingCost(num_processors, lambda: self.spent)

    def run(self, seconds: float, *, streams: int, piece_seconds: float, generations: int = 0) -> None:
        for _ in range(generations):
            self.cost.generation_began()
        for _ in range(round(seconds * 100)):
            self.now += 0.01
            self.spent += streams * piece_seconds
            self.cost.pieces_came(streams, self.now)


@pytest.mark.parametrize(
    ("num_processors", "microseconds"),
    [(2, 3_750), (4, 1_875), (8, 937), (12, 625), (13, 600), (256, 600)],  # the loop is never more than one processor
)
def test_pieces_gather_until_sending_takes_the_wanted_share_of_the_processors(
    num_processors: int, microseconds: int
) -> None:
    streaming = Streaming(num_processors)
    streaming.run(5.0, streams=16, piece_seconds=0.000_3)
    assert streaming.cost.gather_microseconds == pytest.approx(microseconds, rel=0.02)


def test_a_cheaper_way_is_noticed_within_seconds() -> None:
    streaming = Streaming(2)
    streaming.run(5.0, streams=16, piece_seconds=0.000_8)
    before = streaming.cost.gather_microseconds
    streaming.run(2.0, streams=16, piece_seconds=0.000_1)
    assert streaming.cost.gather_microseconds < before / 5


def test_what_beginning_generations_costs_counts_for_nothing() -> None:
    streaming = Streaming(2)
    untouched = streaming.cost.gather_microseconds
    for _ in range(50):
        streaming.run(0.1, streams=4, piece_seconds=0.003, generations=20)
    streaming.now += 60.0  # nothing comes for a while, and much else is done
    streaming.spent += 30.0
    streaming.run(0.2, streams=4, piece_seconds=0.000_2)
    assert streaming.cost.gather_microseconds == untouched == round(1e6 * FIRST_COST_SECONDS / 0.08)
