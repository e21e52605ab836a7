"""`tidemill complete`: one prompt, one answer or several."""

import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from tidemill.cli import exits, options
from tidemill.cli import sampling_options as sampling
from tidemill.cli.completions import Shown
from tidemill.cli.input import read_text
from tidemill.cli.output import short
from tidemill.cli.payment import Payment
from tidemill.cli.progress import WaitDisplay
from tidemill.client import Client
from tidemill.errors import PromptEmptyError
from tidemill.face import MoreOptions
from tidemill.results import Completion
from tidemill.streams import TextStream


def complete(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text; - reads it from standard input.")],
    model: options.ModelOption = None,
    system: Annotated[str, typer.Option(help="What the model should be told before the prompt.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Go on from the text itself, without the chat template.")] = False,
    n: Annotated[int, typer.Option("--n", min=1, help="So many answers; the prompt is paid once.")] = 1,
    echo: Annotated[bool, typer.Option("--echo", help="Begin each answer with the prompt, which --raw sends.")] = False,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    seed: options.Seed = None,
    stop: sampling.Stop = None,
    min_p: sampling.MinP = None,
    repetition_penalty: sampling.RepetitionPenalty = None,
    presence_penalty: sampling.PresencePenalty = None,
    frequency_penalty: sampling.FrequencyPenalty = None,
    logit_bias: sampling.LogitBias = None,
    ignore_eos: sampling.IgnoreEos = False,
    exact: options.Exact = False,
    logprobs: sampling.Logprobs = None,
    session: Annotated[str, typer.Option(help="The session that pays.  [default: the key's open one]")] = "",
    no_session: options.NoSession = False,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Answer one prompt.

    The prompt is sent as the user's message when the model has a chat template, unless --raw is given. When the key has
    no open session, one is opened for this answer and stopped after it; its bill is shown. With --n the answers come
    when all are whole, and the exit code is 1 when any of them broke.
    """
    more = sampling.told(locals())
    text = _text_of(prompt)
    _check_logprobs(logprobs, as_json=as_json, echo=echo)
    with options.connect(target, api_key_env, model) as client:
        found = client.get_model()
        is_chat = not raw and bool(found.chat_templates)
        _check_kind(system, is_chat=is_chat, echo=echo)
        asked = _Asked(client, text, system, is_chat, (max_tokens, temperature, top_p), more)
        shown = Shown(text if echo else "", as_json)
        with WaitDisplay(short(found.name)) as waiting, Payment(client, may_open=not no_session) as payment:
            more["on_progress"] = waiting.show
            if n == 1:
                _stream(asked, payment, waiting, shown)
            else:
                _answer_several(asked, n, payment, waiting, shown)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A prompt with what its answers are to be like."""

    client: Client
    text: str
    system: str
    is_chat: bool
    sampling: tuple[int | None, float | None, float | None]
    more: MoreOptions

    def stream(self) -> TextStream:
        max_tokens, temperature, top_p = self.sampling
        if self.is_chat:
            return self.client.complete_chat(
                self._messages(), max_tokens=max_tokens, temperature=temperature, top_p=top_p, **self.more
            )
        return self.client.complete_prompt(self.text, max_tokens, temperature, top_p, **self.more)

    def several(self, n: int) -> list[Completion]:
        if self.is_chat:
            return self.client.complete_batch([self._messages()], *self.sampling, n=n, **self.more)
        return self.client.complete_batch([self.text], *self.sampling, n=n, **self.more)

    def _messages(self) -> list[dict[str, str]]:
        told = [{"role": "system", "content": self.system}] if self.system else []
        return [*told, {"role": "user", "content": self.text}]


def _stream(asked: _Asked, payment: Payment, waiting: WaitDisplay, shown: Shown) -> None:
    is_first = True
    for piece in payment.pieces(asked.stream):
        waiting.stop()
        if is_first:
            shown.begin()
            is_first = False
        shown.show(piece)
    if is_first:  # an empty answer
        shown.begin()
    answer = payment.stream
    shown.end(Completion(answer.text, answer.finish_reason or "", answer.usage, logprobs=answer.logprobs))


def _answer_several(asked: _Asked, n: int, payment: Payment, waiting: WaitDisplay, shown: Shown) -> None:
    answers = payment.whole(lambda: asked.several(n))
    waiting.stop()
    shown.show_all(answers)
    if any(answer.error is not None for answer in answers):
        raise typer.Exit(exits.FAILED)


def _text_of(prompt: str) -> str:
    text = read_text(sys.stdin.read) if prompt == "-" else prompt
    if not text:
        raise PromptEmptyError(field="input")
    return text


def _check_logprobs(logprobs: int | None, *, as_json: bool, echo: bool) -> None:
    if logprobs is None:
        return
    if not as_json:
        raise typer.BadParameter("it needs --json.", param_hint="--logprobs")
    if echo:
        raise typer.BadParameter("those of a prompt are not computed: not with --echo.", param_hint="--logprobs")


def _check_kind(system: str, *, is_chat: bool, echo: bool) -> None:
    if system and not is_chat:
        raise typer.BadParameter("it needs a model with a chat template, and no --raw.", param_hint="--system")
    if echo and is_chat:
        raise typer.BadParameter("it needs --raw, or a model without a chat template.", param_hint="--echo")
