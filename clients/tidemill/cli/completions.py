"""How the answers of `tidemill complete` are shown."""

import sys
from dataclasses import dataclass

import typer

from tidemill.cli.output import note, print_json
from tidemill.results import Candidate, Completion, TokenLogprob


@dataclass(frozen=True, slots=True)
class Shown:
    """Prints texts, or an object for each answer."""

    echoed: str  # the prompt, with which each answer begins if it is to
    as_json: bool

    def begin(self) -> None:
        """An answer begins."""
        self.show(self.echoed)

    def show(self, piece: str) -> None:
        """A piece of it has come."""
        if not self.as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()

    def end(self, answer: Completion) -> None:
        """It has ended, and its text was shown."""
        if self.as_json:
            print_json(self._object(answer))
            return
        typer.echo()
        if answer.finish_reason != "stop":
            note(f"The answer ended early: {answer.finish_reason}.")

    def show_all(self, answers: list[Completion]) -> None:
        """Several answers to one prompt, an empty line between their texts."""
        for index, answer in enumerate(answers):
            if self.as_json:
                print_json({"index": index, **self._object(answer)})
                continue
            typer.echo(f"{chr(10) if index else ''}{self.echoed}{answer.text}")
            if answer.error is not None:
                note(f"Answer {index} broke: {answer.error}")
            elif answer.finish_reason != "stop":
                note(f"Answer {index} ended early: {answer.finish_reason}.")

    def _object(self, answer: Completion) -> dict[str, object]:
        found: dict[str, object] = {
            "text": self.echoed + answer.text,
            "finish_reason": answer.finish_reason,
            "usage": answer.usage,
        }
        if answer.logprobs:
            found["logprobs"] = [_logprob(each) for each in answer.logprobs]
        if answer.error is not None:
            found["error"] = str(answer.error)
        return found


def _logprob(one: TokenLogprob) -> dict[str, object]:
    return {**_candidate(one.chosen), "top": [_candidate(each) for each in one.top]}


def _candidate(candidate: Candidate) -> dict[str, object]:
    text = candidate.text.decode(errors="replace")
    return {"token_id": candidate.token_id, "text": text, "logprob": candidate.logprob}
