"""The engine with its thread, on the fake device."""

import threading
from dataclasses import replace
from datetime import timedelta

import pytest

from tests.unit.decoder.integrity import check_at_rest
from tests.unit.decoder.recorder import LIMITS, Recorder, letter_model, letters, request
from tidemill_models.errors import TokenizerError
from tidemill_serving.decoder.devices.device import DeviceError, ModelRefusedError
from tidemill_serving.decoder.devices.fake import FakeDevice, fake_answer
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import EngineBusyError, EngineStoppedError, FinishReason, Phase, Sampling

FOREVER = LIMITS.context_length


class GatedDevice(FakeDevice):
    """Runs only while its gate is open; says when a run waits there."""

    def __init__(self, tick=timedelta()):
        super().__init__(tick=tick)
        self.gate = threading.Event()
        self.gate.set()
        self.is_waiting = threading.Event()

    def _run(self, token_ids):
        self.is_waiting.set()
        assert self.gate.wait(60)
        super()._run(token_ids)

    def hold(self) -> None:
        self.is_waiting.clear()
        self.gate.clear()


class RefusingDevice(FakeDevice):
    def load(self, graph, **room):
        raise ModelRefusedError("the graph no-graph is missing")


class CrashingDevice(FakeDevice):
    def decode(self, token_ids, num_past):
        raise ZeroDivisionError("a fault of ours")


class DyingDevice(GatedDevice):
    num_runs_left = 12

    def _run(self, token_ids):
        self.num_runs_left -= 1
        if self.num_runs_left < 0:
            raise DeviceError("the device is gone")
        super()._run(token_ids)


@pytest.fixture
def open_engine():
    engines = []

    def start(device=None, **settings):
        device = device or FakeDevice()
        engine = DecoderEngine(
            letter_model(),
            device,
            DecoderSettings(**settings),
            on_idle=lambda scheduler: check_at_rest(scheduler, device),
        )
        engines.append(engine)
        recorder = Recorder()
        engine.start(recorder)
        recorder.wait_until_settled()
        return engine, recorder

    yield start
    for engine in engines:
        engine.close()


def test_a_start_goes_through_its_phases_with_growing_progress(open_engine):
    _, recorder = open_engine()
    phases = [phase for phase, _, _ in recorder.phases]
    assert list(dict.fromkeys(phases)) == [Phase.LOADING, Phase.WARMING, Phase.READY]
    progress = [progress for _, progress, _ in recorder.phases]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)


def test_generations_are_answered_with_text_tokens_usage_and_load(open_engine):
    device = GatedDevice()
    engine, recorder = open_engine(device, num_slots=2)
    device.hold()
    for i in range(4):
        engine.submit(request(i, [5 + i, 6], max_tokens=6))
    device.gate.set()
    recorder.wait_for_ends(0, 1, 2, 3)
    for i in range(4):
        answer = fake_answer([5 + i, 6], 6)
        assert recorder.tokens[i] == answer
        assert recorder.texts[i] == letters(answer)
        assert (recorder.ends[i].num_prompt_tokens, recorder.ends[i].num_completion_tokens) == (2, 6)
    assert [step.number for step in recorder.steps] == list(range(1, len(recorder.steps) + 1))
    assert max(step.load.num_running for step in recorder.steps) == 2
    last = recorder.steps[-1].load
    assert (last.num_running, last.num_waiting, last.num_free_tokens) == (0, 0, 2 * LIMITS.context_length)


def test_all_tokens_of_a_step_come_in_one_call(open_engine):
    device = GatedDevice()
    engine, recorder = open_engine(device)
    device.hold()
    for i in range(5):
        engine.submit(request(i, max_tokens=20))
    device.gate.set()
    recorder.wait_for_ends(*range(5))
    assert max(len(step.outputs) for step in recorder.steps) == 5


