"""The wall: whose sequence is whose, what is taken, and what becomes of those who go."""

import asyncio
import math

import pytest

from tests.unit.replica.hand_engine import HandEngine
from tidemill.engine.v1 import engine_pb2 as pb
from tidemill_serving.engine import FinishReason, Phase, SequenceOutput
from tidemill_serving.server import gathering
from tidemill_serving.server.caller import Caller
from tidemill_serving.server.switchboard import Switchboard
from tidemill_serving.start_times import StartTimes
from tidemill_telemetry.tracing import NoTracing


class Wall:
    """A switchboard before a ready engine that a test moves by hand."""

    def __init__(self, num_places: int = 100, max_pending_size: int = 1000) -> None:
        self.engine = HandEngine(num_places)
        self.num_changes = 0
        self.board = Switchboard(self.engine, max_pending_size, self._changed, NoTracing(), StartTimes())
        self.engine.start(self.board)

    def _changed(self) -> None:
        self.num_changes += 1

    async def ready(self) -> "Wall":
        self.engine.become(Phase.READY)
        await asyncio.sleep(0)
        return self

    async def connect(self) -> Caller:
        """A caller that has read its first status."""
        caller = self.board.connect()
        message = await caller.next_message()
        assert message is not None
        assert message.HasField("status")
        return caller

    def submit(self, caller: Caller, sequence_id: int = 1, **fields: object) -> None:
        values: dict[str, object] = {"prompt_tokens": [5, 6], "max_tokens": 10, "top_p": 1.0}
        self.board.submit(caller, pb.Submit(sequence_id=sequence_id, **(values | fields)))  # type: ignore[arg-type]


async def next_step(caller: Caller) -> pb.Step:
    async with asyncio.timeout(60):
        message = await caller.next_message()
    assert message is not None
    assert message.HasField("step"), message
    return message.step


def gather_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Have steps gather so long, whatever is asked for."""
    monkeypatch.setattr(gathering, "SHORTEST_SECONDS", seconds)
    monkeypatch.setattr(gathering, "LONGEST_SECONDS", seconds)


def nothing_waits(caller: Caller) -> bool:
    """Whether the caller's writer would have to wait now."""
    waiting = caller.next_message()
    try:
        waiting.send(None)
    except StopIteration:
        return False
    waiting.close()
    return True


async def test_two_callers_may_use_the_same_id_and_each_hears_of_its_own_sequence_only() -> None:
    wall = await Wall().ready()
    one, other = await wall.connect(), await wall.connect()
    wall.submit(one, 1, prompt_tokens=[10])
    wall.submit(other, 1, prompt_tokens=[20])
    first, second = wall.engine.requests
    wall.engine.step(SequenceOutput(first, "a", (1,)), SequenceOutput(second, "b", (2,)))

    for caller, text in ((one, "a"), (other, "b")):
        step = await next_step(caller)
        assert [(output.sequence_id, output.text) for output in step.outputs] == [(1, text)]


async def test_a_step_is_one_message_with_all_sequences_of_a_caller_and_the_load() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    for sequence_id in (1, 2, 3):
        wall.submit(caller, sequence_id)
    wall.engine.make("x")

    step = await next_step(caller)
    assert step.number == 1
    assert [output.sequence_id for output in step.outputs] == [1, 2, 3]
    assert (step.load.num_running, step.load.num_slots, step.load.num_free_tokens) == (3, 100, 1000)
    assert nothing_waits(caller)


async def test_steps_that_the_writer_could_not_send_yet_become_one_message_in_order() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    wall.submit(caller, 2)
    for letter in "tide":
        wall.engine.make(letter)
    wall.engine.finish(2)
    await asyncio.sleep(0)

    step = await next_step(caller)
    assert step.number == 5
    assert [(output.sequence_id, output.text, list(output.token_ids)) for output in step.outputs] == [
        (1, "tide", [7, 7, 7, 7]),
        (2, "tide", [7, 7, 7, 7]),
    ]
    assert step.outputs[0].finish_reason == pb.FINISH_REASON_UNSPECIFIED
    assert step.outputs[1].finish_reason == pb.FINISH_REASON_STOP
    assert (step.outputs[1].num_prompt_tokens, step.outputs[1].num_completion_tokens) == (3, 5)


