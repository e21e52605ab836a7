"""What takes real time: deadlines, and idling."""

import threading
import time
from datetime import timedelta

from tests.integration.decoder.models import TINY, running_engine
from tests.unit.decoder.recorder import LIMITS, Recorder, letter_model, request
from tidemill_serving.decoder.devices.fake import FakeDevice
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import FinishReason


def test_a_deadline_ends_a_generation_when_it_comes():
    device = FakeDevice(tick=timedelta(milliseconds=25))  # 3 s until the context is full
    engine, recorder = DecoderEngine(letter_model(), device, DecoderSettings()), Recorder()
    engine.start(recorder)
    recorder.wait_until_settled()
    deadline = time.monotonic() + 2.0
    engine.submit(request(1, max_tokens=LIMITS.context_length, deadline=deadline))
    recorder.wait_for_ends(1)
    assert recorder.ends[1].finish_reason is FinishReason.DEADLINE
    assert time.monotonic() >= deadline
    assert recorder.tokens[1]
    engine.close()


def test_an_idle_engine_shows_life_and_does_not_burn_the_processor():
    with running_engine(TINY) as (engine, recorder):
        engine.submit(request(1))
        recorder.wait_for_ends(1)
        before = time.process_time()
        threading.Event().wait(2.0)
        assert time.process_time() - before < 0.2
        assert engine.is_responsive()
