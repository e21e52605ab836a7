"""A session's live meter: one line that moves on a terminal, a line for each piece of news elsewhere."""

import sys
from datetime import timedelta

import typer

from tidemill.cli.output import credits_of
from tidemill.cli.session_options import duration_text
from tidemill.session_results import Meter, SessionWarning

_CLEAR_LINE = "\r\x1b[2K"
_WHY = {
    "idle": "nothing ran",
    "max_duration": "its longest duration",
    "max_spend": "its spending limit",
    "budget": "the account's credits",
    "lost": "nobody is there",
}


class MeterDisplay:
    """Shows each reading it is given, on standard output."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._last_news: tuple[object, ...] = ()

    def show(self, reading: Meter) -> None:
        """Show a reading."""
        line = meter_line(reading)
        if self._is_terminal:
            sys.stdout.write(f"{_CLEAR_LINE}{line}")
            sys.stdout.flush()
            return
        is_waiting = reading.unbilled_wait is not None
        news = (reading.session.state, reading.idle is None, is_waiting, reading.next_end_reason, reading.warnings)
        if news != self._last_news:
            self._last_news = news
            typer.echo(line)

    def stop(self) -> None:
        """Leave the terminal to what comes now."""
        if self._is_terminal:
            typer.echo()


def meter_line(reading: Meter) -> str:
    """A reading in a line."""
    session = reading.session
    parts = [
        session.state,
        duration_text(timedelta(seconds=session.bill.billed_seconds)),
        credits_of(session.bill.cost_microcredits),
    ]
    if session.is_open and session.state != "pending":
        parts.append(_use_text(reading))
    if reading.time_to_end is not None:
        why = _WHY.get(reading.next_end_reason, reading.next_end_reason)
        parts.append(f"ends in {duration_text(reading.time_to_end)} ({why})")
    if session.end_reason:
        parts.append(f"ended: {session.end_reason}")
    return " · ".join([*parts, *(_warning_text(warning) for warning in reading.warnings)])


def _use_text(reading: Meter) -> str:
    if reading.unbilled_wait is not None:
        return "waits for a slot, not billed"
    return "in use" if reading.idle is None else f"idle {duration_text(reading.idle)}"


def _warning_text(warning: SessionWarning) -> str:
    if warning.holder:
        return f"! {warning.holder} gives no sign of life"
    return f"! {warning.percent} % of {warning.end_reason}"
