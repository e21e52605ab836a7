"""`tidemill chat`: a conversation in the terminal."""

import contextlib
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from tidemill.cli import exits, options
from tidemill.cli import sampling_options as sampling
from tidemill.cli.input import read_text
from tidemill.cli.output import aside, note, short
from tidemill.cli.payment import Payment
from tidemill.cli.progress import WaitDisplay
from tidemill.client import Client
from tidemill.errors import ContextExceededError, TidemillError, UnauthenticatedError, UnreachableError
from tidemill.face import MoreOptions
from tidemill.results import Model
from tidemill.streams import TextStream

_HELP = "/reset forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C stops an answer."


def chat(
    model: options.ModelOption = None,
    system: Annotated[str, typer.Option(help="What the model should be told before the conversation.")] = "",
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
    exact: options.Exact = False,
    no_session: options.NoSession = False,
    target: options.Target = None,
    api_key_env: options.KeyVariable = None,
) -> None:
    """Talk with a model.

    The conversation goes along with each question until /reset. When the key has no open session, one is opened for the
    conversation and stopped at its end; its bill is shown. When the model's context is full, the oldest turns are left
    out. Standard input may be a file, a question a line; then the exit code is 1 when any question failed.
    """
    more = sampling.told(locals())
    with options.connect(target, api_key_env, model) as client, Payment(client, may_open=not no_session) as payment:
        found = client.get_model()
        conversation = Conversation(client, payment, found, system, (max_tokens, temperature, top_p), more)
        if sys.stdin.isatty():
            note(f"You talk with {short(found.name)}. {_HELP}")
        while (line := read_text(_read_line)) is not None:
            if line == "/exit":
                break
            if line == "/reset":
                conversation.reset()
                note("The conversation is forgotten.")
            elif line.startswith("/"):
                note(_HELP)
            elif line:
                conversation.ask(line)
    if conversation.has_failed and not sys.stdin.isatty():
        raise typer.Exit(exits.FAILED)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: str
    num_tokens: int
    """What they add to the prompt of the next question; 0 when the answer was cut and nobody counted."""


class Conversation:
    """The turns until now, and how the next one is answered."""

    def __init__(
        self,
        client: Client,
        payment: Payment,
        model: Model,
        system: str,
        sampling: tuple[int | None, float | None, float | None],
        more: MoreOptions,
    ) -> None:
        self._client = client
        self._payment = payment
        self._model = model
        # The rest of the context is for the next question and its answer.
        self._most_kept_tokens = model.context_length * 3 // 4
        self._system = system
        self._max_tokens, self._temperature, self._top_p = sampling
        self._more = more
        self._turns: list[Turn] = []
        self._has_said_what_is_left_out = False
        self.has_failed = False

    def reset(self) -> None:
        """Forget what was said."""
        self._turns = []

    def ask(self, question: str) -> None:
        """Print the answer as it comes, and keep both; a failed question is said and forgotten, as if never asked."""
        pieces: list[str] = []
        try:
            self._print_answer(question, pieces)
        except KeyboardInterrupt:
            typer.echo()
            note("The answer was stopped.")
        except (UnreachableError, UnauthenticatedError):
            raise
        except TidemillError as error:
            if pieces:
                typer.echo()
            note(f"Error: {error}")
            self.has_failed = True
        else:
            typer.echo()
            if self._payment.stream.finish_reason == "length":
                aside("The answer ended early: it reached --max-tokens or the end of the model's context.")
        if pieces:
            self._turns.append(Turn(question, "".join(pieces), self._num_new_tokens()))

    def _print_answer(self, question: str, pieces: list[str]) -> None:
        while self._num_kept_tokens() > self._most_kept_tokens:
            self._leave_out_the_oldest()
        with WaitDisplay(short(self._model.name)) as waiting:
            self._more["on_progress"] = waiting.show
            while True:
                try:
                    for piece in self._payment.pieces(lambda: self._start(question)):
                        waiting.stop()
                        pieces.append(piece)
                        sys.stdout.write(piece)
                        sys.stdout.flush()
                except ContextExceededError:  # comes before any text
                    if not self._turns:
                        raise
                    self._leave_out_the_oldest()
                else:
                    return

    def _leave_out_the_oldest(self) -> None:
        del self._turns[0]
        if not self._has_said_what_is_left_out:
            self._has_said_what_is_left_out = True
            aside("The model's context is full: from here on the oldest turns are left out.")

    def _num_kept_tokens(self) -> int:
        return sum(turn.num_tokens for turn in self._turns)

    def _num_new_tokens(self) -> int:
        """What the answer that has just ended adds to the next prompt."""
        usage = self._payment.stream.usage
        return max(0, usage.prompt_tokens + usage.completion_tokens - self._num_kept_tokens()) if usage else 0

    def _messages(self, question: str) -> list[dict[str, str]]:
        found = [{"role": "system", "content": self._system}] if self._system else []
        for turn in self._turns:
            found += [{"role": "user", "content": turn.question}, {"role": "assistant", "content": turn.answer}]
        return [*found, {"role": "user", "content": question}]

    def _start(self, question: str) -> TextStream:
        return self._client.complete_chat(
            self._messages(question),
            max_tokens=self._max_tokens,
            temperature=self._temperature,
            top_p=self._top_p,
            **self._more,
        )


def _read_line() -> str | None:
    """The next question; None at the end of input."""
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401, PLC0415 -- gives `input` its line editing, where the platform has it
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            if sys.stdin.isatty():
                typer.echo()
            return None
        except KeyboardInterrupt:
            typer.echo()
            note(_HELP)
