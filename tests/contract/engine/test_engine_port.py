"""What every engine must do, run against each that we have, through the port alone."""

import threading
import time

import pytest

from tests.contract.engine.engines import (
    CONTEXT_LENGTH,
    LONG,
    NUM_SLOTS,
    NUM_WAITING_PLACES,
    Listener,
    idle,
    request,
)
from tidemill_serving.engine import (
    Engine,
    EngineBusyError,
    EngineStoppedError,
    FinishReason,
    GenerationRequest,
    Load,
    Phase,
    Sampling,
)


def test_a_start_goes_through_its_phases_in_order_and_never_back(engine: Engine, listener: Listener) -> None:
    phases = list(dict.fromkeys(phase for phase, _, _ in listener.phases))
    progress = [progress for _, progress, _ in listener.phases]
    assert phases == [Phase.LOADING, Phase.WARMING, Phase.READY]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, 1.0)
    assert engine.is_responsive()


def test_an_engine_says_its_load_before_it_is_started(new_engine: Engine) -> None:
    load = new_engine.load()
    assert (load.num_running, load.num_waiting) == (0, 0)


def test_start_returns_at_once_and_the_listener_hears_from_threads_of_the_engine(
    new_engine: Engine, listener: Listener
) -> None:
    new_engine.start(listener)
    listener.wait_until(lambda: any(phase is Phase.READY for phase, _, _ in listener.phases))
    assert threading.current_thread().name not in listener.threads


def test_a_generation_makes_its_tokens_and_ends_once_with_its_counts(engine: Engine, listener: Listener) -> None:
    engine.submit(request(1, max_tokens=20))
    end = listener.wait_for_end_of(1)
    assert end.finish_reason is FinishReason.LENGTH
    assert (end.num_prompt_tokens, end.num_completion_tokens) == (3, 20)
    assert len(listener.tokens_of(1)) == 20
    assert listener.outputs_of(1)[-1] is end
    assert all(output.num_completion_tokens == 0 for output in listener.outputs_of(1)[:-1])


def test_tokens_come_step_by_step_and_steps_are_numbered_upwards(engine: Engine, listener: Listener) -> None:
    engine.submit(request(1, max_tokens=20))
    listener.wait_for_end_of(1)
    numbers = [step.number for step in listener.steps]
    assert numbers == sorted(set(numbers))
    assert len([step for step in listener.steps if step.outputs]) >= 20


def test_the_same_request_is_answered_the_same_alone_and_among_others(engine: Engine, listener: Listener) -> None:
    engine.submit(request(1, max_tokens=30))
    listener.wait_for_end_of(1)
    for sequence_id in (2, 3, 4):
        engine.submit(request(sequence_id, max_tokens=40))
    engine.submit(GenerationRequest(5, (41, 41, 42), 30))
    listener.wait_for_end_of(5)
    assert listener.tokens_of(5) == listener.tokens_of(1)


def test_a_seed_repeats_what_was_drawn_and_another_draws_anew(engine: Engine, listener: Listener) -> None:
    for sequence_id, seed in ((1, 7), (2, 7), (3, 8)):
        sampling = Sampling(temperature=2.0, seed=seed)
        engine.submit(GenerationRequest(sequence_id, (40, 41), 30, sampling))
        listener.wait_for_end_of(sequence_id)
    assert listener.tokens_of(1) == listener.tokens_of(2) != listener.tokens_of(3)


def test_beyond_slots_and_waiting_places_it_is_busy_and_then_takes_again(engine: Engine, listener: Listener) -> None:
    for sequence_id in range(1, NUM_SLOTS + NUM_WAITING_PLACES + 1):
        engine.submit(request(sequence_id, LONG))
    with pytest.raises(EngineBusyError):
        engine.submit(request(99))
    engine.abort(1)
    assert listener.wait_for_end_of(1).finish_reason is FinishReason.CANCELLED
    engine.submit(request(100))
    assert not listener.outputs_of(99)


def test_the_load_counts_what_runs_and_what_waits(engine: Engine, listener: Listener) -> None:
    empty = engine.load()
    assert empty == Load(0, 0, NUM_SLOTS, empty.num_free_tokens)
    assert empty.num_free_tokens > 0
    for sequence_id in range(1, NUM_SLOTS + 2):
        engine.submit(request(sequence_id, LONG))
    listener.wait_until(lambda: engine.load().num_running == NUM_SLOTS)
    assert engine.load().num_waiting == 1
    assert engine.load().num_free_tokens < empty.num_free_tokens
    for sequence_id in range(1, NUM_SLOTS + 2):
        engine.abort(sequence_id)
    listener.wait_until(lambda: listener.steps[-1].load == empty)
    assert engine.load() == empty


@pytest.mark.parametrize("victim", [1, NUM_SLOTS + 1], ids=["running", "waiting"])
def test_an_abort_ends_a_generation_and_no_other(engine: Engine, listener: Listener, victim: int) -> None:
    for sequence_id in range(1, NUM_SLOTS + 2):
        engine.submit(request(sequence_id, LONG))
    listener.wait_until(lambda: bool(listener.tokens_of(2)))
    engine.abort(victim)
    end = listener.wait_for_end_of(victim)
    assert end.finish_reason is FinishReason.CANCELLED
    assert end.num_completion_tokens == len(listener.tokens_of(victim))
    made = len(listener.tokens_of(2))
    listener.wait_until(lambda: len(listener.tokens_of(2)) > made + 3)
    assert listener.outputs_of(victim)[-1] is end


