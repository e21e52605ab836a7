"""The audit trail: who did what to accounts and keys, and what administrators did. Rows are only ever added."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """A field that was changed, as texts; empty where there was or is no value."""

    field: str
    old_value: str
    new_value: str


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One act."""

    sequence: int
    event_ms: int
    actor: str  # the name of the key that acted; empty: the server itself
    action: str  # the method
    account_id: str  # that it concerns; empty: the whole platform
    resource: str  # what it was done to, by its name
    changes: tuple[Change, ...]


def changes_between(before: Mapping[str, object], after: Mapping[str, object]) -> tuple[Change, ...]:
    """The fields that differ, in the order in which they stand. Neither side may hold secrets."""
    pairs = [(name, _text(before.get(name)), _text(after.get(name))) for name in {**before, **after}]
    return tuple(Change(name, old, new) for name, old, new in pairs if old != new)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
