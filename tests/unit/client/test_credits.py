"""Credits, the ledger, prices and usage through both clients."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest

import tidemill
from tests.unit.client.mill import Mill, Refusal
from tests.unit.client.sealed_ledger import ACCOUNT, PRICE, SESSION
from tidemill import AsyncClient, Client, LedgerEntry, Price
from tidemill.errors import ReceiptNotReadyError
from tidemill.plan_run import PlanRun
from tidemill.plans import billing
from tidemill.results import ModelPrices
from tidemill.steps import Deadline, Sleep
from tidemill.v1 import billing_pb2

MODEL = "models/tide-nano"
NOT_READY = Refusal(grpc.StatusCode.UNAVAILABLE, "RECEIPT_NOT_READY")


def test_credits_are_granted_given_back_and_put_right(client: Client, mill: Mill) -> None:
    accounts = client.accounts
    granted = accounts.grant_credits("accounts/ada", 5_000_000, "Welcome")
    assert (granted.kind, granted.amount_microcredits, granted.balance_microcredits) == ("grant", 5_000_000, 5_000_000)
    corrected = accounts.correct_balance("accounts/ada", -1, "One too many")
    assert (corrected.kind, corrected.balance_microcredits) == ("correction", 4_999_999)
    assert (corrected.account, corrected.account_sequence, corrected.reason) == ("accounts/ada", 2, "One too many")
    assert accounts.refund_credits(SESSION, reason="Sorry").amount_microcredits == 4_200
    assert accounts.refund_credits(SESSION, 7, reason="Sorry").amount_microcredits == 7
    assert [one.HasField("amount_microcredits") for one in mill.requests["RefundCredits"]] == [False, True]
    asked = [one for name in ("GrantCredits", "CorrectBalance", "RefundCredits") for one in mill.requests[name]]
    assert len({one.request_id for one in asked}) == 4


def test_the_ledger_is_read_row_by_row_and_page_by_page(client: Client, mill: Mill) -> None:
    rows = list(client.accounts.ledger_entries())
    assert [row.account_sequence for row in rows] == list(range(1, 8))
    charged = rows[2]
    assert (charged.kind, charged.amount_microcredits, charged.billed_seconds) == ("session_charge", -5 * PRICE, 5)
    assert charged.usage_start_time == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert charged.usage_end_time == datetime(2023, 11, 14, 22, 13, 25, tzinfo=UTC)
    assert rows[0].usage_start_time is None
    assert {row.account for row in rows} == {ACCOUNT}
    assert len(mill.requests["ListLedgerEntries"]) == 4
    some = client.accounts.ledger_entries(session=SESSION, kinds=["hold", "session_charge"])
    assert [row.account_sequence for row in some] == [2, 3, 4]


def test_a_ledger_that_is_not_read_on_is_not_fetched_on(client: Client, mill: Mill) -> None:
    with client.accounts.ledger_entries() as rows:
        assert next(rows).account_sequence == 1
        rows.close()
        assert list(rows) == []
    assert len(mill.requests["ListLedgerEntries"]) == 1


def test_a_receipt_holds_and_its_blocks_are_the_servers(client: Client) -> None:
    receipt = client.accounts.receipt(SESSION)
    assert tidemill.verify_receipt(receipt).ok
    assert [client.accounts.ledger_block(block.number) for block in receipt.blocks] == list(receipt.blocks)
    with pytest.raises(tidemill.LedgerBlockNotFoundError):
        client.accounts.ledger_block(99)


def test_a_receipt_is_waited_for_until_its_last_rows_are_sealed(
    client: Client, mill: Mill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(billing, "_SEALING_PAUSE", timedelta(milliseconds=1))
    mill.fail_next("GetReceipt", NOT_READY, NOT_READY)
    assert client.accounts.receipt(SESSION).final
    assert len(mill.requests["GetReceipt"]) == 3


def test_a_receipt_is_not_waited_for_beyond_the_timeout_and_not_for_ever() -> None:
    def waited(timeout: float | None) -> float:
        run = PlanRun(billing.receipt(SESSION, deadline=Deadline(timeout)))
        seconds = 0.0
        while True:
            try:
                step = run.next_step()
            except ReceiptNotReadyError:
                return seconds
            if isinstance(step, Sleep):
                seconds += step.seconds
            else:
                run.fail(ReceiptNotReadyError())

    assert waited(0.1) == 0
    assert 3 < waited(None) < 10


def test_a_usage_report_is_asked_for_and_read(client: Client, mill: Mill) -> None:
    mill.usage = billing_pb2.UsageReport(
        rows=[billing_pb2.UsageRow(day="2026-11-21", model=MODEL, billed_seconds=8, charged_microcredits=8 * PRICE)],
        total=billing_pb2.UsageRow(billed_seconds=8, charged_microcredits=8 * PRICE, num_sessions=2),
    )
    mill.usage.start_time.FromSeconds(1_700_000_000)
    since = datetime(2026, 11, 1, 2, tzinfo=UTC) + timedelta(milliseconds=5)
    report = client.accounts.usage_report(
        "accounts/ada", start_time=since, group_by=["day", "api_key", "label"], label_key="team"
    )
    assert (report.rows[0].day, report.rows[0].charged_microcredits) == ("2026-11-21", 8 * PRICE)
    assert (report.total.num_sessions, report.total.model) == (2, "")
    assert report.start_time is not None
    assert report.end_time is None
    (request,) = mill.requests["GetUsageReport"]
    assert request.start_time.ToMilliseconds() == since.timestamp() * 1_000
    assert not request.HasField("end_time")
    names = billing_pb2.GetUsageReportRequest.GroupBy
    assert list(request.group_by) == [names.GROUP_BY_DAY, names.GROUP_BY_API_KEY, names.GROUP_BY_LABEL]
    assert (request.account, request.label_key) == ("accounts/ada", "team")


def test_prices_are_listed_set_and_withdrawn(client: Client, mill: Mill) -> None:
    accounts = client.accounts
    assert accounts.set_price(MODEL, ModelPrices(800, 20, 30)).prices == ModelPrices(800, 20, 30)
    own = accounts.set_price(MODEL, ModelPrices(1, 2, 3), account=ACCOUNT)
    assert (own.revision, own.account, own.withdrawn) == (3, ACCOUNT, False)
    assert [price.revision for price in accounts.prices(MODEL)] == [3, 2]
    assert accounts.withdraw_price(MODEL, ACCOUNT).withdrawn
    assert [price.revision for price in accounts.prices()] == [2]
    assert [price.revision for price in accounts.prices(include_history=True, limit=3)] == [4, 3, 2]
    assert len({one.request_id for one in mill.requests["SetPrice"]}) == 3


@pytest.mark.parametrize(
    ("field", "ask"),
    [
        ("amount_microcredits", lambda accounts: accounts.grant_credits("accounts/a", 1.5, "Why")),
        ("amount_microcredits", lambda accounts: accounts.grant_credits("accounts/a", 10**30, "Why")),
        ("amount_microcredits", lambda accounts: accounts.correct_balance("accounts/a", "5", "Why")),
        ("amount_microcredits", lambda accounts: accounts.refund_credits(SESSION, 0.5, reason="Why")),
        ("reason", lambda accounts: accounts.grant_credits("accounts/a", 1, 5)),
        ("kinds", lambda accounts: list(accounts.ledger_entries(kinds=["gift"]))),
        ("kinds", lambda accounts: accounts.ledger_entries(kinds="grant")),
        ("group_by", lambda accounts: accounts.usage_report(group_by=["week"])),
        ("group_by", lambda accounts: accounts.usage_report(group_by="day")),
        ("start_time", lambda accounts: accounts.usage_report(start_time=datetime(2026, 1, 1))),
        ("end_time", lambda accounts: accounts.usage_report(end_time="2026-01-01")),
        ("start_time", lambda accounts: accounts.usage_report(
            start_time=datetime(1, 1, 1, tzinfo=UTC).replace(tzinfo=datetime.strptime("+1400", "%z").tzinfo))),
        ("number", lambda accounts: accounts.ledger_block("last")),
        ("price", lambda accounts: accounts.set_price(MODEL, 700)),
        ("price.session_microcredits_per_second", lambda accounts: accounts.set_price(MODEL, ModelPrices(0.7, 0, 0))),
        ("limit", lambda accounts: accounts.prices(limit=0)),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_sent(client: Client, mill: Mill, field: str, ask) -> None:
    with pytest.raises(tidemill.FieldInvalidError) as refused:
        ask(client.accounts)
    assert refused.value.field == field
    assert not mill.metadata


async def test_the_asyncio_client_does_the_same(async_client: AsyncClient) -> None:
    accounts = async_client.accounts
    granted: LedgerEntry = await accounts.grant_credits(ACCOUNT, 5, "Why")
    assert [row async for row in accounts.ledger_entries()][-1] == granted
    assert (await accounts.correct_balance(ACCOUNT, -5, "Why")).amount_microcredits == -5
    assert (await accounts.refund_credits("sessions/2", 1, reason="Why")).subject == "sessions/2"
    receipt = await accounts.receipt(SESSION)
    assert tidemill.verify_receipt(receipt).ok
    assert await accounts.ledger_block(1) == receipt.blocks[0]
    assert (await accounts.usage_report()).rows == ()
    price: Price = await accounts.set_price(MODEL, ModelPrices(1, 2, 3), account=ACCOUNT)
    assert price in await accounts.prices()
    assert (await accounts.withdraw_price(MODEL, ACCOUNT)).withdrawn
