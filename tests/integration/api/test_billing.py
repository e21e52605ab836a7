"""Money over the wire: what a session costs stands in the ledger, with a receipt."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import pytest

from tests.integration.api.conftest import MODEL, Wire, wait_until, wire_to
from tests.integration.api.test_refusals import refusal_of
from tests.server_process import ServerProcess
from tidemill.v1 import account_pb2, billing_pb2, model_pb2, session_pb2


def entries_of(wire: Wire, subject: str = "") -> list[billing_pb2.LedgerEntry]:
    request = billing_pb2.ListLedgerEntriesRequest(subject=subject, page_size=1_000)
    return list(wire.accounts.ListLedgerEntries(request, metadata=wire.metadata).ledger_entries)


def receipt_of(wire: Wire, session: str) -> billing_pb2.Receipt:
    """The receipt, once its last row is sealed."""
    while True:
        try:
            return wire.accounts.GetReceipt(billing_pb2.GetReceiptRequest(session=session), metadata=wire.metadata)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            time.sleep(0.1)


@pytest.mark.rule("S3")
@pytest.mark.rule("L7")
def test_a_sessions_life_stands_in_the_ledger_and_on_its_receipt(wire: Wire) -> None:
    before = wire.accounts.GetAccount(account_pb2.GetAccountRequest(), metadata=wire.metadata)
    start = session_pb2.StartSessionRequest(model="models/tide-nano")
    started = wire.sessions.StartSession(start, metadata=wire.metadata).session
    held = wire.accounts.GetAccount(account_pb2.GetAccountRequest(), metadata=wire.metadata)
    assert held.balance_microcredits == before.balance_microcredits
    assert held.held_microcredits == before.held_microcredits + 300 * started.bill.price_microcredits_per_second
    stop = session_pb2.StopSessionRequest(name=started.name, all_holders=True)
    bill = wire.sessions.StopSession(stop, metadata=wire.metadata).session.bill
    after = wire.accounts.GetAccount(account_pb2.GetAccountRequest(), metadata=wire.metadata)
    assert after.held_microcredits == before.held_microcredits
    assert after.balance_microcredits == before.balance_microcredits - bill.cost_microcredits
    entries = entries_of(wire, started.name)
    assert sum(entry.hold_microcredits for entry in entries) == 0
    assert -sum(entry.amount_microcredits for entry in entries) == bill.cost_microcredits
    assert sum(entry.billed_seconds for entry in entries) == bill.billed_seconds
    wait_until(lambda: receipt_of(wire, started.name).final, "a receipt of a session that is drained")
    receipt = receipt_of(wire, started.name)
    assert (receipt.cost_microcredits, receipt.billed_seconds) == (bill.cost_microcredits, bill.billed_seconds)
    assert len(receipt.entries) == len(entries)


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1])
def test_what_cannot_be_granted_is_refused_by_its_name(wire: Wire, amount: int) -> None:
    request = billing_pb2.GrantCreditsRequest(account="accounts/local", amount_microcredits=amount, reason="a test")
    refusal = refusal_of(lambda: wire.accounts.GrantCredits(request, metadata=wire.metadata))
    assert (refusal.reason, refusal.field) == ("FIELD_INVALID", "amount_microcredits")


@pytest.fixture
def poor(server: ServerProcess, wire: Wire) -> Iterator[Wire]:
    """A user's key of an account that has no credits."""
    account = wire.accounts.CreateAccount(account_pb2.CreateAccountRequest(), metadata=wire.metadata).name
    request = account_pb2.CreateApiKeyRequest(account=account)
    secret = wire.accounts.CreateApiKey(request, metadata=wire.metadata).secret
    with wire_to(server, secret) as poor:
        yield poor


def account_of(wire: Wire) -> account_pb2.Account:
    return wire.accounts.GetAccount(account_pb2.GetAccountRequest(), metadata=wire.metadata)


def grant(wire: Wire, account: str, microcredits: int, **fields: str) -> billing_pb2.LedgerEntry:
    request = billing_pb2.GrantCreditsRequest(
        account=account, amount_microcredits=microcredits, **{"reason": "for a test", **fields}
    )
    return wire.accounts.GrantCredits(request, metadata=wire.metadata)


def set_price(wire: Wire, microcredits: int, account: str, **fields: bool) -> billing_pb2.Price:
    price = billing_pb2.Price(
        model=f"models/{MODEL}", account=account, session_microcredits_per_second=microcredits, **fields
    )
    return wire.accounts.SetPrice(billing_pb2.SetPriceRequest(price=price), metadata=wire.metadata)


@pytest.mark.rule("S14")
def test_a_session_starts_only_with_credits_for_its_first_five_minutes(wire: Wire, poor: Wire) -> None:
    name, price = account_of(poor).name, poor.model().prices.session_microcredits_per_second
    grant(wire, name, 300 * price - 1)
    refusal = refusal_of(poor.start)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_CREDITS")
    assert "0.000001 are missing" in refusal.message
    assert entries_of(poor)[-1].kind == billing_pb2.LedgerEntry.KIND_GRANT
    grant(wire, name, 1)
    poor.start()
    assert account_of(poor).held_microcredits == 300 * price
    poor.stop()


