"""What both clients share: where they call, what they assume, and how their arguments become plans."""

import itertools
import uuid
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TypeAlias, TypedDict, TypeGuard, cast

from tidemill import connection
from tidemill.errors import FieldInvalidError
from tidemill.inputs import ChatMessages, chat_input, is_list, prompt_input
from tidemill.plans import batches, generations
from tidemill.plans.models import OnProgress
from tidemill.plans.sessions import Wanted
from tidemill.steps import Deadline, Plan
from tidemill.v1 import inference_pb2

Prompts: TypeAlias = str | Sequence[str]
Chats: TypeAlias = ChatMessages | Sequence[ChatMessages]


class MoreOptions(TypedDict, total=False):
    """What a generation may be told besides the old service's parameters; all by keyword."""

    model: str
    """models/{model} or the bare name; the client's when absent, else the key's default."""
    session: str
    """sessions/{session} that pays; the key's open session of the model when absent."""
    stop: str | Sequence[str]
    """The answer ends before any of these; at most 16."""
    seed: int
    """The same seed gives the same text."""
    top_k: int
    """Only this many of the likeliest tokens."""
    exact: bool
    """The answer must not depend on what else ran before."""
    min_p: float
    """Only tokens that are at least this share of the likeliest one's probability."""
    repetition_penalty: float
    """Above 1 tokens of the prompt and the answer come up less; 0.1 to 10, 1 is none."""
    presence_penalty: float
    """Above 0 tokens that are in the answer come up less; -2 to 2."""
    frequency_penalty: float
    """The same for each time that they are in the answer."""
    logit_bias: Mapping[int, float]
    """Token ids, and what is added to their logits, -100 to 100; at most 300."""
    ignore_eos: bool
    """Go on when the model ends its answer, to `max_tokens`."""
    top_logprobs: int
    """Have the log-probability of each token, and of so many of the likeliest in its place, 0 to 20: see `logprobs`."""
    fail_fast: bool
    """Raise ModelColdError at once when the model is not running; it wakes all the same."""
    max_wait: timedelta
    """The longest wait for a replica; 10 minutes when absent."""
    on_progress: OnProgress
    """Called with a Progress while the generation waits."""
    timeout: float
    """Seconds for the whole generation; the client's when absent."""


class SessionOptions(TypedDict, total=False):
    """What a session may be told at its start and later; all by keyword. What is absent has the server's default."""

    idle_timeout: timedelta
    """It ends when nothing ran for so long; 15 minutes when absent."""
    max_duration: timedelta
    """It ends so long after its clock first ran; 12 hours when absent."""
    max_spend_microcredits: int
    """It ends when it has cost that; no limit when absent."""
    labels: Mapping[str, str]
    """Your own; at most 16."""


