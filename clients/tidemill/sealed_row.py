"""A row of the ledger as it was sealed: JSON in one form only, so that its bytes have one hash."""

import json
from dataclasses import dataclass, fields
from typing import Any, Self

_LONGEST_ROW = 16_384
"""Characters; the longest reason, escaped, is a fifth of it."""
_LARGEST_INTEGER = 2**63 - 1


class NotARowError(ValueError):
    """A text is no row of the ledger; `str(error)` goes on after "it"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    """A row, under the names that its JSON has. What is not said of it is 0 or empty."""

    account: str
    """accounts/{account}."""
    account_sequence: int
    actor: str
    amount_microcredits: int
    balance_microcredits: int
    billed_seconds: int
    commit_ms: int
    """Milliseconds since 1970, as the other times."""
    completion_tokens: int
    contra: str
    from_ms: int
    held_microcredits: int
    hold_microcredits: int
    kind: str
    """Such as SESSION_CHARGE."""
    ledger_sequence: int
    model: str
    num_generations: int
    price_microcredits_per_second: int
    price_revision: int
    prompt_tokens: int
    reason: str
    subject: str
    """sessions/{session}; empty for the account as such."""
    until_ms: int

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a row. Raises NotARowError when it is none, or one in another form than rows are sealed in."""
        if len(text) > _LONGEST_ROW:
            raise NotARowError("is longer than any row")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise NotARowError("is no JSON") from None
        if not isinstance(found, dict) or set(found) != {field.name for field in fields(cls)}:
            raise NotARowError("has other fields than a row; a newer Tidemill may have sealed it")
        for field in fields(cls):
            if not _is_allowed(found[field.name], field.type):
                raise NotARowError(f"has something else than a row has in {field.name}")
        if text != canonical_json(found):
            raise NotARowError("is not in the form that rows are sealed in")
        return cls(**found)


def canonical_json(found: dict[str, Any]) -> str:
    """The one form in which things are hashed: names sorted, no spaces, ASCII."""
    return json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _is_allowed(value: object, kind: object) -> bool:
    if kind is int:
        return type(value) is int and abs(value) <= _LARGEST_INTEGER
    return isinstance(value, str)