@pytest.mark.parametrize(
    "bad",
    [
        {"prompt": []},
        {"prompt": [5] * 500},
        {"prompt": [512]},
        {"prompt": [-1]},
        {"prompt": [2**70]},
        {"max_tokens": 0},
        {"max_tokens": -1},
        {"sampling": Sampling(temperature=float("nan"))},
        {"stop": ("",)},
    ],
)
def test_a_bad_request_ends_with_an_error_and_the_engine_goes_on(open_engine, bad):
    engine, recorder = open_engine()
    engine.submit(request(1))
    engine.submit(request(2, **bad))
    engine.submit(request(3))
    recorder.wait_for_ends(1, 2, 3)
    assert recorder.ends[2].finish_reason is FinishReason.ERROR
    assert recorder.ends[2].error
    assert recorder.tokens[1] == recorder.tokens[3] == fake_answer([5, 6, 7], 8)


def test_beyond_slots_and_waiting_places_the_engine_is_busy(open_engine):
    device = GatedDevice()
    engine, recorder = open_engine(device, num_slots=2, num_waiting_places=1)
    device.hold()
    for i in range(3):
        engine.submit(request(i))
    with pytest.raises(EngineBusyError):
        engine.submit(request(3))
    device.gate.set()
    recorder.wait_for_ends(0, 1, 2)
    engine.submit(request(3))
    recorder.wait_for_ends(3)


def test_an_id_that_is_in_use_is_refused_and_may_be_used_again_after(open_engine):
    device = GatedDevice()
    engine, recorder = open_engine(device)
    device.hold()
    engine.submit(request(1))
    with pytest.raises(ValueError, match="sequence_id 1"):
        engine.submit(request(1))
    device.gate.set()
    recorder.wait_for_ends(1)
    recorder.ends.clear()
    engine.submit(request(1))
    recorder.wait_for_ends(1)


def test_the_load_counts_what_was_submitted_a_moment_ago(open_engine):
    device = GatedDevice()
    engine, recorder = open_engine(device, num_slots=2)
    device.hold()
    engine.submit(request(0))
    assert device.is_waiting.wait(60)
    engine.submit(request(1))
    assert engine.load().num_running + engine.load().num_waiting == 2
    device.gate.set()
    recorder.wait_for_ends(0, 1)


def test_an_abort_ends_a_generation_within_one_step(open_engine):
    device = GatedDevice()
    engine, recorder = open_engine(device)
    is_held = threading.Event()

    def hold_after_three(_output):  # in the engine's thread: between two runs
        if len(recorder.tokens[1]) == 3:
            device.hold()
            is_held.set()

    recorder.on_output = hold_after_three
    engine.submit(request(1, max_tokens=FOREVER))
    assert is_held.wait(60)
    assert device.is_waiting.wait(60)
    engine.abort(1)
    device.gate.set()
    recorder.wait_for_ends(1)
    assert recorder.ends[1].finish_reason is FinishReason.CANCELLED
    assert len(recorder.tokens[1]) <= 3 + 1


def test_an_abort_before_the_first_step_and_of_unknown_ids_is_fine(open_engine):
    device = GatedDevice()
    engine, recorder = open_engine(device)
    device.hold()
    engine.submit(request(1))
    assert device.is_waiting.wait(60)
    engine.submit(request(2))
    engine.abort(2)
    engine.abort(99)
    device.gate.set()
    recorder.wait_for_ends(1, 2)
    assert recorder.ends[2].finish_reason is FinishReason.CANCELLED
    assert recorder.tokens[2] == []
    engine.abort(1)


def test_a_tokenizer_that_cannot_be_read_fails_the_start_with_its_sentence():
    def refuse(_prompt):
        raise TokenizerError("is not a tokenizer", path="tokenizer.json")

    engine, recorder = (
        DecoderEngine(replace(letter_model(), open_text=refuse), FakeDevice(), DecoderSettings()),
        Recorder(),
    )
    engine.start(recorder)
    recorder.wait_until_settled()
    phase, _, detail = recorder.phases[-1]
    assert phase is Phase.FAILED
    assert detail == "The model cannot be served: tokenizer.json: is not a tokenizer."
    engine.close()


