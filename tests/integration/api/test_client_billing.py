"""Money through the client library and the CLI, against the real server."""

import copy
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.integration.api.conftest import MODEL
from tests.server_process import ServerProcess
from tidemill import (
    Client,
    FieldInvalidError,
    InsufficientCreditsError,
    Receipt,
    RefundExceedsChargeError,
    RoleRequiredError,
    SessionNotFoundError,
    read_receipt,
    verify_receipt,
    write_receipt,
)
from tidemill.cli.app import app
from tidemill.results import ModelPrices
from tidemill.session_results import Bill

NUM_CUSTOMERS = 7


@pytest.fixture
def client(server: ServerProcess) -> Iterator[Client]:
    with Client(server.api_key, target=server.grpc, model=MODEL, timeout=60) as found:
        yield found
        with suppress(SessionNotFoundError):  # a test that started none
            found.stop_session(all_holders=True)


@pytest.fixture
def run(server: ServerProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIDEMILL_TARGET", server.grpc)
    monkeypatch.setenv("TIDEMILL_API_KEY", server.api_key)
    monkeypatch.setenv("COLUMNS", "200")

    def command(*words: str) -> Result:
        return CliRunner().invoke(app, list(words), prog_name="tidemill")

    return command


def used(client: Client) -> Bill:
    """The bill of a session in which something was asked."""
    session = client.start_session()
    client.complete("once upon a time", max_tokens=4)
    return client.stop_session(name=session.name)


def final_receipt(client: Client, session: str) -> Receipt:
    """The receipt of a stopped session, once it is drained."""
    found = client.accounts.receipt(session)
    end = time.monotonic() + 30
    while not found.final and time.monotonic() < end:
        time.sleep(0.05)
        found = client.accounts.receipt(session)
    return found


@pytest.mark.rule("L7")
def test_receipts_of_sessions_at_the_same_time_hold_and_are_of_the_servers_blocks(
    client: Client, server: ServerProcess, tmp_path: Path
) -> None:
    client.wait_until_model_running()
    secrets = [client.accounts.create_key().secret for _ in range(NUM_CUSTOMERS)]

    def one(secret: str) -> Bill:
        with Client(secret, target=server.grpc, model=MODEL, timeout=60) as customer:
            return used(customer)

    with ThreadPoolExecutor(NUM_CUSTOMERS) as threads:
        bills = list(threads.map(one, secrets))
    for number, bill in enumerate(bills):
        file = tmp_path / f"{number}.json"
        write_receipt(final_receipt(client, bill.session), file)
        receipt = read_receipt(file)
        found = verify_receipt(receipt)
        assert found.ok, found.problem
        assert receipt.final
        assert (receipt.cost_microcredits, receipt.billed_seconds) == (bill.cost_microcredits, bill.billed_seconds)
        assert bill.billed_seconds >= 1
        assert [client.accounts.ledger_block(block.number) for block in receipt.blocks] == list(receipt.blocks)
        entry = receipt.entries[-1]
        row = entry.row.replace('"ledger_sequence":', '"ledger_sequence":1')
        changed = replace(receipt, entries=(*receipt.entries[:-1], replace(entry, row=row)))
        assert not verify_receipt(changed).ok


def test_a_receipt_of_an_open_session_holds_and_grows(client: Client) -> None:
    client.wait_until_model_running()
    session = client.start_session()
    before = client.accounts.receipt(session.name)
    bill = client.stop_session(name=session.name)
    after = final_receipt(client, session.name)
    assert verify_receipt(before).ok
    assert verify_receipt(after).ok
    assert (before.final, after.final) == (False, True)
    assert after.entries[: len(before.entries)] == before.entries
    assert after.cost_microcredits == bill.cost_microcredits


def test_a_refund_stands_on_the_receipt_and_in_the_report(client: Client) -> None:
    client.wait_until_model_running()
    session = client.start_session(labels={"purpose": "refund"})
    bill = client.stop_session(name=session.name)

    def usage() -> tuple[int, int]:
        yesterday = datetime.now(UTC) - timedelta(days=1)
        report = client.accounts.usage_report(start_time=yesterday, group_by=["label", "model"], label_key="purpose")
        (row,) = (row for row in report.rows if (row.label_value, row.model) == ("refund", f"models/{MODEL}"))
        return row.charged_microcredits, row.refunded_microcredits

    charged, refunded = usage()
    assert charged >= bill.cost_microcredits
    client.accounts.refund_credits(bill.session, 1, reason="A first part")
    entry = client.accounts.refund_credits(bill.session, reason="The rest")
    assert (entry.kind, entry.amount_microcredits) == ("refund", bill.cost_microcredits - 1)
    assert usage() == (charged, refunded + bill.cost_microcredits)
    receipt = client.accounts.receipt(bill.session)
    assert verify_receipt(receipt).ok
    assert receipt.cost_microcredits == 0
    with pytest.raises(RefundExceedsChargeError):
        client.accounts.refund_credits(bill.session, 1, reason="Too much")
    rows = list(client.accounts.ledger_entries(session=bill.session, kinds=["refund"]))
    assert [row.reason for row in rows] == ["A first part", "The rest"]


def test_credits_are_granted_and_corrected_and_every_row_is_listed(client: Client) -> None:
    accounts = client.accounts
    name = accounts.create().name
    accounts.grant_credits(name, 5_000_000, "Welcome")
    accounts.correct_balance(name, -1_000_000, "Too many")
    with pytest.raises(InsufficientCreditsError):
        accounts.correct_balance(name, -4_000_001, "More than there is")
    found = accounts.get(name)
    assert (found.balance_microcredits, found.held_microcredits) == (4_000_000, 0)
    rows = list(accounts.ledger_entries(name))
    assert [(row.account_sequence, row.kind, row.amount_microcredits) for row in rows] == [
        (1, "grant", 5_000_000),
        (2, "correction", -1_000_000),
    ]
    assert all(row.actor.startswith("accounts/local/keys/") for row in rows)
    with pytest.raises(FieldInvalidError):
        accounts.grant_credits("", 1, "For whom?")


def test_a_ledger_of_more_rows_than_a_page_is_read_to_its_end(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidemill.plans.paging._PAGE", 3)
    name = client.accounts.create().name
    for number in range(1, 8):
        client.accounts.grant_credits(name, number, "x")
    rows = list(client.accounts.ledger_entries(name))
    assert [row.account_sequence for row in rows] == list(range(1, 8))
    assert rows[-1].balance_microcredits == sum(range(8))


def test_a_price_of_an_accounts_own_is_set_seen_and_withdrawn(client: Client, run) -> None:
    name = client.accounts.create().name
    (before,) = client.accounts.prices(MODEL, account=name)
    own = client.accounts.set_price(MODEL, ModelPrices(1, 2, 3), account=name)
    assert client.accounts.prices(MODEL, account=name) == [own]
    assert client.accounts.prices(MODEL, account=name, include_history=True)[0] == own
    run("prices", "set", MODEL, "--input", "0.5", "--account", name)
    (changed,) = client.accounts.prices(f"models/{MODEL}", account=name)
    assert changed.prices == ModelPrices(1, 500_000, 3)
    assert client.accounts.withdraw_price(MODEL, name).withdrawn
    assert client.accounts.prices(MODEL, account=name) == [before]


def test_who_is_no_administrator_moves_no_money_and_sees_no_others_receipt(
    client: Client, server: ServerProcess, neighbours_key: str
) -> None:
    session = client.start_session().name
    client.stop_session(name=session)
    with Client(neighbours_key, target=server.grpc, timeout=60) as neighbour:
        accounts = neighbour.accounts
        for ask in (
            lambda: accounts.grant_credits("accounts/neighbour", 1, "x"),
            lambda: accounts.correct_balance("accounts/neighbour", 1, "x"),
            lambda: accounts.refund_credits(session, reason="x"),
            lambda: accounts.set_price(MODEL, ModelPrices(0, 0, 0)),
        ):
            with pytest.raises(RoleRequiredError):
                ask()
        with pytest.raises(SessionNotFoundError):
            accounts.receipt(session)


def test_the_commands_fetch_verify_and_compare(client: Client, run, tmp_path: Path) -> None:
    client.wait_until_model_running()
    bill = used(client)
    file = tmp_path / "receipt.json"
    assert run("receipt", "get", bill.session, "-o", str(file)).exit_code == 0
    verified = run("receipt", "verify", str(file), "--server", "--json")
    assert verified.exit_code == 0
    assert json.loads(verified.stdout)["checks"][-1].startswith("The ledger at ")
    content = json.loads(file.read_text())
    content["blocks"] = copy.deepcopy(content["blocks"])
    content["blocks"][0]["previous_hash"] = "A" * 43 + "="
    file.write_text(json.dumps(content))
    changed = run("receipt", "verify", str(file))
    assert (changed.exit_code, changed.stdout.startswith("It does not hold: Block ")) == (1, True)
    since = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    report = json.loads(run("usage", "--by", "model", "--since", since, "--json").stdout)
    assert report["total"]["charged_microcredits"] >= bill.cost_microcredits
    assert run("usage", "--since", since, "--format", "csv").stdout.count("\n") >= 2