def test_aborts_of_unknown_and_of_ended_generations_are_ignored(engine: Engine, listener: Listener) -> None:
    engine.abort(77)
    engine.submit(request(1))
    listener.wait_for_end_of(1)
    engine.abort(1)
    engine.submit(request(2))
    assert listener.wait_for_end_of(2).finish_reason is FinishReason.LENGTH
    assert len([output for output in listener.outputs_of(1) if output.finish_reason is not None]) == 1


def test_a_deadline_ends_a_generation_with_what_it_has(engine: Engine, listener: Listener) -> None:
    deadline = time.monotonic() + 0.15
    engine.submit(request(1, LONG, deadline=deadline))
    engine.submit(request(2, LONG, deadline=time.monotonic() - 1.0))
    assert listener.wait_for_end_of(2).finish_reason is FinishReason.DEADLINE
    assert not listener.tokens_of(2)
    end = listener.wait_for_end_of(1)
    assert time.monotonic() >= deadline
    assert end.finish_reason is FinishReason.DEADLINE
    assert end.num_completion_tokens == len(listener.tokens_of(1))


@pytest.mark.parametrize(
    "wrong",
    [
        GenerationRequest(1, (), 5),
        GenerationRequest(1, (40,), 0),
        GenerationRequest(1, (1 << 31,), 5),
        GenerationRequest(1, (-1,), 5),
        GenerationRequest(1, (40,) * (CONTEXT_LENGTH + 1), 5),
        GenerationRequest(1, (40,), 5, Sampling(temperature=-1.0)),
        GenerationRequest(1, (40,), 5, Sampling(temperature=1.0, top_p=0.0)),
        GenerationRequest(1, (40,), 5, Sampling(temperature=1.0, top_k=-1)),
    ],
)
def test_what_cannot_be_run_ends_with_a_sentence_and_others_go_on(
    engine: Engine, listener: Listener, wrong: GenerationRequest
) -> None:
    engine.submit(request(2, max_tokens=50))
    engine.submit(wrong)
    end = listener.wait_for_end_of(1)
    assert end.finish_reason is FinishReason.ERROR
    assert len(end.error) > 10
    assert listener.wait_for_end_of(2).finish_reason is FinishReason.LENGTH
    assert len(listener.tokens_of(2)) == 50


def test_an_answer_ends_where_the_context_ends(engine: Engine, listener: Listener) -> None:
    prompt = tuple(40 + index % 50 for index in range(CONTEXT_LENGTH - 10))
    engine.submit(GenerationRequest(1, prompt, 500))
    end = listener.wait_for_end_of(1)
    assert end.finish_reason is FinishReason.LENGTH
    assert 9 <= end.num_completion_tokens <= 11


def test_an_id_in_use_is_refused_and_free_again_after_its_end(engine: Engine, listener: Listener) -> None:
    engine.submit(request(1, LONG))
    with pytest.raises(ValueError, match="1"):
        engine.submit(request(1))
    engine.abort(1)
    listener.wait_for_end_of(1)
    engine.submit(request(1))


def test_any_thread_may_submit_and_abort(engine: Engine, listener: Listener) -> None:
    taken: list[int] = []

    def caller(first: int) -> None:
        for sequence_id in range(first, first + 20):
            try:
                engine.submit(request(sequence_id, max_tokens=8))
            except EngineBusyError:
                time.sleep(0.002)
                continue
            taken.append(sequence_id)
            if sequence_id % 3 == 0:
                engine.abort(sequence_id)

    threads = [threading.Thread(target=caller, args=(1000 * number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken
    for sequence_id in taken:
        listener.wait_for_end_of(sequence_id)
    assert idle(engine)
    for sequence_id in taken:
        ends = [output for output in listener.outputs_of(sequence_id) if output.finish_reason is not None]
        assert len(ends) == 1, sequence_id
        assert ends[0].finish_reason in (FinishReason.LENGTH, FinishReason.CANCELLED, FinishReason.STOP)


def test_an_engine_says_when_it_showed_life_last(engine: Engine, listener: Listener) -> None:
    began = time.monotonic()
    engine.submit(request(1, 3))
    listener.wait_for_end_of(1)
    assert began <= engine.last_life() <= time.monotonic()
    assert engine.is_responsive()


def test_close_ends_what_runs_and_takes_nothing_more(engine: Engine, listener: Listener) -> None:
    engine.submit(request(1, LONG))
    listener.wait_until(lambda: bool(listener.tokens_of(1)))
    engine.close()
    assert listener.end_of(1) is not None
    assert listener.wait_for_end_of(1).finish_reason is FinishReason.CANCELLED
    with pytest.raises(EngineStoppedError):
        engine.submit(request(2))
    assert not engine.is_responsive()
    engine.close()


def test_an_engine_that_is_closed_while_it_loads_ends(new_engine: Engine, listener: Listener) -> None:
    new_engine.start(listener)
    started = time.monotonic()
    new_engine.close()
    assert time.monotonic() - started < 60.0
    with pytest.raises(EngineBusyError):
        new_engine.submit(request(1))