async def test_a_status_is_sent_before_the_tokens_that_wait() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller)
    wall.engine.make("x")
    wall.board.tell_status()
    await asyncio.sleep(0)

    message = await caller.next_message()
    assert message is not None
    assert message.HasField("status")
    assert (await next_step(caller)).outputs[0].text == "x"


async def test_what_the_engine_took_carries_every_field_of_the_submit() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1, temperature=0.5, top_p=0.25, top_k=40, seed=-3, stop=["\n", "END"])
    (request,) = wall.engine.requests.values()
    assert request.prompt_tokens == (5, 6)
    assert request.max_tokens == 10
    assert (request.sampling.temperature, request.sampling.top_p) == (0.5, 0.25)
    assert (request.sampling.top_k, request.sampling.seed) == (40, -3)
    assert request.stop == ("\n", "END")
    assert request.deadline is None


async def test_time_left_becomes_a_deadline_and_a_missing_seed_stays_missing() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    before = asyncio.get_running_loop().time()
    wall.submit(caller, 1, time_left={"seconds": 2, "nanos": 500_000_000})
    (request,) = wall.engine.requests.values()
    assert request.sampling.seed is None
    assert request.deadline is not None
    assert before + 2.5 <= request.deadline <= asyncio.get_running_loop().time() + 2.5


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt_tokens": []}, "prompt_tokens is empty"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"temperature": -0.5}, "temperature must be a number of at least 0, not -0.5"),
        ({"temperature": math.nan}, "temperature must be a number of at least 0, not nan"),
        ({"temperature": math.inf}, "temperature must be a number of at least 0, not inf"),
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1, not 0.0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1, not 1.5"),
        ({"top_p": math.nan}, "top_p must be above 0 and at most 1, not nan"),
        ({"stop": ["ok", ""]}, "stop holds an empty string"),
    ],
)
async def test_what_cannot_be_run_ends_with_a_sentence_and_the_stream_goes_on(
    fields: dict[str, object], words: str
) -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1, **fields)
    (output,) = (await next_step(caller)).outputs
    assert output.finish_reason == pb.FINISH_REASON_ERROR
    assert words in output.error
    assert not wall.engine.requests

    wall.submit(caller, 2)
    assert len(wall.engine.requests) == 1


async def test_an_id_that_is_not_above_the_last_one_ends_what_runs_under_it() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 7)
    (engine_id,) = wall.engine.requests
    wall.submit(caller, 7)
    (output,) = (await next_step(caller)).outputs
    assert (output.sequence_id, output.finish_reason) == (7, pb.FINISH_REASON_ERROR)
    assert "not above 7" in output.error
    assert wall.engine.aborted == [engine_id]

    wall.engine.finish(engine_id, FinishReason.CANCELLED)
    await asyncio.sleep(0)
    assert nothing_waits(caller)


async def test_a_full_engine_rejects_and_nothing_runs() -> None:
    wall = await Wall(num_places=1).ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    wall.submit(caller, 2)
    (output,) = (await next_step(caller)).outputs
    assert (output.sequence_id, output.finish_reason) == (2, pb.FINISH_REASON_REJECTED)
    assert list(caller.engine_ids) == [1]


async def test_nothing_is_taken_before_the_model_is_ready() -> None:
    wall = Wall()
    caller = await wall.connect()
    wall.submit(caller, 1)
    assert (await next_step(caller)).outputs[0].finish_reason == pb.FINISH_REASON_REJECTED
    assert not wall.engine.requests


async def test_a_draining_replica_takes_nothing_new_and_what_runs_goes_on() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    wall.board.drain()
    status = await caller.next_message()
    assert status is not None
    assert status.status.phase == pb.PHASE_DRAINING

    wall.submit(caller, 2)
    wall.engine.make("on")
    step = await next_step(caller)
    assert step.outputs[0].finish_reason == pb.FINISH_REASON_REJECTED
    assert (await next_step(caller)).outputs[0].text == "on"


async def test_a_model_that_became_ready_during_the_drain_does_not_undo_it() -> None:
    wall = Wall()
    wall.board.drain()
    await wall.ready()
    assert wall.board.stage.phase is Phase.DRAINING


