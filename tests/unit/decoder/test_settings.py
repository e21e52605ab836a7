"""The engine's settings name what is wrong with them."""

import os
from datetime import timedelta

import pytest

from tidemill_serving.decoder.settings import DecoderSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_slots": 0},
        {"num_waiting_places": -1},
        {"num_threads": -1},
        {"max_chunk_length": 1},
        {"token_budget": 0},
        {"inter_token_budget": timedelta(0)},
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DecoderSettings(**wrong)


def test_there_is_a_thread_for_each_processor_unless_told_otherwise():
    assert DecoderSettings().threads() == len(os.sched_getaffinity(0))
    assert DecoderSettings(num_threads=3).threads() == 3