class Face:
    """The settings of one client."""

    def __init__(
        self,
        api_key: str | None,
        custom_env_var: str | None,
        target: str | None,
        ca_file: str | None,
        model: str | None,
        timeout: float | None,
    ) -> None:
        self._connection = connection.resolve(api_key, custom_env_var, target, ca_file)
        connection.check_ca_file(self._connection.ca_file)
        connection.check_text(model, "model")
        self._model = model or ""
        self._timeout = timeout
        Deadline(timeout)  # refuses one that may not be
        self._id = uuid.uuid4().hex
        self._holders = itertools.count(1)

    @property
    def target(self) -> str:
        """host:port of the server."""
        return self._connection.target

    def _named(self, model: str | None) -> str:
        return self._model if model is None else model

    def _deadline(self, timeout: float | None = None) -> Deadline:
        return Deadline(self._timeout if timeout is None else timeout)

    def _new_holder(self) -> str:
        """A holder for one `with client.session()`, so that those in other threads stay open."""
        return f"{self._id}-{next(self._holders)}"

    def _wanted(self, method: str, options: SessionOptions) -> Wanted:
        """What the arguments of `method` ask for. Raises FieldInvalidError naming one that it does not have."""
        unknown = sorted(set(options) - set(SessionOptions.__annotations__))
        if unknown:
            raise FieldInvalidError(f"{method}() has no parameter {unknown[0]!r}.", field=unknown[0])
        return Wanted(**options)

    def _settings(
        self,
        method: str,
        max_tokens: int | None,
        temperature: float | None,
        top_p: float | None,
        more: MoreOptions,
    ) -> generations.Settings:
        """What the arguments of `method` ask for. Raises FieldInvalidError naming one that it does not have."""
        unknown = sorted(set(more) - set(MoreOptions.__annotations__))
        if unknown:
            raise FieldInvalidError(f"{method}() has no parameter {unknown[0]!r}.", field=unknown[0])
        if not callable(more.get("on_progress", print)):
            raise FieldInvalidError("on_progress must be a function that takes a Progress.", field="on_progress")
        given = MoreOptions(**more)
        if "model" not in given and "session" not in given:
            given["model"] = self._model
        if "timeout" not in given and self._timeout is not None:
            given["timeout"] = self._timeout
        return generations.Settings(max_tokens=max_tokens, temperature=temperature, top_p=top_p, **given)


def one_prompt(prompt: Prompts) -> inference_pb2.Input:
    """The only prompt of a stream. Raises FieldInvalidError for a list."""
    if is_list(prompt):
        raise FieldInvalidError(
            "A list of prompts needs stream=False: several answers cannot share a stream.", field="input.prompt"
        )
    return prompt_input(cast("str", prompt))


def one_chat(messages: Chats, *, add_generation_prompt: bool, template: str | None) -> inference_pb2.Input:
    """The only chat of a stream. Raises FieldInvalidError for a list of them."""
    if _is_chats(messages):
        raise FieldInvalidError(
            "A list of message lists needs stream=False: several answers cannot share a stream.",
            field="input.chat.messages",
        )
    return chat_input(cast("ChatMessages", messages), add_generation_prompt=add_generation_prompt, template=template)


def prompt_texts(prompt: Prompts, settings: generations.Settings) -> Plan[str | list[str]]:
    """One text for a prompt, a list of texts for a list of prompts."""
    if not is_list(prompt):
        return generations.complete_text(prompt_input(cast("str", prompt)), settings)
    return batches.complete_texts([prompt_input(one, f"inputs[{index}]") for index, one in enumerate(prompt)], settings)


def chat_texts(
    messages: Chats, settings: generations.Settings, *, add_generation_prompt: bool, template: str | None
) -> Plan[str | list[str]]:
    """One text for a chat, a list of texts for a list of chats."""

    def source(chat: ChatMessages, where: str) -> inference_pb2.Input:
        return chat_input(chat, add_generation_prompt=add_generation_prompt, template=template, where=where)

    if not _is_chats(messages):
        return generations.complete_text(source(cast("ChatMessages", messages), "input"), settings)
    sources = [source(chat, f"inputs[{index}]") for index, chat in enumerate(messages)]
    return batches.complete_texts(sources, settings)


def any_input(source: str | ChatMessages, where: str = "input") -> inference_pb2.Input:
    """A prompt or a chat."""
    if is_list(source):
        return chat_input(cast("ChatMessages", source), where=where)
    return prompt_input(cast("str", source), where)


def any_inputs(sources: Sequence[str | ChatMessages]) -> list[inference_pb2.Input]:
    """Prompts and chats. Raises FieldInvalidError for anything but a list of them."""
    if not is_list(sources):
        raise FieldInvalidError("sources must be a list of prompts and chats.", field="inputs")
    return [any_input(source, f"inputs[{index}]") for index, source in enumerate(sources)]


def _is_chats(messages: Chats) -> TypeGuard[Sequence[ChatMessages]]:
    return is_list(messages) and len(messages) > 0 and is_list(messages[0])
