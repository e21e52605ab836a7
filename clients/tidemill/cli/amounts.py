"""Amounts of credits on the command line: decimal numbers, read exactly."""

import re
from decimal import Decimal

import typer

_MICROCREDITS = 1_000_000  # of a credit
# Few enough digits for Decimal to be exact.
_AMOUNT = re.compile(r"-?(?:\d{1,15}(?:\.\d{0,6}0{0,6})?|\.\d{1,6}0{0,6})", re.ASCII)


def parse_credits(text: str) -> int:
    """Read credits, such as 5 or 0.25, as microcredits."""
    microcredits = parse_change(text)
    if microcredits < 0:
        raise typer.BadParameter(f"{text!r} is no amount of credits: it is 0 or more.")
    return microcredits


def parse_change(text: str) -> int:
    """Read credits that are added, or with a minus taken, as microcredits."""
    if not _AMOUNT.fullmatch(text):
        raise typer.BadParameter(f"{text!r} is no amount of credits: write such as 5 or 0.25, in steps of 0.000001.")
    return int(Decimal(text) * _MICROCREDITS)
