import threading

import grpc
import pytest

from tests.integration.api.conftest import MODEL, Wire, none_runs_to_its_end, text_of, wait_until
from tests.server_process import ServerProcess
from tidemill.v1 import inference_pb2


@pytest.mark.rule("S21")
def test_a_prompt_goes_through_the_whole_wire_and_the_session_pays(wire: Wire) -> None:
    started = wire.start()
    responses = list(wire.generate(max_tokens=12))
    assert text_of(responses)
    counted = [response.sequence_number for response in responses if not response.HasField("keep_alive")]
    assert counted == list(range(1, len(counted) + 1))
    end = responses[-1].end
    assert end.finish_reason in (inference_pb2.FINISH_REASON_LENGTH, inference_pb2.FINISH_REASON_STOP)
    num_tokens = sum(response.delta.num_tokens for response in responses)
    assert 1 <= num_tokens <= end.usage.completion_tokens <= 12
    assert end.usage.prompt_tokens > 1
    assert end.usage.total_duration.ToTimedelta() >= end.usage.time_to_first_token.ToTimedelta()
    stopped = wire.stop()
    bill = stopped.session.bill
    assert stopped.session.name == started.session.name
    assert bill.final
    assert bill.billed_seconds == -(-bill.billed_milliseconds // 1000) >= 1
    assert bill.cost_microcredits == bill.billed_seconds * bill.price_microcredits_per_second > 0


def test_a_chat_goes_through_the_whole_wire(wire: Wire) -> None:
    wire.start()
    chat = inference_pb2.Chat(messages=[inference_pb2.Message(role="user", content="hello there")])
    with_prompt = list(wire.generate(input=inference_pb2.Input(chat=chat)))
    assert text_of(with_prompt)
    chat.add_generation_prompt = False
    without = list(wire.generate(input=inference_pb2.Input(chat=chat)))
    assert without[-1].end.usage.prompt_tokens < with_prompt[-1].end.usage.prompt_tokens


def test_the_same_greedy_prompt_gives_the_same_text_alone_and_beside_others(wire: Wire) -> None:
    wire.start()
    prompts = [f"story number {number} is about a mill" for number in range(12)]
    alone = [text_of(list(wire.generate(prompt, max_tokens=24))) for prompt in prompts]
    together: dict[int, str] = {}

    def run(number: int) -> None:
        together[number] = text_of(list(wire.generate(prompts[number], max_tokens=24)))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [together[number] for number in range(len(prompts))] == alone
    assert len(set(alone)) > 1


def test_a_seed_gives_the_same_text_again(wire: Wire) -> None:
    wire.start()

    def sampled(seed: int) -> str:
        options = inference_pb2.GenerationOptions(
            max_tokens=24, sampling=inference_pb2.Sampling(temperature=1.5, top_p=1.0, seed=seed)
        )
        return text_of(list(wire.generate(options=options)))

    assert sampled(7) == sampled(7)
    assert len({sampled(seed) for seed in range(4)}) > 1


def test_a_stop_string_ends_the_answer_and_never_shows(wire: Wire) -> None:
    wire.start()
    whole = text_of(list(wire.generate(max_tokens=40)))
    stop = whole[len(whole) // 2 :][:3]
    options = inference_pb2.GenerationOptions(
        max_tokens=40, sampling=inference_pb2.Sampling(temperature=0), stop=[stop]
    )
    responses = list(wire.generate(options=options))
    assert text_of(responses) == whole[: whole.index(stop)]
    assert responses[-1].end.finish_reason == inference_pb2.FINISH_REASON_STOP


def test_a_cancelled_stream_gives_its_place_back(slow_server: ServerProcess, slow_wire: Wire) -> None:
    slow_wire.start()
    with none_runs_to_its_end(slow_server, slow_wire):
        stream = slow_wire.generate(max_tokens=1000)
        next(response for response in stream if response.WhichOneof("event") == "delta")
        wait_until(lambda: slow_wire.model().demand == 1, "the demand of one")
        stream.cancel()  # type: ignore[attr-defined]


def test_a_deadline_ends_the_stream(slow_server: ServerProcess, slow_wire: Wire) -> None:
    slow_wire.start()
    list(slow_wire.generate())
    request = inference_pb2.GenerateRequest(
        model=MODEL,
        input=inference_pb2.Input(prompt="on and on"),
        options=inference_pb2.GenerationOptions(max_tokens=1000, sampling=inference_pb2.Sampling(temperature=0)),
    )
    seen = []
    with none_runs_to_its_end(slow_server, slow_wire):
        with pytest.raises(grpc.RpcError) as ended:
            seen.extend(slow_wire.inference.Generate(request, metadata=slow_wire.metadata, timeout=0.5))
        assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_sixteen_streams_run_at_once_on_eight_slots(slow_wire: Wire) -> None:
    slow_wire.start()
    list(slow_wire.generate())
    streams = [slow_wire.generate(f"stream {number}", max_tokens=200) for number in range(16)]
    ends = [list(stream)[-1].end for stream in streams]
    assert [end.usage.completion_tokens for end in ends] == [200] * 16
    durations = [end.usage.total_duration.ToTimedelta().total_seconds() for end in ends]
    waits = [end.usage.queue_duration.ToTimedelta().total_seconds() for end in ends]
    assert (sum(durations) - sum(waits)) / max(durations) > 3  # one after the other it would be 1


def test_a_batch_answers_each_input_by_its_index_and_a_bad_one_fails_alone(wire: Wire) -> None:
    wire.start()
    prompts = [f"prompt {number}" for number in range(40)]
    expected = [text_of(list(wire.generate(prompt))) for prompt in prompts]
    inputs = [inference_pb2.Input(prompt=prompt) for prompt in prompts]
    inputs[3] = inference_pb2.Input(prompt="")
    request = inference_pb2.GenerateBatchRequest(
        model=MODEL,
        inputs=inputs,
        options=inference_pb2.GenerationOptions(max_tokens=8, sampling=inference_pb2.Sampling(temperature=0)),
    )
    responses = list(wire.inference.GenerateBatch(request, metadata=wire.metadata, timeout=60))
    results = {response.result.index: response.result for response in responses if response.HasField("result")}
    assert sorted(results) == list(range(40))
    assert [results[index].text for index in range(40) if index != 3] == expected[:3] + expected[4:]
    failed = results[3].end
    assert failed.finish_reason == inference_pb2.FINISH_REASON_ERROR
    assert failed.error.field.startswith("inputs[3]")