def test_the_openai_door_says_that_credits_are_missing(server: ServerProcess, wire: Wire, poor: Wire) -> None:
    request = account_pb2.CreateApiKeyRequest(
        account=account_of(poor).name, api_key=account_pb2.ApiKey(auto_session=True)
    )
    secret = wire.accounts.CreateApiKey(request, metadata=wire.metadata).secret
    wire.models.StartModel(model_pb2.StartModelRequest(name=f"models/{MODEL}"), metadata=wire.metadata)
    wait_until(lambda: wire.model().ready_replicas > 0, "a ready replica")  # a cold one is woken first, for nothing
    body = json.dumps({"model": MODEL, "prompt": "once"}).encode()
    headers = {"authorization": f"Bearer {secret}", "content-type": "application/json"}
    ask = urllib.request.Request(f"http://{server.http}/v1/completions", body, headers)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(ask, timeout=60)
    error = json.loads(refused.value.read())["error"]
    assert (refused.value.code, error["type"], error["code"]) == (402, "insufficient_quota", "INSUFFICIENT_CREDITS")


def test_a_repeated_grant_is_given_once(wire: Wire, poor: Wire) -> None:
    name = account_of(poor).name
    first = grant(wire, name, 5, request_id="again")
    assert grant(wire, name, 5, request_id="again") == first
    assert refusal_of(lambda: grant(wire, name, 6, request_id="again")).reason == "REQUEST_ID_REUSED"
    assert account_of(poor).balance_microcredits == 5


@pytest.mark.rule("L3")
def test_what_is_put_right_takes_nothing_that_is_held_or_not_there(wire: Wire, poor: Wire) -> None:
    name = account_of(poor).name
    grant(wire, name, 5)
    request = billing_pb2.CorrectBalanceRequest(account=name, amount_microcredits=-5, reason="counted twice")
    entry = wire.accounts.CorrectBalance(request, metadata=wire.metadata)
    assert (entry.balance_microcredits, entry.reason) == (0, "counted twice")
    assert entry.actor.startswith("accounts/local/keys/")
    refusal = refusal_of(lambda: wire.accounts.CorrectBalance(request, metadata=wire.metadata))
    assert refusal.reason == "INSUFFICIENT_CREDITS"


@pytest.mark.rule("L5")
def test_no_more_is_given_back_than_was_charged(wire: Wire, poor: Wire) -> None:
    grant(wire, account_of(poor).name, 10**12)
    poor.start()
    wait_until(lambda: poor.model().ready_replicas > 0, "a ready replica")
    time.sleep(0.1)
    stopped = poor.stop().session
    cost = stopped.bill.cost_microcredits
    assert cost > 0
    part = billing_pb2.RefundCreditsRequest(session=stopped.name, amount_microcredits=1, reason="sorry")
    assert wire.accounts.RefundCredits(part, metadata=wire.metadata).amount_microcredits == 1
    rest = billing_pb2.RefundCreditsRequest(session=stopped.name, reason="sorry")
    assert wire.accounts.RefundCredits(rest, metadata=wire.metadata).amount_microcredits == cost - 1
    for request in (part, rest):
        refusal = refusal_of(lambda request=request: wire.accounts.RefundCredits(request, metadata=wire.metadata))
        assert refusal.reason == "REFUND_EXCEEDS_CHARGE"
    assert account_of(poor).balance_microcredits == 10**12
    assert receipt_of(poor, stopped.name).cost_microcredits == 0


@pytest.mark.rule("A14")
def test_an_accounts_own_price_holds_for_it_alone_and_until_it_is_withdrawn(wire: Wire, poor: Wire) -> None:
    name, price = account_of(poor).name, wire.model().prices.session_microcredits_per_second
    grant(wire, name, 10**12)
    before = poor.start().session
    set_price(wire, price + 7, name)
    assert poor.model().prices.session_microcredits_per_second == price + 7
    assert wire.model().prices.session_microcredits_per_second == price
    assert poor.start().session.bill.price_microcredits_per_second == price
    assert poor.stop().session.name == before.name
    assert poor.start().session.bill.price_microcredits_per_second == price + 7
    poor.stop()
    assert set_price(wire, 0, name, withdrawn=True).revision > 0
    assert poor.model().prices.session_microcredits_per_second == price
    request = billing_pb2.ListPricesRequest(model=f"models/{MODEL}", include_history=True)
    history = poor.accounts.ListPrices(request, metadata=poor.metadata).prices
    assert [each.account for each in history] == [name, name, ""]


def test_a_usage_report_sums_up_the_ledger_by_what_is_asked_for(wire: Wire, poor: Wire) -> None:
    grant(wire, account_of(poor).name, 10**12)
    bills = []
    for project in ("a", "b", "a"):
        poor.start(labels={"project": project})
        wait_until(lambda: poor.model().ready_replicas > 0, "a ready replica")
        time.sleep(0.05)
        bills.append(poor.stop().session.bill)
    request = billing_pb2.GetUsageReportRequest(
        group_by=[billing_pb2.GetUsageReportRequest.GROUP_BY_LABEL], label_key="project"
    )
    report = poor.accounts.GetUsageReport(request, metadata=poor.metadata)
    assert [(row.label_value, row.num_sessions) for row in report.rows] == [("a", 2), ("b", 1)]
    assert report.rows[0].charged_microcredits == bills[0].cost_microcredits + bills[2].cost_microcredits
    assert report.total.charged_microcredits == sum(bill.cost_microcredits for bill in bills)
    assert report.total.billed_seconds == sum(bill.billed_seconds for bill in bills)
    by_day = poor.accounts.GetUsageReport(billing_pb2.GetUsageReportRequest(), metadata=poor.metadata)
    assert {row.model for row in by_day.rows} == {f"models/{MODEL}"}
    assert all(len(row.day) == len("2026-11-21") for row in by_day.rows)
