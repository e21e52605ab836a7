"""The writer is one for all, so no unit may read through a whole table that only grows."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from tests.contract.store.conftest import Customer, new_customer
from tests.databases import sqlite_file
from tests.funds import grant
from tests.integration.scaler.platform import manifest_json
from tidemill_services.domain.api_key import Role
from tidemill_services.domain.ledger import Contra, EntryKind, Posting, Used
from tidemill_services.domain.limits import UsageLimits
from tidemill_services.domain.session import EndReason
from tidemill_services.domain.session_use import Use
from tidemill_services.domain.usage_report import ReportQuestion
from tidemill_services.store import (
    account_credits,
    accounts,
    api_keys,
    audit,
    leader,
    ledger,
    ledger_seal,
    model_views,
    models,
    receipts,
    requests,
    session_activity,
    session_places,
    sessions,
    usage_reports,
)
from tidemill_services.store.database import Transaction
from tidemill_services.store.sqlite import SqliteDatabase

GROWING = (
    "sessions",
    "session_holders",
    "requests",
    "api_keys",
    "accounts",
    "model_starts",
    "audit_events",
    "balances",
    "ledger_entries",
)
# A scan of a partial index reads what it holds, one of the primary key reads everything.
WHOLE_TABLE = re.compile(rf"SCAN ({'|'.join(GROWING)})( USING .*sqlite_autoindex.*)?")
REQUEST = requests.RequestKey("first", "Start", "r", b"h" * 32)
COUNTED = session_activity.CountedNews(1, {"0" * 32: [(9, 5)]}, {"0" * 32: Use(1, 2, 3)})
NEWS = session_activity.News(ended_ago_ms={"0" * 32: 5}, signs_ago_ms={("0" * 32, "h"): 5}, counted=COUNTED)
QUESTION = ReportQuestion(0, 1)
UNITS: dict[str, Callable[[Transaction], object]] = {
    "start": lambda tx: sessions.start_session(
        tx, account_id="first", key_id=key_of(tx), model="small", holder="h", price_microcredits_per_second=1
    ),
    "stop twice": lambda tx: [
        sessions.stop_session(tx, account_id="first", key_id=key_of(tx), model="small", all_holders=True)
        for _ in range(2)
    ],
    "stop of the model": lambda tx: sessions.stop_sessions_of_model(tx, "small", EndReason.ADMIN),
    "finish": lambda tx: sessions.finish_session(tx, "0" * 32),
    "list stopped": lambda tx: sessions.list_stopped(tx, ["0" * 32]),
    "get": lambda tx: sessions.get_session(tx, "first", an_id(tx)),
    "update": lambda tx: sessions.update_session(
        tx, "first", an_id(tx), limits=lambda limits: limits, labels={"a": "b"}
    ),
    "tell activity": lambda tx: session_activity.tell_activity(tx, "host.1", NEWS),
    "forget a process": lambda tx: session_activity.forget_process(tx, "host."),
    "look": lambda tx: session_activity.look_at_sessions(tx, holders_are_heard=True),
    "time to look": session_activity.time_to_look_ms,
    "list": lambda tx: sessions.list_sessions(tx, "first", page_size=2, page_token="f" * 32, model="small"),
    "open session": lambda tx: sessions.open_session_of(tx, "none", "small"),
    "model ready": lambda tx: sessions.model_became_ready(tx, "small"),
    "model lost": lambda tx: sessions.model_was_lost(tx, "small"),
    "count": sessions.count_open_by_model,
    "count of one": lambda tx: sessions.count_open_by_model(tx, "small"),
    "view of a model": lambda tx: model_views.get_model_view(tx, "small"),
    "find key": lambda tx: accounts.find_key_by_hash(tx, b"h" * 32),
    "get key": lambda tx: api_keys.get_api_key(tx, "first", key_of(tx)),
    "list keys": lambda tx: api_keys.list_api_keys(tx, "first", page_token="f"),
    "change a key": lambda tx: change_key(tx, display_name="x"),
    "revoke an administrator's key": lambda tx: [
        change_key(tx, role=Role.ADMIN),
        another_admin(tx),
        change_key(tx, revoke_ms=1),
    ],
    "sessions of ended keys": api_keys.end_sessions_of_ended_keys,
    "list accounts": lambda tx: accounts.list_accounts(tx, page_token="a"),
    "list events": lambda tx: audit.list_events(tx, "", page_token="9"),
    "list events of one": lambda tx: audit.list_events(tx, "first", page_token="9"),
    "place for a session": lambda tx: [
        change_key(tx, limits=UsageLimits(concurrent_sessions=9)),
        session_places.require_place(tx, "first", key_of(tx)),
    ],
    "post": lambda tx: grant(tx, "first", 5),
    "refund": lambda tx: [
        charge(tx),
        account_credits.refund(tx, an_id(tx), 1, "a test", ""),
    ],
    "list rows": lambda tx: ledger.list_entries(tx, "first", page_token="1"),
    "list rows of a session": lambda tx: ledger.list_entries(tx, "first", subject=f"sessions/{an_id(tx)}"),
    "seal": lambda tx: ledger_seal.seal(tx, "host.1", leader.renew_leadership(tx, "host.1")),
    "rows without a block": lambda tx: [ledger_seal.has_unsealed(tx), ledger_seal.count_unsealed(tx)],
    "receipt": lambda tx: [
        ledger_seal.seal(tx, "host.1", leader.renew_leadership(tx, "host.1")),
        receipts.make_receipt(tx, "first", an_id(tx)),
    ],
    "usage report": lambda tx: usage_reports.make_report(tx, "first", QUESTION),
    "find response": lambda tx: requests.find_response(tx, REQUEST),
    "save response": lambda tx: requests.save_response(tx, REQUEST, b"done"),
    "replace response": lambda tx: requests.replace_responses(tx, [(REQUEST, b"done")] * 2),
    "forget response": lambda tx: requests.forget_response(tx, REQUEST),
    "forget expired responses": requests.forget_expired,
}


def key_of(tx: Transaction) -> str:
    query = "SELECT key_id FROM api_keys WHERE account_id = 'first'"
    return tx.connection.exec_driver_sql(query).scalar_one()


def charge(tx: Transaction) -> None:
    used = Used("small", billed_seconds=1, price_microcredits_per_second=1)
    posting = Posting(EntryKind.SESSION_CHARGE, Contra.SESSIONS, -1, -1, f"sessions/{an_id(tx)}", used)
    ledger.post(tx, "first", [posting])


def change_key(tx: Transaction, **changes: object) -> None:
    before = api_keys.get_api_key(tx, "first", key_of(tx))
    api_keys.save_api_key(tx, before, dataclasses.replace(before, **changes), actor="", action="UpdateApiKey")


def another_admin(tx: Transaction) -> None:
    accounts.create_account(tx, "second", "")
    accounts.create_api_key(tx, "second", b"secret", role=Role.ADMIN)


def an_id(tx: Transaction) -> str:
    return sessions.list_sessions(tx, "first").sessions[0].session_id


@pytest.fixture
async def sqlite_customer(tmp_path: Path):
    database = SqliteDatabase(sqlite_file(tmp_path))
    await database.open()
    await database.write(
        models.register_model, name="small", digest="0" * 64, manifest_json=manifest_json(), package_path="/p"
    )
    customer = await new_customer(database, "first")
    await customer.start()
    yield customer
    await database.close()


@pytest.mark.parametrize("name", UNITS)
async def test_a_unit_finds_its_rows_by_an_index(sqlite_customer: Customer, name: str):
    def scanned(tx: Transaction) -> list[str]:
        statements = recorded(tx.connection, lambda: UNITS[name](tx))
        plans = [
            row[3]
            for statement in statements
            for row in tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}")
        ]
        assert statements
        return [plan for plan in plans if WHOLE_TABLE.fullmatch(plan)]

    assert await sqlite_customer.database.write(scanned) == []


def recorded(connection: Connection, work: Callable[[], object]) -> list[str]:
    """Do the work; return its statements as the database itself saw them, with their values."""
    statements: list[str] = []

    def record(statement: str) -> None:
        is_query = statement.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))
        if is_query and ("api_keys" not in statement or "WHERE" in statement):
            statements.append(statement)

    driver = connection.connection.driver_connection
    assert driver is not None
    driver.set_trace_callback(record)
    work()
    driver.set_trace_callback(None)
    return statements
