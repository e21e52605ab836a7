"""Times on the command line."""

from datetime import UTC, datetime

import typer


def parse_moment(text: str, option: str | None = None) -> datetime:
    """Read a day or a time as ISO 8601 has it; without a zone it is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no time: write such as 2030-01-31 or 2030-01-31T12:00:00Z.", param_hint=option
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
