"""Plans driven by hand: what they ask for, and what they make of the replies."""

from datetime import timedelta

import pytest

from tidemill.errors import DrainingError, FieldInvalidError, QueueFullError, StoreUnavailableError, UnreachableError
from tidemill.methods import GET_MODEL
from tidemill.plan_run import PlanRun
from tidemill.steps import Deadline, Line, Plan, Sleep, Unary, build, unary
from tidemill.v1 import inference_pb2, model_pb2


def call(timeout: float | None = None) -> PlanRun[model_pb2.Model]:
    plan: Plan[model_pb2.Model] = unary(GET_MODEL, model_pb2.GetModelRequest(), Deadline(timeout))
    return PlanRun(plan)


def pauses_until_it_gives_up(run: PlanRun[model_pb2.Model], error: Exception) -> list[float]:
    pauses = []
    for _ in range(100):
        try:
            step = run.next_step()
        except type(error):
            return pauses
        if isinstance(step, Sleep):
            pauses.append(step.seconds)
        else:
            assert isinstance(step, Unary)
            run.fail(error)
    pytest.fail("It never gave up.")


@pytest.mark.parametrize("error", [UnreachableError(), DrainingError(), StoreUnavailableError()])
def test_what_is_away_for_a_moment_is_asked_again_with_growing_pauses(error: Exception) -> None:
    pauses = pauses_until_it_gives_up(call(), error)
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    assert sum(pauses) < 1


def test_other_refusals_are_not_asked_again() -> None:
    assert pauses_until_it_gives_up(call(), QueueFullError()) == []


def test_a_pause_that_the_server_asks_for_is_kept_and_a_long_one_is_left_to_the_caller() -> None:
    assert pauses_until_it_gives_up(call(), DrainingError(retry_after=timedelta(seconds=2))) == [2.0, 2.0, 2.0]
    assert pauses_until_it_gives_up(call(), DrainingError(retry_after=timedelta(seconds=60))) == []


def test_no_pause_goes_beyond_the_timeout() -> None:
    assert pauses_until_it_gives_up(call(timeout=1), DrainingError(retry_after=timedelta(seconds=2))) == []


def test_a_call_gets_what_is_left_of_the_timeout() -> None:
    step = call(timeout=60).next_step()
    assert isinstance(step, Unary)
    assert step.timeout is not None
    assert 0 < step.timeout <= 60
    step = call().next_step()
    assert isinstance(step, Unary)
    assert step.timeout is None


def test_a_reply_is_the_result() -> None:
    run = call()
    assert isinstance(run.next_step(), Unary)
    run.answer(model_pb2.Model(name="models/a"))
    assert run.next_step() is None
    assert run.result.name == "models/a"


def test_a_line_that_is_closed_first_ends_the_call_that_comes_later() -> None:
    class Call:
        is_cancelled = False

        def leave(self) -> None:
            self.is_cancelled = True

    line, opened = Line(), Call()
    line.close()
    line.attach(opened)
    assert opened.is_cancelled


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"top_k": 1.5}, "top_k"), ({"seed": 2**63}, "seed"), ({"temperature": 0.5, "top_p": "a"}, "top_p")],
)
def test_a_field_that_no_message_can_hold_is_named(fields: dict, name: str) -> None:
    with pytest.raises(FieldInvalidError, match=name) as caught:
        build(inference_pb2.Sampling, **fields)
    assert caught.value.field == name


def test_an_absent_field_stays_absent_and_a_zero_does_not() -> None:
    built = build(inference_pb2.Sampling, temperature=0.0, seed=None)
    assert built.HasField("temperature")
    assert not built.HasField("seed")


def test_a_long_value_is_not_repeated_whole_in_the_error() -> None:
    with pytest.raises(FieldInvalidError) as caught:
        build(inference_pb2.Input, prompt="\ud800" * 10_000)
    assert len(str(caught.value)) < 300
