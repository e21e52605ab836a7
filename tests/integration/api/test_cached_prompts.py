"""What was computed for a prompt is told in the usage of the next one, and is never another account's."""

import json
import urllib.request

from tests.integration.api.conftest import Wire
from tests.server_process import ServerProcess
from tidemill.v1 import inference_pb2

PROMPT = "the mill by the sea turns when the tide is high and rests when it is low " * 4
EXACT = inference_pb2.GenerationOptions(max_tokens=8, sampling=inference_pb2.Sampling(temperature=0), exact=True)


def ask(wire: Wire, prompt: str, **fields: object) -> tuple[str, int, int]:
    """The answer, and the prompt's tokens: all, and those that were known."""
    responses = list(wire.generate(prompt, **fields))
    usage = responses[-1].end.usage
    return "".join(each.delta.text for each in responses), usage.prompt_tokens, usage.cached_prompt_tokens


def test_the_usage_says_how_much_of_a_prompt_was_known(wire: Wire) -> None:
    wire.start()
    first, num_tokens, num_cached = ask(wire, PROMPT)
    assert num_tokens > 80
    assert num_cached == 0
    again, _, num_cached = ask(wire, PROMPT)
    assert num_cached == min(num_tokens // 64 * 64, num_tokens - 2)
    exact, _, num_cached_exactly = ask(wire, PROMPT, options=EXACT)
    assert num_cached_exactly == num_cached
    assert first == again == exact


def test_another_accounts_prompts_are_not_known(wire: Wire, neighbour: Wire) -> None:
    wire.start()
    neighbour.start()
    ask(wire, f"to others: {PROMPT}")
    assert ask(neighbour, f"to others: {PROMPT}")[2] == 0
    assert ask(neighbour, f"to others: {PROMPT}")[2] > 0


def test_openai_usage_has_the_cached_tokens(server: ServerProcess, wire: Wire) -> None:
    wire.start()
    cached = []
    for _ in range(2):
        body = {"model": "tiny-llama", "prompt": f"by http: {PROMPT}", "max_tokens": 4, "temperature": 0, "exact": True}
        headers = {"authorization": f"Bearer {server.api_key}", "content-type": "application/json"}
        request = urllib.request.Request(f"http://{server.http}/v1/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            cached.append(json.load(answer)["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached[0] == 0
    assert cached[1] >= 64
