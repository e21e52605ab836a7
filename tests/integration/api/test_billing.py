"""Money over the wire: what a session costs stands in the ledger, with a receipt."""

import time

import grpc
import pytest

from tests.integration.api.conftest import Wire
from tests.integration.api.test_refusals import refusal_of
from tidemill.v1 import account_pb2, billing_pb2, session_pb2


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
    receipt = receipt_of(wire, started.name)
    assert (receipt.cost_microcredits, receipt.billed_seconds) == (bill.cost_microcredits, bill.billed_seconds)
    assert receipt.final
    assert len(receipt.entries) == len(entries)


@pytest.mark.parametrize("amount", [0, -1, 10**15 + 1])
def test_what_cannot_be_granted_is_refused_by_its_name(wire: Wire, amount: int) -> None:
    request = billing_pb2.GrantCreditsRequest(account="accounts/local", amount_microcredits=amount, reason="a test")
    refusal = refusal_of(lambda: wire.accounts.GrantCredits(request, metadata=wire.metadata))
    assert (refusal.reason, refusal.field) == ("FIELD_INVALID", "amount_microcredits")
