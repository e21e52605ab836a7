"""The tables, for SQLite and Postgres alike. Times are `*_ms`: milliseconds since 1970, UTC.

States are stored as the names of the domain's enums. Migrations are made from these files; a test compares the two.
"""

from tidemill_services.store.tables.access import accounts, api_keys, audit_events, limit_slices, requests
from tidemill_services.store.tables.base import clock, metadata, of_model
from tidemill_services.store.tables.books import (
    balances,
    credit_slices,
    ledger_blocks,
    ledger_entries,
    ledger_totals,
    prices,
)
from tidemill_services.store.tables.paying import counted_news, session_activity, session_holders, sessions
from tidemill_services.store.tables.serving import assignments, demand, hosts, leader, model_starts, models, replicas

__all__ = [
    "accounts",
    "api_keys",
    "assignments",
    "audit_events",
    "balances",
    "clock",
    "counted_news",
    "credit_slices",
    "demand",
    "hosts",
    "leader",
    "ledger_blocks",
    "ledger_entries",
    "ledger_totals",
    "limit_slices",
    "metadata",
    "model_starts",
    "models",
    "of_model",
    "prices",
    "replicas",
    "requests",
    "session_activity",
    "session_holders",
    "sessions",
]
