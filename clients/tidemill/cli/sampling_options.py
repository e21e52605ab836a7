"""Options for how tokens are chosen, beside the few that every generation has."""

from typing import Annotated, TypeAlias

import typer

Stop: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="TEXT", help="End before this text; may be given several times.")
]
MinP: TypeAlias = Annotated[
    float | None, typer.Option(help="Only tokens of at least this share of the likeliest one's probability.")
]
RepetitionPenalty: TypeAlias = Annotated[
    float | None, typer.Option(help="Above 1: tokens of the prompt and the answer come up less.")
]
PresencePenalty: TypeAlias = Annotated[
    float | None, typer.Option(help="Above 0: tokens that are in the answer come up less.")
]
FrequencyPenalty: TypeAlias = Annotated[
    float | None, typer.Option(help="Above 0: the same, for each time that they are in it.")
]
LogitBias: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="TOKEN=BIAS", help="Add to a token's logit, -100 to 100; may be given several times."),
]
IgnoreEos: TypeAlias = Annotated[bool, typer.Option("--ignore-eos", help="Go on to --max-tokens.")]
Logprobs: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", help="With --json: log-probabilities of each token and the N likeliest, 0 to 20."),
]


def biases(given: list[str] | None) -> dict[int, float] | None:
    """What `--logit-bias` says."""
    return dict(map(_bias, given)) if given else None


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not TOKEN=BIAS, two numbers.", param_hint="--logit-bias") from None