def test_a_graph_that_is_refused_fails_the_start_with_its_sentence():
    engine, recorder = DecoderEngine(letter_model(), RefusingDevice(), DecoderSettings()), Recorder()
    engine.submit(request(1))
    engine.start(recorder)
    assert recorder.wait_until_settled() is Phase.FAILED
    assert recorder.phases[-1][2] == "The model cannot be served: the graph no-graph is missing."
    assert recorder.ends[1].finish_reason is FinishReason.ERROR
    with pytest.raises(EngineStoppedError, match="missing"):
        engine.submit(request(2))
    engine.close()
    assert not engine.is_responsive()


def test_a_fault_of_ours_fails_the_start_with_a_sentence(open_engine):
    _, recorder = open_engine(CrashingDevice())
    assert recorder.phases[-1][0] is Phase.FAILED
    assert "ZeroDivisionError" in recorder.phases[-1][2]


def test_a_device_that_dies_fails_the_engine_and_ends_every_generation(open_engine):
    device = DyingDevice()
    engine, recorder = open_engine(device, num_slots=2)
    device.hold()
    for i in range(4):
        engine.submit(request(i, max_tokens=FOREVER))
    device.gate.set()
    recorder.wait_for_ends(0, 1, 2, 3)
    recorder.wait_until(lambda: recorder.phases[-1][0] is Phase.FAILED)
    assert {end.finish_reason for end in recorder.ends.values()} == {FinishReason.ERROR}
    with pytest.raises(EngineStoppedError):
        engine.submit(request(9))


def test_a_listener_that_fails_does_not_stop_the_engine(open_engine):
    engine, recorder = open_engine()

    def fail(output):
        raise RuntimeError("a fault of the listener")

    recorder.on_output = fail
    engine.submit(request(1))
    recorder.wait_for_ends(1)
    engine.submit(request(2))
    recorder.wait_for_ends(2)


def test_closing_ends_what_runs_and_the_thread(open_engine):
    engine, recorder = open_engine(num_slots=1)
    engine.submit(request(1, max_tokens=FOREVER))
    engine.submit(request(2, max_tokens=FOREVER))
    recorder.wait_until(lambda: bool(recorder.tokens.get(1)))
    assert engine.is_responsive()
    engine.close()
    assert not engine._thread.is_alive()
    assert not engine.is_responsive()
    assert set(recorder.ends) == {1, 2}
    with pytest.raises(EngineStoppedError):
        engine.submit(request(3))
    engine.close()


def test_closing_an_engine_that_was_never_started_is_fine():
    DecoderEngine(letter_model(), FakeDevice(), DecoderSettings()).close()


def test_a_wedged_run_is_seen_and_a_slow_one_is_not(open_engine, monkeypatch):
    device = GatedDevice()
    engine, recorder = open_engine(device)
    device.hold()
    engine.submit(request(1))
    assert device.is_waiting.wait(60)
    assert engine.is_responsive()
    began = engine.last_life()
    monkeypatch.setattr(engine._heartbeat, "_clock", lambda: began + 600.0)
    assert not engine.is_responsive()
    device.gate.set()
    recorder.wait_for_ends(1)


def test_the_first_long_prompt_of_a_slow_model_is_not_taken_for_a_wedge(open_engine, monkeypatch):
    device = GatedDevice(tick=timedelta(milliseconds=100))  # so 512 tokens may well take 2 s, by what 16 and 64 took
    engine, recorder = open_engine(device)
    device.hold()
    engine.submit(request(1, max_tokens=1))
    assert device.is_waiting.wait(60)
    began = engine.last_life()
    monkeypatch.setattr(engine._heartbeat, "_clock", lambda: began + 8.0)
    assert engine.is_responsive()
    monkeypatch.setattr(engine._heartbeat, "_clock", lambda: began + 600.0)
    assert not engine.is_responsive()
    device.gate.set()
    recorder.wait_for_ends(1)