async def test_abort_reaches_the_engine_under_its_own_id_and_its_end_reaches_the_caller() -> None:
    wall = await Wall().ready()
    one, other = await wall.connect(), await wall.connect()
    wall.submit(one, 1)
    wall.submit(other, 1)
    _, of_other = wall.engine.requests
    wall.board.abort(other, 1)
    wall.board.abort(other, 99)
    assert wall.engine.aborted == [of_other]
    wall.engine.finish(of_other, FinishReason.CANCELLED)
    assert (await next_step(other)).outputs[0].finish_reason == pb.FINISH_REASON_CANCELLED


async def test_a_caller_that_goes_takes_its_sequences_with_it_and_no_others() -> None:
    wall = await Wall().ready()
    one, other = await wall.connect(), await wall.connect()
    wall.submit(one, 1)
    wall.submit(one, 2)
    wall.submit(other, 1)
    *of_one, _of_other = wall.engine.requests
    wall.board.disconnect(one)
    assert wall.engine.aborted == of_one
    assert wall.board.num_running == 1

    wall.engine.make("late")  # the engine has not come to the aborts yet
    assert (await next_step(other)).outputs[0].text == "late"
    assert nothing_waits(one)


async def test_the_end_of_the_last_sequence_is_told_so_that_a_drain_can_end() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    wall.submit(caller, 2)
    first, second = wall.engine.requests
    before = wall.num_changes
    wall.engine.finish(first)
    await asyncio.sleep(0)
    assert wall.num_changes == before
    wall.engine.finish(second)
    await asyncio.sleep(0)
    assert wall.num_changes == before + 1
    assert wall.board.num_running == 0


async def test_a_caller_that_does_not_read_is_cut_and_its_memory_is_bounded() -> None:
    wall = await Wall(max_pending_size=1000).ready()
    slow, quick = await wall.connect(), await wall.connect()
    wall.submit(slow, 1)
    wall.submit(quick, 1)
    of_slow, of_quick = wall.engine.requests
    for _ in range(20):
        wall.engine.make("x" * 100)
        await asyncio.sleep(0)
        assert (await next_step(quick)).outputs[0].text == "x" * 100
    assert slow.overflowed
    assert wall.engine.aborted == [of_slow]
    assert await slow.next_message() is None
    assert wall.board.num_running == 1
    assert of_quick in wall.engine.requests


async def test_rejections_that_nobody_reads_are_bounded_too() -> None:
    wall = await Wall(num_places=0, max_pending_size=100).ready()
    caller = await wall.connect()
    for sequence_id in range(1, 1000):
        wall.submit(caller, sequence_id)
    assert caller.overflowed
    assert await caller.next_message() is None


async def test_an_engine_that_failed_leaves_no_sequence_open() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    wall.engine.become(Phase.FAILED, 0.0, "The disk is gone.")
    await asyncio.sleep(0)
    message = await caller.next_message()
    assert message is not None
    assert (message.status.phase, message.status.detail) == (pb.PHASE_FAILED, "The disk is gone.")
    (output,) = (await next_step(caller)).outputs
    assert (output.finish_reason, output.error) == (pb.FINISH_REASON_ERROR, "The disk is gone.")
    assert wall.board.num_running == 0


async def test_closing_sends_what_waits_and_then_ends_every_stream() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    wall.engine.make("last")
    await asyncio.sleep(0)
    wall.board.close()
    assert (await next_step(caller)).outputs[0].text == "last"
    assert await caller.next_message() is None
    late = await wall.connect()
    assert await late.next_message() is None


async def test_the_engines_thread_wakes_the_loop_once_for_all_that_it_said_meanwhile() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    loop = asyncio.get_running_loop()
    wakes = 0
    original = loop.call_soon_threadsafe

    def counted(*arguments: object) -> asyncio.Handle:
        nonlocal wakes
        wakes += 1
        return original(*arguments)  # type: ignore[arg-type]

    loop.call_soon_threadsafe = counted  # type: ignore[method-assign, assignment]
    for _ in range(5):
        wall.engine.make("x")
    assert wakes == 1
    assert (await next_step(caller)).outputs[0].text == "xxxxx"


