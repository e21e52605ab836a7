"""`tidemill complete`: one prompt, one answer."""

import sys
from typing import Annotated, cast

import typer

from tidemill.cli import options
from tidemill.cli.input import read_text
from tidemill.cli.output import note, print_json, short
from tidemill.cli.payment import Payment
from tidemill.cli.progress import WaitDisplay
from tidemill.errors import PromptEmptyError
from tidemill.face import MoreOptions
from tidemill.results import Candidate, TokenLogprob
from tidemill.streams import TextStream


def complete(
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="The text; - reads it from standard input.")],
    model: options.ModelOption = None,
    system: Annotated[str, typer.Option(help="What the model should be told before the prompt.")] = "",
    raw: Annotated[bool, typer.Option("--raw", help="Go on from the text itself, without the chat template.")] = False,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    seed: options.Seed = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End before this text; may be given several times.")
    ] = None,
    min_p: Annotated[
        float | None, typer.Option(help="Only tokens of at least this share of the likeliest one's probability.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: tokens of the prompt and the answer come up less.")
    ] = None,
    presence_penalty: Annotated[
        float | None, typer.Option(help="Above 0: tokens that are in the answer come up less.")
    ] = None,
    frequency_penalty: Annotated[
        float | None, typer.Option(help="Above 0: the same, for each time that they are in it.")
    ] = None,
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="TOKEN=BIAS", help="Add to a token's logit, -100 to 100; may be given several times."),
    ] = None,
    ignore_eos: Annotated[bool, typer.Option("--ignore-eos", help="Go on to --max-tokens.")] = False,
    logprobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="With --json: log-probabilities of each token and the N likeliest, 0 to 20."),
    ] = None,
    session: Annotated[str, typer.Option(help="The session that pays.  [default: the key's open one]")] = "",
    no_session: options.NoSession = False,
    as_json: options.AsJson = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Answer one prompt.

    The prompt is sent as the user's message when the model has a chat template, unless --raw is given. When the key has
    no open session, one is opened for this answer and stopped after it; its bill is shown.
    """
    text = read_text(sys.stdin.read) if prompt == "-" else prompt
    if not text:
        raise PromptEmptyError(field="input")
    if logprobs is not None and not as_json:
        raise typer.BadParameter("it needs --json.", param_hint="--logprobs")
    given = {
        "stop": stop,
        "seed": seed,
        "top_k": top_k,
        "session": session or None,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "presence_penalty": presence_penalty,
        "frequency_penalty": frequency_penalty,
        "logit_bias": dict(map(_bias, logit_bias)) if logit_bias else None,
        "ignore_eos": ignore_eos or None,
        "top_logprobs": logprobs,
    }
    more = cast("MoreOptions", {name: value for name, value in given.items() if value is not None})
    with options.connect(target, api_key_env, model) as client:
        found = client.get_model()
        is_chat = not raw and bool(found.chat_templates)
        if system and not is_chat:
            raise typer.BadParameter("it needs a model with a chat template, and no --raw.", param_hint="--system")

        def ask() -> TextStream:
            if is_chat:
                return client.complete_chat(
                    _messages(system, text), max_tokens=max_tokens, temperature=temperature, top_p=top_p, **more
                )
            return client.complete_prompt(text, max_tokens, temperature, top_p, **more)

        with WaitDisplay(short(found.name)) as waiting, Payment(client, may_open=not no_session) as payment:
            more["on_progress"] = waiting.show
            for piece in payment.pieces(ask):
                waiting.stop()
                if not as_json:
                    sys.stdout.write(piece)
                    sys.stdout.flush()
            _end(payment.stream, as_json=as_json)


def _messages(system: str, text: str) -> list[dict[str, str]]:
    told = [{"role": "system", "content": system}] if system else []
    return [*told, {"role": "user", "content": text}]


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not TOKEN=BIAS, two numbers.", param_hint="--logit-bias") from None


def _end(answer: TextStream, *, as_json: bool) -> None:
    if as_json:
        found = {"text": answer.text, "finish_reason": answer.finish_reason, "usage": answer.usage}
        print_json({**found, "logprobs": _shown(answer.logprobs)} if answer.logprobs else found)
    else:
        typer.echo()
        if answer.finish_reason != "stop":
            note(f"The answer ended early: {answer.finish_reason}.")


def _shown(logprobs: tuple[TokenLogprob, ...]) -> list[dict[str, object]]:
    return [{**_candidate(each.chosen), "top": [_candidate(one) for one in each.top]} for each in logprobs]


def _candidate(candidate: Candidate) -> dict[str, object]:
    text = candidate.text.decode(errors="replace")
    return {"token_id": candidate.token_id, "text": text, "logprob": candidate.logprob}
