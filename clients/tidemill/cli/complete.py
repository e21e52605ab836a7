"""`tidemill complete`: one prompt, one answer."""

import sys
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.cli.input import read_text
from tidemill.cli.output import note, print_json, short
from tidemill.cli.payment import Payment
from tidemill.cli.progress import WaitDisplay
from tidemill.errors import PromptEmptyError
from tidemill.face import MoreOptions
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
    more = MoreOptions(stop=stop or ())
    if seed is not None:
        more["seed"] = seed
    if top_k is not None:
        more["top_k"] = top_k
    if session:
        more["session"] = session
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


def _end(answer: TextStream, *, as_json: bool) -> None:
    if as_json:
        print_json({"text": answer.text, "finish_reason": answer.finish_reason, "usage": answer.usage})
    else:
        typer.echo()
        if answer.finish_reason != "stop":
            note(f"The answer ended early: {answer.finish_reason}.")
