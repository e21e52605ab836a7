"""From what the domain made to the bodies and chunks of OpenAI's API."""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tidemill_models.manifest import Manifest
from tidemill_services.batch import BatchResult
from tidemill_services.domain.generation import FinishReason, PromptInput, Usage
from tidemill_services.domain.logprobs import Logprobs
from tidemill_services.domain.model import ModelRecord
from tidemill_services.gateway.openai_logprobs import chat_logprobs, num_characters, text_logprobs
from tidemill_services.gateway.openai_requests import CompletionRequest
from tidemill_services.generation_events import Waiting

STREAM_END = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Dialect:
    """In what the two pages differ."""

    id_prefix: str
    object: str
    chunk_object: str
    logprobs_field: str  # of the request, which says how many of the likeliest tokens are told
    part: Literal["message", "text"]  # where a choice has its text


CHAT = Dialect("chatcmpl-", "chat.completion", "chat.completion.chunk", "top_logprobs", "message")
TEXT = Dialect("cmpl-", "text_completion", "text_completion", "logprobs", "text")


class Answer:
    """One request's answer: whole, or in chunks that all carry its id."""

    def __init__(
        self, dialect: Dialect, asked: CompletionRequest, *, created: int, model: str, fingerprint: str
    ) -> None:
        self._dialect = dialect
        self._include_usage = asked.include_usage
        self._num_choices = asked.num_choices
        self._echoes = _prompt_texts(asked) if asked.echo else ()
        self._text_offsets: dict[int, int] = {}  # by choice: where its next token's text begins
        self._head = {
            "id": dialect.id_prefix + secrets.token_hex(12),
            "created": created,  # seconds since 1970
            "model": model,
            "system_fingerprint": fingerprint,
        }

    def whole(self, results: Iterable[BatchResult], usage: dict[str, Any]) -> dict[str, Any]:
        """The body of an answer that is not streamed."""
        choices = [
            self._choice(
                result.index,
                self._whole_part(self._echoed(result.index) + result.text),
                result.end.finish_reason,
                self._logprobs(result.index, result.logprobs),
            )
            for result in results
        ]
        return {**self._head, "object": self._dialect.object, "choices": choices, "usage": usage}

    def opening(self, index: int) -> bytes:
        """The first chunk of a chat's choice; a text's choice has none, unless its prompt is echoed."""
        if self._dialect.part == "text":
            echo = self._echoed(index)
            return self.delta(index, echo) if echo else b""
        return self._chunk([self._choice(index, {"delta": {"role": "assistant", "content": ""}}, None)])

    def delta(self, index: int, text: str, logprobs: Logprobs | None = None) -> bytes:
        """A chunk with more text."""
        part = {"text": text} if self._dialect.part == "text" else {"delta": {"content": text}}
        return self._chunk([self._choice(index, part, None, self._logprobs(index, logprobs))])

    def ending(self, index: int, finish_reason: FinishReason) -> bytes:
        """The last chunk of a choice."""
        part: dict[str, Any] = {"text": ""} if self._dialect.part == "text" else {"delta": {}}
        return self._chunk([self._choice(index, part, finish_reason)])

    def usage(self, usage: dict[str, Any]) -> bytes:
        """The chunk behind all choices, if it was asked for."""
        return self._chunk([], usage) if self._include_usage else b""

    def _whole_part(self, text: str) -> dict[str, Any]:
        if self._dialect.part == "text":
            return {"text": text}
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def _echoed(self, index: int) -> str:
        return self._echoes[index // self._num_choices] if self._echoes else ""

    def _logprobs(self, index: int, logprobs: Logprobs | None) -> dict[str, Any] | None:
        if logprobs is None:
            return None
        if self._dialect.part == "message":
            return chat_logprobs(logprobs)
        offset = self._text_offsets.get(index, 0)
        self._text_offsets[index] = offset + num_characters(logprobs)
        return text_logprobs(logprobs, offset)

    def _choice(
        self,
        index: int,
        part: dict[str, Any],
        finish_reason: FinishReason | None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {"index": index, **part, "logprobs": logprobs, "finish_reason": finish_reason}

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None = None) -> bytes:
        chunk: dict[str, Any] = {**self._head, "object": self._dialect.chunk_object, "choices": choices}
        if self._include_usage:
            chunk["usage"] = usage
        return b"data: " + json_bytes(chunk) + b"\n\n"


def _prompt_texts(asked: CompletionRequest) -> tuple[str, ...]:
    return tuple(prompt.prompt for _, prompt in asked.prompts if isinstance(prompt, PromptInput))


def keep_alive(event: Waiting) -> bytes:
    """A comment, which readers skip, that says what the answer waits for."""
    status = event.status
    phase = f" {status.phase} {status.progress:.0%}" if status.phase else ""
    return f": {status.model_state}{phase}, {status.queue_position} before\n\n".encode()


def error_event(body: dict[str, Any]) -> bytes:
    """What ends a stream that broke, instead of its last chunks."""
    return b"event: error\ndata: " + json_bytes(body) + b"\n\n"


def usage_of(usages: Sequence[Usage], num_choices: int) -> dict[str, Any]:
    """The sum; a prompt counts once, however many choices it has. `usages` are in the order of the choices."""
    prompt_tokens = sum(usage.prompt_tokens for usage in usages[::num_choices])
    completion_tokens = sum(usage.completion_tokens for usage in usages)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": sum(usage.cached_prompt_tokens for usage in usages[::num_choices])},
    }


def model_body(record: ModelRecord) -> dict[str, Any]:
    """A model as `/v1/models` shows it; the length of its context by vLLM's name."""
    manifest = Manifest.from_json(record.manifest_json)
    context = {"max_model_len": manifest.decoder.context_length} if manifest.decoder else {}
    created = record.create_ms // 1000
    return {"id": record.name, "object": "model", "created": created, "owned_by": "tidemill", **context}


def json_bytes(value: object) -> bytes:
    """ASCII: some readers of event streams take other line separators in a text for ends of lines."""
    return json.dumps(value, separators=(",", ":")).encode()
