"""What a caller may send: everything else is refused in a sentence, before it comes near a device."""

import pytest

from tests.unit.decoder.recorder import LIMITS, open_letters, request
from tidemill_serving.decoder.admission import Admission, RequestRefusedError
from tidemill_serving.engine import Sampling

ADMISSION = Admission(LIMITS, vocab_size=512, token_budget=100, open_text=open_letters)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prompt": []}, "prompt_tokens has 0 tokens; it may have 1 to 127"),
        ({"prompt": [5] * 128}, "prompt_tokens has 128 tokens; it may have 1 to 127"),
        ({"prompt": [5, 512]}, "prompt_tokens holds 512; token ids are 0 to 511"),
        ({"prompt": [-1, 5]}, "prompt_tokens holds -1; token ids are 0 to 511"),
        ({"prompt": [2**63]}, "prompt_tokens holds 9223372036854775808; token ids are 0 to 511"),
        ({"prompt": [2**80]}, "prompt_tokens must be whole numbers"),
        ({"prompt": [1.5]}, "prompt_tokens must be whole numbers"),
        ({"prompt": ["5"]}, "prompt_tokens must be whole numbers"),
        ({"prompt": [True]}, "prompt_tokens must be whole numbers"),
        ({"prompt": [[5], [6]]}, "prompt_tokens must be whole numbers"),
        ({"max_tokens": 0}, "max_tokens is 0; it must be at least 1"),
        ({"max_tokens": -3}, "max_tokens is -3; it must be at least 1"),
        ({"max_tokens": 99}, "prompt and max_tokens need 102 tokens; the cache has 100"),
        ({"stop": ("a", "")}, "a stop string is empty; it must have at least one character"),
        ({"sampling": Sampling(top_p=2.0)}, "top_p is 2.0; it must be above 0 and at most 1"),
    ],
)
def test_a_request_that_cannot_be_run_is_refused_in_a_sentence(fields, sentence):
    with pytest.raises(RequestRefusedError) as refusal:
        ADMISSION.make_sequence(request(1, **fields))
    assert str(refusal.value) == sentence


def test_an_answer_is_reserved_as_far_as_the_context_goes_and_no_further():
    roomy = Admission(LIMITS, vocab_size=512, token_budget=1000, open_text=open_letters)
    assert roomy.make_sequence(request(1, [5] * 10, 2**31)).num_reserved == LIMITS.context_length
    assert roomy.make_sequence(request(1, [5] * 10, 7)).num_reserved == 17
