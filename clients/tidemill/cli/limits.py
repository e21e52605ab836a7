"""Options for limits, which accounts and keys share."""

from typing import Annotated, TypeAlias

import typer

from tidemill.account_results import UsageLimits

RequestsPerMinute: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Requests in each minute; 0: no limit, as at first.")
]
Generations: TypeAlias = Annotated[
    int | None,
    typer.Option("--generations", min=0, help="Generations at a time; 0: no limit, as at first."),
]
Sessions: TypeAlias = Annotated[
    int | None, typer.Option("--sessions", min=0, help="Open sessions at a time; 0: no limit, as at first.")
]
TokensPerMinute: TypeAlias = Annotated[
    int | None, typer.Option(min=0, help="Tokens in each minute; 0: no limit, as at first.")
]


def changed_limits(
    before: UsageLimits,
    requests_per_minute: int | None,
    generations: int | None,
    sessions: int | None,
    tokens_per_minute: int | None,
) -> UsageLimits | None:
    """The limits with what the options ask for; None when they ask for nothing."""
    if requests_per_minute is generations is sessions is tokens_per_minute is None:
        return None
    return UsageLimits(
        requests_per_minute=_one(before.requests_per_minute, requests_per_minute),
        concurrent_generations=_one(before.concurrent_generations, generations),
        concurrent_sessions=_one(before.concurrent_sessions, sessions),
        tokens_per_minute=_one(before.tokens_per_minute, tokens_per_minute),
    )


def limits_text(limits: UsageLimits) -> str:
    """Limits as people read them."""
    parts = (
        (limits.requests_per_minute, "requests a minute"),
        (limits.tokens_per_minute, "tokens a minute"),
        (limits.concurrent_generations, "generations at a time"),
        (limits.concurrent_sessions, "open sessions"),
    )
    return ", ".join(f"{limit:,} {what}" for limit, what in parts if limit is not None) or "none"


def _one(before: int | None, asked: int | None) -> int | None:
    return before if asked is None else asked or None
