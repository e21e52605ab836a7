"""What sessions are told on the command line: durations, credits, labels."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Annotated, TypeAlias

import typer

from tidemill.cli.amounts import parse_credits
from tidemill.face import SessionOptions

_DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", re.ASCII)


def parse_duration(text: str) -> timedelta:
    """Read 90, 90s, 15m, 1h30m or 2d."""
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise typer.BadParameter(f"{text!r} is no duration: write seconds, or such as 90s, 15m, 1h30m, 2d.")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    try:
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        raise typer.BadParameter(f"{text!r} is too long.") from None


def parse_labels(texts: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE, each."""
    labels = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise typer.BadParameter(f"{text!r} is no label: write KEY=VALUE.", param_hint="--label")
        labels[key] = value
    return labels


IdleTimeout: TypeAlias = Annotated[
    timedelta | None,
    typer.Option(parser=parse_duration, metavar="DURATION", help="End it when nothing ran for so long, such as 15m."),
]
MaxDuration: TypeAlias = Annotated[
    timedelta | None,
    typer.Option(parser=parse_duration, metavar="DURATION", help="End it so long after its clock began, such as 12h."),
]
MaxSpend: TypeAlias = Annotated[
    int | None, typer.Option(parser=parse_credits, metavar="CREDITS", help="End it when it has cost that.")
]
Labels: TypeAlias = Annotated[
    list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Your own; may be given several times.")
]


def session_options(
    idle_timeout: timedelta | None, max_duration: timedelta | None, max_spend: int | None, labels: Sequence[str] | None
) -> SessionOptions:
    """What is said of a session; what is not said is left out."""
    given = SessionOptions()
    if idle_timeout is not None:
        given["idle_timeout"] = idle_timeout
    if max_duration is not None:
        given["max_duration"] = max_duration
    if max_spend is not None:
        given["max_spend_microcredits"] = max_spend
    if labels:
        given["labels"] = parse_labels(labels)
    return given


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels as they are given."""
    return ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))


def duration_text(duration: timedelta) -> str:
    """A duration as it is given: 1h30m, 15m, 90s as 1m30s."""
    seconds = int(duration.total_seconds())
    parts = ((seconds // 86_400, "d"), (seconds // 3_600 % 24, "h"), (seconds // 60 % 60, "m"), (seconds % 60, "s"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"