async def test_the_first_step_is_passed_on_at_once_and_those_that_follow_wait_for_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gather_for(monkeypatch, 3600.0)
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    (engine_id,) = wall.engine.requests
    wall.engine.make("a")
    assert (await next_step(caller)).outputs[0].text == "a"
    for text in "bcd":
        wall.engine.make(text)
        await asyncio.sleep(0)
    assert nothing_waits(caller)
    wall.engine.finish(engine_id)
    (output,) = (await next_step(caller)).outputs
    assert (output.text, output.finish_reason) == ("bcd", pb.FINISH_REASON_STOP)
    assert not wall.board._unheard  # nothing is kept of who has ended
    assert not wall.board._owners


async def test_what_waits_is_passed_on_when_its_time_is_over_and_then_the_next_step_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gather_for(monkeypatch, 0.02)
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    for text in "abc":
        wall.engine.make(text)
        assert (await next_step(caller)).outputs[0].text == text
    await asyncio.sleep(0.1)  # nothing comes meanwhile
    gather_for(monkeypatch, 3600.0)
    wall.engine.make("d")
    assert (await next_step(caller)).outputs[0].text == "d"


async def test_the_first_and_the_last_of_a_sequence_wait_for_nothing_and_leave_the_others_to_gather(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gather_for(monkeypatch, 3600.0)
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    wall.engine.make("a")
    assert (await next_step(caller)).outputs[0].text == "a"
    wall.engine.make("b")
    await asyncio.sleep(0)
    assert nothing_waits(caller)
    wall.submit(caller, 2)
    wall.engine.make("c")
    assert [(output.sequence_id, output.text) for output in (await next_step(caller)).outputs] == [(2, "c")]
    assert nothing_waits(caller)
    wall.engine.make("d")
    wall.engine.finish(min(wall.engine.requests))
    (ended,) = (await next_step(caller)).outputs
    assert (ended.sequence_id, ended.text, ended.finish_reason) == (1, "bcd", pb.FINISH_REASON_STOP)
    assert nothing_waits(caller)
    wall.board.close()
    assert [(output.sequence_id, output.text) for output in (await next_step(caller)).outputs] == [(2, "d")]


async def test_what_gathers_goes_along_with_what_the_writer_has_not_taken_of_its_sequence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gather_for(monkeypatch, 3600.0)
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    for text in "ab":
        wall.engine.make(text)
        await asyncio.sleep(0)
    wall.submit(caller, 2)
    wall.engine.make("c")
    await asyncio.sleep(0)
    assert {each.sequence_id: each.text for each in (await next_step(caller)).outputs} == {1: "abc", 2: "c"}
    assert nothing_waits(caller)


async def test_a_pause_of_the_engine_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    gather_for(monkeypatch, 0.02)
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1)
    for number in range(200):  # of each three some gather
        wall.engine.make("x")
        if number % 3 == 2:
            await asyncio.sleep(0)
    text = ""
    while len(text) < 200:
        async with asyncio.timeout(30):
            message = await caller.next_message()
        assert message is not None
        text += message.step.outputs[0].text
    assert text == "x" * 200


async def test_sequences_ask_together_for_how_long_steps_gather_until_they_end() -> None:
    wall = await Wall().ready()
    caller = await wall.connect()
    wall.submit(caller, 1, gather_microseconds=5_000)
    wall.submit(caller, 2, gather_microseconds=7_000)
    wall.submit(caller, 3, gather_microseconds=1_000, top_p=7.0)  # cannot be run
    assert wall.board._gathering.seconds == pytest.approx(0.012)
    wall.engine.make("x")
    wall.engine.finish(min(wall.engine.requests))
    await asyncio.sleep(0)
    assert wall.board._gathering.seconds == pytest.approx(0.007)
    wall.board.disconnect(caller)
    assert wall.board._gathering.microseconds == 0
    assert not wall.board._unheard


async def test_a_sequence_that_the_engine_refused_is_not_waited_for() -> None:
    wall = await Wall(num_places=0).ready()
    caller = await wall.connect()
    wall.submit(caller, 1, gather_microseconds=5_000)
    assert not wall.board._unheard
    assert wall.board._gathering.microseconds == 0
