"""Options for how tokens are chosen, and what they say to a client."""

from collections.abc import Mapping
from typing import Annotated, Any, TypeAlias, cast

import typer

from tidemill.face import MoreOptions

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


_TOLD = (
    "stop", "seed", "top_k", "session", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "logit_bias", "ignore_eos", "exact", "logprobs",
)  # fmt: skip


def told(given: Mapping[str, Any]) -> MoreOptions:
    """What a command's options, by their names, say of a generation; what was not said is the server's to choose."""
    said = {name: given[name] for name in _TOLD if name in given and not _is_unsaid(given[name])}
    if "logit_bias" in said:
        said["logit_bias"] = dict(map(_bias, said["logit_bias"]))
    if "logprobs" in said:
        said["top_logprobs"] = said.pop("logprobs")
    return cast("MoreOptions", said)


def _is_unsaid(value: object) -> bool:
    return value is None or value is False or value in ("", [])


def _bias(text: str) -> tuple[int, float]:
    token, _, bias = text.partition("=")
    try:
        return int(token), float(bias)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not TOKEN=BIAS, two numbers.", param_hint="--logit-bias") from None
