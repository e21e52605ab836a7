"""The engine's greedy answers equal Hugging Face's on the same weights, token by token."""

from dataclasses import replace

import pytest

from tests.integration.decoder.models import POSITIONS, TINY, reference, running_engine
from tests.unit.decoder.recorder import Recorder, hot, request
from tidemill_models.package import load_package
from tidemill_models.tokenizer import Tokenizer
from tidemill_serving.decoder.devices.cpu import CpuDevice
from tidemill_serving.decoder.engine import DecoderEngine
from tidemill_serving.decoder.model import DecoderModel
from tidemill_serving.decoder.settings import DecoderSettings
from tidemill_serving.engine import FinishReason, Phase

MAX_TOKENS, CASES = reference()
EOS = 2


def test_the_stored_reference_is_worth_comparing_with():
    assert len({tuple(case.prompt) for case in CASES}) == 32
    assert {len(case.prompt) for case in CASES} >= {1, 2, 3, 500}
    assert sum(case.tokens[-1] == EOS for case in CASES) >= 4
    assert all(len(set(case.tokens)) >= 0.7 * len(case.tokens) for case in CASES)
    assert len({tuple(case.tokens) for case in CASES}) == 32


@pytest.mark.parametrize("package", [TINY, POSITIONS], ids=["standard", "positions"])
@pytest.mark.parametrize(("num_slots", "max_chunk_length"), [(1, 512), (3, 16), (8, 64), (32, 512)])
def test_prompts_that_join_and_leave_in_mid_run_get_the_reference_answers(package, num_slots, max_chunk_length):
    with running_engine(package, num_slots=num_slots, num_waiting_places=32, max_chunk_length=max_chunk_length) as (
        engine,
        recorder,
    ):
        order = sorted(range(32), key=lambda i: i * 13 % 32)
        starters, later = order[: num_slots + 1], order[num_slots + 1 :]

        def join(output):
            """Whoever makes its third token, or ends, lets another one in."""
            made = len(recorder.tokens[output.sequence_id])
            if later and (made == 3 or output.finish_reason is not None):
                submit(later.pop(0))

        def submit(i):
            engine.submit(request(i, CASES[i].prompt, MAX_TOKENS))

        recorder.on_output = join
        for i in starters:
            submit(i)
        recorder.wait_for_ends(*range(32))
        assert engine.load().num_running == 0
    tokenizer = Tokenizer.from_file(load_package(package).tokenizer_path)
    for i, case in enumerate(CASES):
        assert recorder.tokens[i] == case.tokens, f"case {i}, a prompt of {len(case.prompt)} tokens"
        ends_early = case.tokens[-1] == EOS
        assert recorder.ends[i].finish_reason is (FinishReason.STOP if ends_early else FinishReason.LENGTH)
        assert recorder.ends[i].num_prompt_tokens == len(case.prompt)
        assert recorder.ends[i].num_completion_tokens == len(case.tokens)
        assert recorder.texts[i] == tokenizer.decode(case.tokens)


def test_cancelled_neighbours_leave_the_others_answers_alone():
    with running_engine(TINY, num_slots=4, num_waiting_places=64, max_chunk_length=16) as (engine, recorder):

        def cancel(output):
            if output.sequence_id >= 100 and len(recorder.tokens[output.sequence_id]) == output.sequence_id % 7:
                engine.abort(output.sequence_id)

        recorder.on_output = cancel
        chosen = range(5, 32, 2)
        for i in chosen:
            engine.submit(request(100 + i, CASES[i - 1].prompt, MAX_TOKENS, sampling=hot(seed=i)))
            engine.submit(request(i, CASES[i].prompt, MAX_TOKENS))
        recorder.wait_for_ends(*chosen, *(100 + i for i in chosen))
        assert all(recorder.tokens[i] == CASES[i].tokens for i in chosen)
        assert any(end.finish_reason is FinishReason.CANCELLED for end in recorder.ends.values())


def test_a_seed_gives_the_same_text_alone_and_in_a_crowd():
    sampling = hot(seed=42, temperature=1.2, top_p=0.95)
    with running_engine(TINY, num_slots=6, num_waiting_places=64, max_chunk_length=16) as (engine, recorder):
        engine.submit(request(0, CASES[20].prompt, 40, sampling=sampling))
        recorder.wait_for_ends(0)
        for i in range(1, 16):
            engine.submit(request(i, CASES[i].prompt, 3 * i, sampling=hot(seed=i)))
        engine.submit(request(99, CASES[20].prompt, 40, sampling=sampling))
        recorder.wait_for_ends(99, *range(1, 16))
    assert recorder.tokens[99] == recorder.tokens[0]
    assert recorder.tokens[0] != CASES[20].tokens[:40]


def test_a_stop_string_ends_the_reference_answer_where_it_stands():
    case = CASES[10]
    tokenizer = Tokenizer.from_file(load_package(TINY).tokenizer_path)
    text = tokenizer.decode(case.tokens)
    stop = text[20:24]
    with running_engine(TINY) as (engine, recorder):
        engine.submit(request(1, case.prompt, MAX_TOKENS, stop=(stop,)))
        recorder.wait_for_ends(1)
    assert recorder.ends[1].finish_reason is FinishReason.STOP
    assert recorder.texts[1] == text[: text.index(stop)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "The model cannot be served: the graph model.onnx is missing."),
        (b"\x08\x0bnot a graph", "The model cannot be served: the graph model.onnx cannot be loaded: "),
    ],
)
def test_a_model_that_cannot_be_loaded_fails_the_engine_with_a_sentence(tmp_path, content, sentence):
    graph = tmp_path / "model.onnx"
    if content is not None:
        graph.write_bytes(content)
    model = replace(DecoderModel.from_package(load_package(TINY)), graph=graph)
    engine, recorder = DecoderEngine(model, CpuDevice(num_threads=1, spinning=False), DecoderSettings()), Recorder()
    engine.start(recorder)
    assert recorder.wait_until_settled() is Phase.FAILED
    assert recorder.phases[-1][2].startswith(sentence)
    engine.close()


def test_a_prompt_that_leaves_room_for_one_token_gets_one():
    with running_engine(TINY, num_slots=2) as (engine, recorder):
        engine.submit(request(1, [77] * 1023, 10))
        engine.submit(request(2, [77] * 1024, 10))
        engine.submit(request(3, CASES[3].prompt, MAX_TOKENS))
        recorder.wait_for_ends(1, 2, 3)
    assert recorder.ends[1].finish_reason is FinishReason.LENGTH
    assert len(recorder.tokens[1]) == 1
    assert recorder.ends[2].error == "prompt_tokens has 1024 tokens; it may have 1 to 1023"
    assert recorder.tokens[3] == CASES[3].tokens
