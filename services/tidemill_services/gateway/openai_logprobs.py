"""Log-probabilities in the two shapes of OpenAI's API."""

from typing import Any

from tidemill_services.domain.logprobs import Candidate, Logprobs


def chat_logprobs(logprobs: Logprobs) -> dict[str, Any]:
    """As a chat's choice has them."""
    content = [
        {**_chat_candidate(chosen), "top_logprobs": [_chat_candidate(each) for each in top]} for chosen, top in logprobs
    ]
    return {"content": content, "refusal": None}


def text_logprobs(logprobs: Logprobs, offset: int) -> dict[str, Any]:
    """As a text's choice has them; `offset` is where the first token's text begins, in characters.

    The likeliest are told by their texts, so of several tokens with one text the likeliest counts; the chosen one is
    always among them.
    """
    tokens, token_logprobs, top_logprobs, text_offset = [], [], [], []
    for chosen, top in logprobs:
        tokens.append(_text(chosen))
        token_logprobs.append(chosen.logprob)
        text_offset.append(offset)
        offset += len(tokens[-1])
        by_text: dict[str, float] = {}
        for each in (*top, chosen):
            by_text.setdefault(_text(each), each.logprob)
        top_logprobs.append(by_text)
    return {
        "tokens": tokens,
        "token_logprobs": token_logprobs,
        "top_logprobs": top_logprobs,
        "text_offset": text_offset,
    }


def num_characters(logprobs: Logprobs) -> int:
    """Of all the tokens' texts."""
    return sum(len(_text(chosen)) for chosen, _ in logprobs)


def _chat_candidate(candidate: Candidate) -> dict[str, Any]:
    return {"token": _text(candidate), "logprob": candidate.logprob, "bytes": list(candidate.text)}


def _text(candidate: Candidate) -> str:
    return candidate.text.decode(errors="replace")
