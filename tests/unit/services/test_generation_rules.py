import math

import pytest

from tidemill_services.domain.errors import ContextExceededError, FieldInvalidError
from tidemill_services.domain.generation import GenerationOptions, WaitPolicy, check_options, tokens_to_make


@pytest.mark.parametrize(
    ("options", "field"),
    [
        (GenerationOptions(max_tokens=0), "options.max_tokens"),
        (GenerationOptions(temperature=-0.1), "options.sampling.temperature"),
        (GenerationOptions(temperature=2.1), "options.sampling.temperature"),
        (GenerationOptions(temperature=math.nan), "options.sampling.temperature"),
        (GenerationOptions(temperature=math.inf), "options.sampling.temperature"),
        (GenerationOptions(top_p=0.0), "options.sampling.top_p"),
        (GenerationOptions(top_p=1.1), "options.sampling.top_p"),
        (GenerationOptions(top_p=math.nan), "options.sampling.top_p"),
        (GenerationOptions(top_k=-1), "options.sampling.top_k"),
        (GenerationOptions(min_p=1.1), "options.sampling.min_p"),
        (GenerationOptions(min_p=math.nan), "options.sampling.min_p"),
        (GenerationOptions(repetition_penalty=0.0), "options.sampling.repetition_penalty"),
        (GenerationOptions(repetition_penalty=10.1), "options.sampling.repetition_penalty"),
        (GenerationOptions(presence_penalty=2.1), "options.sampling.presence_penalty"),
        (GenerationOptions(frequency_penalty=-2.1), "options.sampling.frequency_penalty"),
        (GenerationOptions(logit_bias=((5, math.nan),)), "options.sampling.logit_bias[5]"),
        (GenerationOptions(logit_bias=((5, 100.1),)), "options.sampling.logit_bias[5]"),
        (GenerationOptions(logit_bias=tuple((token, 1.0) for token in range(301))), "options.sampling.logit_bias"),
        (GenerationOptions(top_logprobs=21), "options.top_logprobs"),
        (GenerationOptions(top_logprobs=-1), "options.top_logprobs"),
        (GenerationOptions(stop=("x",) * 17), "options.stop"),
        (GenerationOptions(stop=("fine", "")), "options.stop[1]"),
        (GenerationOptions(stop=("x" * 257,)), "options.stop[0]"),
        (GenerationOptions(wait=WaitPolicy(max_wait_seconds=-1)), "options.wait.max_wait"),
        (GenerationOptions(wait=WaitPolicy(max_wait_seconds=3601)), "options.wait.max_wait"),
    ],
)
def test_a_value_outside_its_limits_is_refused_by_its_field(options: GenerationOptions, field: str) -> None:
    with pytest.raises(FieldInvalidError) as refused:
        check_options(options)
    assert refused.value.field == field


def test_the_edges_are_allowed() -> None:
    check_options(GenerationOptions())
    check_options(GenerationOptions(max_tokens=1, temperature=2.0, top_p=1.0, top_k=0, stop=("x" * 256,) * 16))


def test_an_answer_is_cut_to_the_room_that_the_prompt_leaves() -> None:
    assert tokens_to_make(10, 300, 512, "input") == 300
    assert tokens_to_make(500, 300, 512, "input") == 12


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    with pytest.raises(ContextExceededError, match=r"512.*512|600.*512") as refused:
        tokens_to_make(600, 1, 512, "inputs[3]")
    assert refused.value.field == "inputs[3]"
    with pytest.raises(ContextExceededError):
        tokens_to_make(512, 1, 512, "input")
